"""Independent calls, spread over what there is to compute on: the same results, in order, as they come.

The one seam between what is fitted and where. :class:`OnCores` takes the cores of this machine; the services put a
cluster in its place (``infra.ray_spread``). Whoever takes a result does not see which: a call has one thread inside
and draws by its own seed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from feature_store.errors import WorkerLost

T = TypeVar("T")


class Spread(Protocol):
    """``function(*shared, *own)`` for each ``own`` of ``calls``."""

    def __call__(
        self, function: Callable[..., T], shared: tuple[Any, ...], calls: Iterable[tuple[Any, ...]]
    ) -> Generator[T, None, None]:
        """Results in the order of ``calls``; what a call raises is raised at its place or earlier, and ends the rest.

        ``function`` is a module's own; ``shared`` is sent once to each place, and nobody may write to it. Close the
        generator (``contextlib.closing``) where it may be left early: calls not begun never begin. Raises WorkerLost
        where a call's process died, as often as it was tried.
        """


@dataclass(frozen=True)
class OnCores:
    """Over ``n_jobs`` processes of this machine (-1: as many as it has cores)."""

    n_jobs: int = 1

    def __call__(
        self, function: Callable[..., T], shared: tuple[Any, ...], calls: Iterable[tuple[Any, ...]]
    ) -> Generator[T, None, None]:
        results = Parallel(n_jobs=self.n_jobs, return_as="generator")(delayed(function)(*shared, *own) for own in calls)
        try:
            # "yield from" would be closed outside of the block below, and joblib says what it gave up
            for result in results:  # noqa: UP028
                yield result
        except TerminatedWorkerError as error:
            raise lost(function) from error
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that tasks were given up is what closing is for
                results.close()


def lost(function: Callable[..., object]) -> WorkerLost:
    """The error for a call whose process died; names the step and nothing of its data."""
    return WorkerLost(
        f"A process died in {function.__module__.rpartition('.')[2]}.{function.__name__}.",
        action="Most often the machine has too little memory; begin the run again with more, or with fewer processes.",
    )
