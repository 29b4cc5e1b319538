"""Independent calls spread over a Ray cluster: what ``models.spread.OnCores`` is on one machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from infra.settings import Settings
from models.spread import Spread, lost
from pipelines.ray_session import connect

T = TypeVar("T")

RETRIES = 3
"""How often a call is tried again whose process or machine went away."""


@dataclass(frozen=True)
class OverCluster:
    """A Ray task of one CPU a call, on whichever node has one free; the caller takes none.

    The process is connected when it spreads first, and stays so: a run spreads several times, and the workers have
    this software loaded by then.
    """

    address: str

    def __call__(
        self, function: Callable[..., T], shared: tuple[Any, ...], calls: Iterable[tuple[Any, ...]]
    ) -> Generator[T, None, None]:
        connect(self.address)
        import ray

        task = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_call)
        once = ray.put(shared)
        waiting = [task.remote(function, once, own) for own in calls]
        try:
            while waiting:
                result = ray.get(waiting[0])
                del waiting[0]
                yield result
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise lost(function) from error
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def _call(function: Callable[..., T], shared: tuple[Any, ...], own: tuple[Any, ...]) -> T:
    return function(*shared, *own)


def spread_of(settings: Settings) -> Spread | None:
    """Over the cluster of the settings; None without one: a study's own ``n_jobs`` then says how many cores."""
    return OverCluster(settings.ray_address) if settings.ray_address else None
