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

from feature_store.errors import AsdegError, NotFound
from feature_store.software import software_version
from feature_store.store import FeatureStore
from services.ids import new_id

RunKind = Literal["selection", "training"]
Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction done, 0 to 1."""


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
            software_version=software_version(),
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
        """Record why the run failed; a foreign exception by its kind only, since its text may quote data."""
        line = error.line() if isinstance(error, AsdegError) else f"Unexpected: {type(error).__name__}"
        done = self.status.model_copy(update={"state": "failed", "error": line})
        return replace(self, status=done)._saved().status

    def _saved(self) -> Run:
        wall = None if self.status.state == "running" else round(time.monotonic() - self.clock, 3)
        status = self.status.model_copy(update={"wall_s": wall})
        row = status.model_dump()
        for name in ("settings", "artefacts", "metrics"):
            row[name] = None if row[name] is None else json.dumps(row[name])
        self.store.push({"training_runs": [row]}, kind="run", source=status.kind)
        return replace(self, status=status)


class RunHandler(ABC):
    """A service whose work is runs: each is begun (its id is known at once), then carried out, here or elsewhere."""

    kind: ClassVar[RunKind]

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def execute(self, run_id: str, progress: Progress | None = None) -> RunStatus:
        """Carry a run out. What it raises is recorded in the run as well."""
        run = Run.resume(self._store, run_id)
        try:
            return self._carry_out(run, progress or (lambda step, done: None))
        except BaseException as error:
            run.fail(error)
            raise

    def abandon(self, run_id: str, error: BaseException) -> None:
        """Record that the process of a run died, unless the run says already how it ended."""
        run = Run.resume(self._store, run_id)
        if run.status.state == "running":
            run.fail(error)

    def status(self, run_id: str) -> RunStatus:
        """Raises NotFound."""
        return read_run(self._store, run_id)

    def runs(self) -> list[RunStatus]:
        """All runs of this service, oldest first."""
        return list_runs(self._store, self.kind)

    @abstractmethod
    def _carry_out(self, run: Run, progress: Progress) -> RunStatus: ...


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
    fields = {name: row[name] for name in RunStatus.model_fields}
    for name in ("settings", "artefacts", "metrics"):
        fields[name] = None if fields[name] is None else json.loads(fields[name])
    return RunStatus(**fields)
