"""The record of a selection or training run: a row of ``training_runs``, revised as the run goes on."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from feature_store.errors import AsdegError, NotFound, NotReady, RunCancelled
from feature_store.run_progress import RunProgress
from feature_store.software import DECIDING_FITS, software_version
from feature_store.store import FeatureStore
from services.ids import new_id

RunKind = Literal["selection", "training"]
Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction done, 0 to 1."""
SAY_EVERY_S = 1.0


class RunStatus(BaseModel):
    """A run, as it stands."""

    run_id: str
    kind: RunKind
    state: Literal["running", "finished", "failed", "cancelled"]
    cohort: str
    version: int
    artefacts: dict[str, str] = Field(description="name to content hash")
    metrics: dict[str, Any] | None = Field(None, description="as metrics.json; null until finished")
    error: str | None = None
    settings: dict[str, Any]
    started_at: datetime
    wall_s: float | None = None
    software_version: str = ""
    step: str | None = Field(None, description="while it runs: what is being done")
    fraction: float | None = Field(None, description="while it runs: how much of the step is done, 0 to 1")


class RunAccepted(BaseModel):
    """A run was taken on; follow it by its id."""

    run_id: str
    state: str = "running"


@dataclass(frozen=True)
class Run:
    """A run that is under way in this process."""

    store: FeatureStore
    status: RunStatus
    clock: float

    @classmethod
    def begin(cls, store: FeatureStore, kind: RunKind, cohort: str, version: int, settings: Mapping[str, Any]) -> Run:
        """Record that a run has begun; it has an id from now on."""
        status = RunStatus(
            run_id=new_id(kind),
            kind=kind,
            state="running",
            cohort=cohort,
            version=version,
            artefacts={},
            settings=dict(settings),
            started_at=datetime.now(UTC),
            software_version=software_version(DECIDING_FITS),
        )
        return cls(store, status, time.monotonic())._saved()

    @classmethod
    def resume(cls, store: FeatureStore, run_id: str) -> Run:
        """A run that another process began. Raises NotFound."""
        return cls(store, read_run(store, run_id), time.monotonic())

    def finish(self, artefacts: Mapping[str, str], metrics: Mapping[str, Any] | None) -> RunStatus:
        """Record the end: names of artefacts to their content hashes, metrics as in metrics.json."""
        done = self.status.model_copy(
            update={"state": "finished", "artefacts": dict(artefacts), "metrics": metrics and dict(metrics)}
        )
        return replace(self, status=done)._saved().status

    def fail(self, error: BaseException) -> RunStatus:
        """Record why the run failed, or that it was cancelled.

        A foreign exception by its kind only, since its text may quote data.
        """
        line = error.line() if isinstance(error, AsdegError) else f"Unexpected: {type(error).__name__}"
        state = "cancelled" if isinstance(error, RunCancelled) else "failed"
        done = self.status.model_copy(update={"state": state, "error": line})
        return replace(self, status=done)._saved().status

    def _saved(self) -> Run:
        wall = None if self.status.state == "running" else round(time.monotonic() - self.clock, 3)
        status = self.status.model_copy(update={"wall_s": wall})
        row = status.model_dump(exclude={"step", "fraction"})
        for name in ("settings", "artefacts", "metrics"):
            row[name] = None if row[name] is None else json.dumps(row[name])
        self.store.push({"training_runs": [row]}, kind="run", source=status.kind)
        return replace(self, status=status)


class RunHandler(ABC):
    """A service whose work is runs: each is begun (its id is known at once), then carried out, here or elsewhere."""

    kind: ClassVar[RunKind]

    def __init__(self, store: FeatureStore, under_way: RunProgress | None = None) -> None:
        """``under_way``: where it is said how far a run is, and seen that it shall stop; None: nowhere."""
        self._store, self._under_way = store, under_way

    def execute(self, run_id: str, progress: Progress | None = None) -> RunStatus:
        """Carry a run out. What it raises is recorded in the run as well; RunCancelled where somebody stopped it."""
        run = Run.resume(self._store, run_id)
        try:
            return self._carry_out(run, _Reporter(run_id, self._under_way, progress))
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            if self._under_way is not None:
                self._under_way.forget(run_id)

    def abandon(self, run_id: str, error: BaseException) -> None:
        """Record that the process of a run died, unless the run says already how it ended."""
        run = Run.resume(self._store, run_id)
        if run.status.state == "running":
            run.fail(error)

    def cancel(self, run_id: str) -> RunStatus:
        """Ask a run to stop; it does at its next step. Raises NotFound, NotReady (it has ended)."""
        status = self.status(run_id)
        if status.state != "running" or self._under_way is None:
            raise NotReady("That run is not under way.", action="`asdeg runs` shows how it ended.")
        self._under_way.ask_to_stop(run_id)
        return status

    def status(self, run_id: str) -> RunStatus:
        """Where the run stands; while it runs, how far it is. Raises NotFound."""
        status = read_run(self._store, run_id)
        found = self._under_way.of(run_id) if self._under_way is not None and status.state == "running" else None
        return status if found is None else status.model_copy(update={"step": found.step, "fraction": found.fraction})

    def runs(self) -> list[RunStatus]:
        """All runs of this service, oldest first."""
        return list_runs(self._store, self.kind)

    @abstractmethod
    def _carry_out(self, run: Run, progress: Progress) -> RunStatus: ...


class _Reporter:
    """Passes progress on, says it to everybody once a second, and stops the run where that was asked for."""

    def __init__(self, run_id: str, under_way: RunProgress | None, progress: Progress | None) -> None:
        self._run_id, self._under_way, self._progress = run_id, under_way, progress
        self._said = float("-inf")

    def __call__(self, step: str, done: float) -> None:
        if self._progress is not None:
            self._progress(step, done)
        if self._under_way is None or time.monotonic() - self._said < SAY_EVERY_S:
            return
        self._said = time.monotonic()
        self._under_way.say(self._run_id, step, done)
        found = self._under_way.of(self._run_id)
        if found is not None and found.cancel:
            raise RunCancelled("The run was cancelled.", action="Begin another one when it is wanted.")


def read_run(store: FeatureStore, run_id: str) -> RunStatus:
    """Raises NotFound."""
    rows = store.snapshot().table("training_runs", where={"run_id": run_id}).to_pylist()
    if not rows:
        raise NotFound("There is no such run.", action="`asdeg runs` lists them.")
    return _status(rows[0])


def list_runs(store: FeatureStore, kind: RunKind | None = None) -> list[RunStatus]:
    """All runs (of a kind), oldest first."""
    rows = store.snapshot().table("training_runs").to_pylist()
    found = [_status(row) for row in rows if kind in (None, row["kind"])]
    return sorted(found, key=lambda status: (status.started_at, status.run_id))


def _status(row: Mapping[str, Any]) -> RunStatus:
    fields = {name: row[name] for name in RunStatus.model_fields if name in row}
    for name in ("settings", "artefacts", "metrics"):
        fields[name] = None if fields[name] is None else json.loads(fields[name])
    return RunStatus(**fields)
