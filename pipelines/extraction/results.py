"""Finished ROIs on their way into the store: pushed in batches, counted, cases brought to their state."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from feature_store.erasures import erased
from feature_store.errors import Conflict, PatientErased
from feature_store.rows import RejectedRow
from feature_store.schemas import TABLES
from feature_store.snapshot import Snapshot
from feature_store.software import software_version
from feature_store.store import FeatureStore
from pipelines.extraction.plan import CaseKey, ExtractionPlan, ExtractionSettings, RoiJob

if TYPE_CHECKING:
    from feature_store.control import CaseState

Progress = Callable[[int, int], None]
"""Called with (ROIs done, ROIs in all)."""

Finished: TypeAlias = tuple[RoiJob, dict[str, Any]]
"""A job and the row that came of it."""
EXTRACTED, REJECTED = "extracted", "rejected"
STAGES = ("read", "radiomics", "embedding")


REASON = "extraction: "
"""What extraction's reasons begin with, so that those of ingest stay beside them."""


class CaseStates(Protocol):
    """What extraction needs of the control database."""

    def case(self, case_id: str, site: str | None = None) -> CaseState | None:
        """The case's state as recorded."""

    def set_case_state(self, site: str, patient_id: str, case_id: str, state: str, reasons: Sequence[str] = ()) -> None:
        """Record a case's state and why."""


@dataclass(frozen=True)
class ExtractionReport:
    """ROIs that got all they lacked, ROIs that failed (with counts by error code), ROIs that lacked nothing.

    ``seconds`` is wall time; ``stage_seconds`` what a worker spent on an ROI, by stage, on average, and
    ``stage_totals`` in all: their sum over ``seconds`` is how many workers were busy at a time. ``alone``
    counts ROIs that were lost with a worker and computed once more; ``machines`` the ROIs a stage has done
    on each, by Ray's ids.
    """

    done: int
    failed: int
    left_out: int
    errors: dict[str, int]
    cases: dict[str, int]
    seconds: float
    stage_seconds: dict[str, float]
    stage_totals: dict[str, float] = field(default_factory=dict)
    alone: int = 0
    machines: dict[str, dict[str, int]] = field(default_factory=dict)


