"""The loop both trainings share: what step s learns from, read ahead; the curve; the state that a run goes on from.

What a step sees depends on the settings' seed and the step alone (counter-based draws): there is no generator
to keep, a run that goes on repeats nothing and leaves nothing out, and workers take turns in the same batch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from models.learning.curve import CurveRow
from models.learning.learner import Inputs, Learner
from models.learning.settings import TrainingSettings
from pipelines.embedding.workplace import Workplace

if TYPE_CHECKING:
    from torch import Tensor, nn

Progress = Callable[[str, float], None]
Result = TypeVar("Result")
CUBES = "cubes"
"""Folder of a run's cut cubes."""

MICRO_BATCH = {"cpu": 1, "cuda": 8}
"""Samples that go through the net at once; gradients of a batch are summed over them."""

READ_AHEAD = 4
"""Samples that wait, ready, for the net, for each thread that reads."""


@dataclass(frozen=True)
class Trained:
    """What came of a training: the registered encoder, its curve, and how many patients it saw."""

    encoder: str
    steps: int
    curve: list[CurveRow]
    patients: int
    left_out: int
    """Patients whose images were there and may not be used, or are left to the protocol."""


def task_key(*parts: object) -> str:
    """Hash over what decides a training."""
    return hashlib.sha256("\n".join(repr(part) for part in parts).encode()).hexdigest()


class Task(ABC):
    """What is trained: settings, net, samples. Pickled to the workers, so it holds names and no images."""

    settings: TrainingSettings
    patience: int | None = None
    """Judgements without a lower loss before training stops; None: never, and the last weights are kept."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Hash over settings and data: a state of another key is not gone on from."""

    @abstractmethod
    def open(self, folder: Path) -> Samples:
        """The samples, as the worker that runs reads them; ``folder`` is for what is worth keeping."""


class Samples(ABC):
    """A task's net and data in a worker."""

    held_out: int

    @abstractmethod
    def net(self) -> nn.Module:
        """The net at step 0; the same in every worker."""

    @abstractmethod
    def sample(self, step: int, position: int) -> Inputs:
        """What the net's forward takes, for one place in one step's batch."""

    @abstractmethod
    def held_out_sample(self, number: int) -> Inputs:
        """The same for a held-out sample; always the same."""

    def together(self, samples: list[Inputs]) -> Inputs:
        """Several samples as one micro-batch."""
        return tuple(torch.cat(parts) for parts in zip(*samples, strict=True))

    def judged(self, found: list[tuple[float, float]]) -> dict[str, float]:
        """Of loss and score of each held-out sample, in order, the figures of a row of the curve."""
        return {"held_out_loss": float(np.mean([loss for loss, _ in found]))}


class Group:
    """The workers of a run, and the group of one that a run without Ray is."""

    rank, size = 0, 1
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def wrap(self, net: nn.Module) -> nn.Module:
        """The net whose gradients are averaged over the group."""
        return net

    def gather(self, value: Any) -> list[Any]:
        """The value of every worker, in order; waits for all of them."""
        return [value]


def train(
    task: Task, folder: Path, *, readers: int = 2, group: Group | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Train, or go on; the final state, which is in ``folder`` as well.

    ``weights`` of the state are the encoder's: those of the lowest held-out loss where the task stops early,
    the last ones otherwise. ``curve`` has a row every ``evaluate_every`` steps.
    """
    group = group or Group()
    settings, place, samples = task.settings, Workplace(folder), task.open(folder)
    learner = Learner(samples.net(), settings, group.device)
    run = _Run(learner, settings.steps, task.patience)
    state = place.read(task.key)
    if state is not None:
        run.restore(state)
    elif place.has_state() and progress is not None:
        progress("an earlier state is of other data or settings: beginning anew", 0.0)
    model = group.wrap(learner.net)
    micro = MICRO_BATCH[learner.device.type]
    mine = range(group.rank, settings.batch, group.size)
    plan = ((step, position) for step in range(learner.step, settings.steps) for position in mine)
    with _Ahead(readers) as ahead:
        coming = ahead.map(lambda at: samples.sample(*at), plan)
        while not run.over:
            batch = [next(coming) for _ in mine]
            parts = [samples.together(batch[at : at + micro]) for at in range(0, len(batch), micro)]
            loss = float(np.mean(group.gather(learner.learn(model, parts, len(batch)))))
            run.losses.append(loss)
            if learner.step % settings.evaluate_every == 0 or learner.step == settings.steps:
                numbers = range(group.rank, samples.held_out, group.size)
                found = learner.judge(ahead.map(samples.held_out_sample, numbers))
                together = sorted(
                    pair for part in group.gather(list(zip(numbers, found, strict=True))) for pair in part
                )
                run.note(samples.judged([pair for _, pair in together]))
                if group.rank == 0:
                    place.write({"key": task.key, **run.state()})
            if group.rank == 0:
                place.tell(learner.step, settings.steps)
            if progress is not None:
                progress(f"step {learner.step} of {settings.steps}, loss {loss:.3f}", learner.step / settings.steps)
    return {"key": task.key, **run.state()}


class _Run:
    """A learner with its curve, and the weights to hand over."""

    def __init__(self, learner: Learner, steps: int, patience: int | None) -> None:
        self._learner, self._steps, self._patience = learner, steps, patience
        self._curve: list[CurveRow] = []
        self._best: dict[str, Tensor] | None = None
        self._best_loss = float("inf")
        self._since = 0
        self.losses: list[float] = []
        """Of the steps since the curve's last row."""

    @property
    def over(self) -> bool:
        stopped = self._patience is not None and self._since >= self._patience
        return stopped or self._learner.step >= self._steps

    def note(self, judged: dict[str, float]) -> None:
        """A row of the curve; with patience, remember the best weights."""
        self._curve.append(
            {
                "step": self._learner.step,
                "learning_rate": self._learner.learning_rate(),
                "training_loss": float(np.mean(self.losses)),
                **judged,
            }
        )
        self.losses = []
        if self._patience is None:
            return
        self._since += 1
        if judged["held_out_loss"] < self._best_loss:
            self._best_loss, self._since = judged["held_out_loss"], 0
            self._best = self._learner.encoder_weights()

    def state(self) -> dict[str, Any]:
        return {
            **self._learner.state(),
            "curve": self._curve,
            "best_loss": self._best_loss,
            "since": self._since,
            "over": self.over,
            "weights": self._learner.encoder_weights() if self._best is None else self._best,
            "has_best": self._best is not None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._learner.restore(state)
        self._curve = list(state["curve"])
        self._best_loss, self._since = state["best_loss"], state["since"]
        self._best = state["weights"] if state["has_best"] else None


class _Ahead:
    """Threads that prepare what comes next while the net computes; results come in order."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def map(self, prepare: Callable[[Any], Result], items: Iterable[Any]) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self._pool.submit(prepare, item))
            if len(waiting) > READ_AHEAD * self._threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
