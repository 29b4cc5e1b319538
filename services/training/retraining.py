"""Retraining, by one entry point that may be called at any time and by anybody at once.

One retraining at a time in a store, by a lease in the control database that is prolonged while work goes on.
Nothing new since the last run: nothing is done. A run that was killed is recorded as failed by the next call and
begun again; one that was killed between its end and the decision is only judged. The decision and the releases
that follow from it are one push, so neither is ever half made.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import structlog

from feature_store.control import ControlDatabase
from feature_store.errors import StoreError
from feature_store.leases import Leases
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from models.evaluation.gates import Gate
from services.ids import new_id
from services.releases import current
from services.runs import Progress, RunStatus
from services.study_inputs import StudyInputs
from services.training.handler import TrainingHandler
from services.training.judging import judge_run
from services.training.looks import looks_at
from services.training.messages import RetrainAnswer, RetrainRequest, TrainRequest
from services.training.releases import Releases

log = structlog.get_logger(__name__)

LEASE = "retrain"
LEASE_S = 120.0
TABLE = "retrainings"
BEGUN_BY = "retrain"
"""Value of a run's setting ``begun_by``: only such a run is given up for dead by the next retraining."""


class Retraining:
    """Trains on what is new, judges the result, and releases it where that was asked for and every gate holds."""

    def __init__(
        self,
        store: FeatureStore,
        control: ControlDatabase,
        training: TrainingHandler,
        releases: Releases,
        lease_s: float = LEASE_S,
    ) -> None:
        self._store, self._control, self._training, self._releases = store, control, training, releases
        self._lease_s = lease_s

    def retrain(self, request: RetrainRequest, *, by: str, progress: Progress | None = None) -> RetrainAnswer:
        """Do what there is to do and say what it was.

        Raises what freezing and training raise (NotReady, TooFewPatients, SettingsError, …), and LeaseLost where
        another process may have taken over in the middle (this one was asleep for longer than the lease lasts).
        """
        with Leases(self._control).keep(LEASE, self._lease_s) as lease:
            if not lease:
                return RetrainAnswer(decision="busy", reason="Another retraining of this store is under way.")
            self._bury_the_dead()
            train = TrainRequest(cohort=request.cohort, study=request.study)
            inputs = self._training.inputs(train)
            run = self._latest(inputs)
            if run is not None and self._decided(run):
                return RetrainAnswer(
                    decision="nothing_new",
                    reason="Nothing has changed since the last run on this cohort.",
                    run_id=run.run_id,
                    cohort=run.cohort,
                    version=run.version,
                )
            if run is None:
                run_id = self._training.begin(train, inputs=inputs, begun_by=BEGUN_BY)
                run = self._training.execute(run_id, progress)
            lease.check()
            return self._decide(run, request, by)

    def history(self) -> list[dict[str, Any]]:
        """Every decision, oldest first, as the table ``retrainings`` has it with the gates taken apart."""
        rows = self._store.snapshot().table(TABLE).to_pylist()
        found = [{**row, "gates": json.loads(row["gates"])} for row in rows]
        return sorted(found, key=lambda row: (row["decided_at"], row["retraining_id"]))

    def _latest(self, inputs: StudyInputs) -> RunStatus | None:
        """The last finished run of exactly these inputs."""
        wanted = inputs.settings()
        same = [
            run
            for run in self._training.runs()
            if run.state == "finished" and {name: run.settings.get(name) for name in wanted} == wanted
        ]
        return same[-1] if same else None

    def _decided(self, run: RunStatus) -> bool:
        """Whether there is nothing left to decide: a run that people began is theirs to release."""
        begun_here = run.settings.get("begun_by") == BEGUN_BY
        return not begun_here or len(self._store.snapshot().table(TABLE, where={"run_id": run.run_id})) > 0

    def _bury_the_dead(self) -> None:
        """With the lease held, nobody else carries out a run of a retraining: one that still runs has died."""
        for run in self._training.runs():
            if run.state == "running" and run.settings.get("begun_by") == BEGUN_BY:
                died = StoreError("The process that carried it out died.", action="It was begun again.")
                self._training.abandon(run.run_id, died)

    def _decide(self, run: RunStatus, request: RetrainRequest, by: str) -> RetrainAnswer:
        snapshot = self._store.snapshot()
        gates = judge_run(self._store, run, request.gates)
        kinds, reason = self._releasable(snapshot, run, gates, request)
        looks = looks_at(snapshot, run.cohort)  # this run's own among them: it has finished
        row = {
            "retraining_id": new_id("retraining"),
            "run_id": run.run_id,
            "cohort": run.cohort,
            "version": run.version,
            "decision": "released" if kinds else "candidate",
            "reason": reason,
            "gates": json.dumps({kind: [asdict(gate) for gate in found] for kind, found in gates.items()}),
            "looks": looks.n,
            "decided_by": by,
            "decided_at": datetime.now(UTC),
        }
        rows = self._releases.rows_for(run, kinds, by=by, reason=reason) if kinds else []
        tables = {TABLE: [row], **({"releases": rows} if rows else {})}
        self._store.push(
            tables, kind="retraining", source=by, unless_changed=("releases", TABLE), since=snapshot.sequence
        )
        log.info("retrained", run=run.run_id, decision=row["decision"], reason=reason)
        return RetrainAnswer(
            decision="released" if kinds else "candidate",
            reason=reason,
            run_id=run.run_id,
            cohort=run.cohort,
            version=run.version,
            phantom=bool(run.metrics and run.metrics.get("phantom")),
            looks=looks.n,
            looks_by_partition=looks.by_partition,
            released=kinds,
            gates={kind: [asdict(gate) for gate in found] for kind, found in gates.items()},
        )

    def _releasable(
        self, snapshot: Snapshot, run: RunStatus, gates: dict[str, list[Gate]], request: RetrainRequest
    ) -> tuple[list[str], str]:
        """The kinds to release now, and why these and no others."""
        released = current(snapshot)
        passed = [kind for kind, found in gates.items() if all(gate.open for gate in found)]
        shut = {kind: [gate.name for gate in found if not gate.open] for kind, found in gates.items()}
        closed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in shut.items() if names)
        behind = f" Not through the gates: {closed}." if closed else ""
        if not request.release:
            return [], f"Left as a candidate, as asked.{behind}"
        first = [kind for kind in passed if kind not in released]
        if request.first_release == "person":
            passed = [kind for kind in passed if kind in released]
            if first:
                behind += f" The first release is a person's decision: {', '.join(first)}."
        same = [kind for kind in passed if kind in released and released[kind].signature == run.artefacts[kind]]
        passed = [kind for kind in passed if kind not in same]
        if same:
            behind += f" Already released, to the last byte: {', '.join(same)}."
        if not passed:
            return [], f"Nothing was released.{behind}"
        return passed, f"Every gate holds for {', '.join(passed)}.{behind}"