class Collector:
    """Takes finished rows of :mod:`pipelines.extraction.steps` and pushes them in batches."""

    def __init__(
        self,
        store: FeatureStore,
        settings: ExtractionSettings,
        plan: ExtractionPlan,
        control: CaseStates | None,
        progress: Progress | None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._plan = plan
        self._control = control
        self._progress = progress or (lambda done, total: None)
        self._open = {job.source: job for series in plan.series for job in series.rois}
        self._open |= {job.source: job for job, _ in plan.refused}
        self._waiting: list[tuple[RoiJob, dict[str, Any]]] = []
        self._pushed_at = monotonic()
        self._done = self._failed = 0
        self._errors: Counter[str] = Counter()
        self._states: Counter[str] = Counter()
        self._stage_s = dict.fromkeys(STAGES, 0.0)
        self._stage_n: Counter[str] = Counter()
        self._machines: dict[str, Counter[str]] = {}
        self.alone = 0

    @property
    def missing(self) -> list[RoiJob]:
        """ROIs that have not come back."""
        return list(self._open.values())

    def start(self) -> None:
        """Show that nothing is done yet, and settle the cases that need nothing."""
        self._progress(0, self._plan.total)
        self._settle(self._plan.cases)

    def collect(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take rows until there are no more. What has come is pushed even where the source fails.

        Ray may run a step again after a worker died; a second row of an ROI is left out.
        """
        try:
            for row in rows:
                job = self._open.pop(pickle.loads(row["job"]).source, None)
                if job is None:
                    continue
                self._waiting.append((job, row))
                late = monotonic() - self._pushed_at > self._settings.batch_seconds
                if late or len(self._waiting) >= self._settings.batch_rows:
                    self._push()
                self._progress(self._plan.total - len(self._open), self._plan.total)
        finally:
            self._push()

    def _push(self) -> None:
        """Push what is waiting, then count it: a state never runs ahead of the rows it stands for."""
        finished, self._waiting = self._waiting, []
        self._pushed_at = monotonic()
        while finished := self._of_those_who_are_here(finished):
            try:
                return self._push_finished(finished)
            except PatientErased:  # meanwhile: the others' rows are pushed
                continue

    def _of_those_who_are_here(self, finished: list[Finished]) -> list[Finished]:
        """Without patients who were erased since the plan was made: nothing of them is stored or noted any more."""
        gone = erased(self._store.snapshot())
        return [one for one in finished if not gone.holds(*one[0].source.case[:2])]

    def _push_finished(self, finished: list[Finished]) -> None:
        outcomes: list[dict[str, str]] = [{} for _ in finished]
        tables: dict[str, list[dict[str, Any]]] = {}
        places: dict[str, list[int]] = {}
        for place, (job, row) in enumerate(finished):
            for table, stored in _stored_rows(job, row):
                tables.setdefault(table, []).append(stored)
                places.setdefault(table, []).append(place)
                outcomes[place][table] = stored["error"] or ""
        if any(stored["error"] for rows in tables.values() for stored in rows):
            refusals = self._push_with_failures(tables, places, outcomes)
        else:
            refusals = self._store.push(tables, kind="features", source="extraction").rejected
        for refused in refusals:
            outcomes[places[refused.table][refused.row]][refused.table] = _refusal(refused)
        gone = {places[refused.table][refused.row] for refused in refusals if refused.rule == "erased"}
        counted = [(job, row, outcomes[at]) for at, (job, row) in enumerate(finished) if at not in gone]
        for job, row, outcome in counted:
            self._count(job, row, list(outcome.values()))
        self._settle(dict.fromkeys(job.source.case for job, *_ in counted))

    def _push_with_failures(
        self, tables: dict[str, list[dict[str, Any]]], places: dict[str, list[int]], outcomes: list[dict[str, str]]
    ) -> list[RejectedRow]:
        """Push, but no failure over values: another run on this store may have got them meanwhile.

        What was left out is taken from ``tables`` and ``places`` as well, and counts as having values.
        """
        while True:
            before = self._store.snapshot()
            guard: dict[str, dict[str, Any]] = {}
            for table, rows in tables.items():
                failed = [row for row in rows if row["error"]]
                if not failed:
                    continue
                guard[table] = {c: sorted({row[c] for row in failed}) for c in ("site", "patient_id")}
                have = _with_values(before, table, guard[table])
                better = [bool(row["error"]) and _identity(table, row) in have for row in rows]
                for place in compress(places[table], better):
                    outcomes[place][table] = ""
                worse = [not one for one in better]
                places[table] = list(compress(places[table], worse))
                tables[table] = list(compress(rows, worse))
            try:
                receipt = self._store.push(
                    tables, kind="features", source="extraction", unless_changed=guard, since=before.sequence
                )
                return receipt.rejected
            except PatientErased:
                raise
            except Conflict:
                continue  # what was changed is looked at again

    def report(self, seconds: float) -> ExtractionReport:
        """What has been counted so far."""
        return ExtractionReport(
            done=self._done,
            failed=self._failed,
            left_out=self._plan.left_out,
            errors=dict(self._errors),
            cases=dict(self._states),
            seconds=seconds,
            stage_seconds={stage: self._stage_s[stage] / n for stage, n in self._stage_n.items()},
            stage_totals={stage: self._stage_s[stage] for stage in self._stage_n},
            alone=self.alone,
            machines={machine: dict(stages) for machine, stages in self._machines.items()},
        )

    def _count(self, job: RoiJob, row: dict[str, Any], errors: list[str]) -> None:
        failed = [error for error in errors if error]
        self._failed += bool(failed)
        self._done += not failed
        self._errors.update({error.split(":")[0] for error in failed})
        tally = self._plan.cases[job.source.case]
        tally.add(job.source.name, errors)
        tally.to_do -= 1
        for stage in STAGES:
            if row[f"{stage}_s"] > 0:
                self._stage_s[stage] += row[f"{stage}_s"]
                self._stage_n[stage] += 1
                if row[f"{stage}_node"]:
                    self._machines.setdefault(row[f"{stage}_node"], Counter())[stage] += 1

    def _settle(self, cases: Iterable[CaseKey]) -> None:
        """Bring cases with nothing left to do to their state."""
        for case in cases:
            tally = self._plan.cases[case]
            if tally.to_do:
                continue
            state = EXTRACTED if tally.usable else REJECTED
            self._states[state] += 1
            if self._control is not None:
                site, _, case_id = case
                before = self._control.case(case_id, site)
                kept = [reason for reason in before.reasons if not reason.startswith(REASON)] if before else []
                reasons = [*kept, *(REASON + reason for reason in tally.reasons)]
                if before is None or (before.state, list(before.reasons)) != (state, reasons):
                    self._control.set_case_state(*case, state, reasons)


def _stored_rows(job: RoiJob, row: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The ROI's rows by table, as the schemas declare them."""
    common = {**job.source.row(), "software_version": software_version()}
    if job.feature_set is not None:
        values = np.frombuffer(row["values"], dtype=np.float64).tolist() if row["values"] else None
        error = row["radiomics_error"] or None
        yield "radiomics", {**common, "feature_set": job.feature_set, "values": values, "error": error}
    if job.encoder is not None:
        values = np.frombuffer(row["embedding"], dtype=np.float32).tolist() if row["embedding"] else None
        error = row["embedding_error"] or None
        yield "embeddings", {**common, "encoder": job.encoder, "values": values, "error": error}


def _identity(table: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in (*TABLES[table].key, "image_hash", "mask_hash"))


def _with_values(snapshot: Snapshot, table: str, where: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    """Key and source of the latest rows that hold values."""
    columns = [*TABLES[table].key, "image_hash", "mask_hash", "error"]
    rows = snapshot.table(table, columns=columns, where=where).to_pylist()
    return {_identity(table, row) for row in rows if not row["error"]}


def _refusal(refused: RejectedRow) -> str:
    return f"SchemaError: {refused.table}.{refused.column}: {refused.message}"
