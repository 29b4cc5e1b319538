"""One look at the patients who were set aside: asked for by name, counted, and recorded before anything is shown.

No run scores them and no gate judges on them. Every look uses them up a little: what is decided after it was decided
with them. So looks are counted over the whole store, for the same patients are locked in every cohort.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np

from feature_store.errors import NotReady, UsageError
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from feature_store.vocabulary import Partition, SignatureKind, is_phantom
from models import artefacts
from models.evaluation.cohort_metrics import cohort_metrics
from models.signature import AnySignature
from models.study import plain
from services.ids import new_id
from services.runs import RunStatus, read_run
from services.study_inputs import StudyInputs, scoring_frame
from services.training.messages import LockedLook

TABLE = "locked_looks"


class LockedTest:
    """The locked patients of a store."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def looks(self) -> list[LockedLook]:
        """Every look there was, oldest first."""
        return _looks(self._store.snapshot())

    def look(self, run_id: str, *, by: str, reason: str) -> LockedLook:
        """How good a finished run's signatures are on the locked patients of its cohort, as of when it was frozen.

        Raises NotFound, NotReady (the run has no signatures, or its cohort nobody who is locked), UsageError without
        a reason, Conflict where somebody else looked at the same time.
        """
        if not reason.strip():
            raise UsageError("A look needs a reason.", action="Say what is decided by it.")
        run = read_run(self._store, run_id)
        snapshot = self._store.snapshot()
        found = LockedLook(
            look_id=new_id("look"),
            look=len(_looks(snapshot)) + 1,
            run_id=run_id,
            cohort=run.cohort,
            version=run.version,
            figures=self._figures(run),
            phantom=_of_phantoms(snapshot, run.cohort, run.version),
            reason=reason,
            looked_by=by,
            looked_at=datetime.now(UTC),
        )
        row = {**found.model_dump(exclude={"phantom"}), "figures": json.dumps(found.figures)}
        self._store.push(
            {TABLE: [row]}, kind="locked_look", source=by, unless_changed=(TABLE,), since=snapshot.sequence
        )
        return found

    def _figures(self, run: RunStatus) -> dict[str, Any]:
        kinds = [kind.value for kind in SignatureKind if kind.value in run.artefacts]
        if run.kind != "training" or run.state != "finished" or not kinds:
            raise NotReady("This run has no signatures.", action="Take a finished training run: `asdeg runs`.")
        inputs = StudyInputs.from_settings(run.settings)
        tables = inputs.tables(self._store).with_distinct_names()
        rows = tables.rows(Partition.LOCKED_TEST)
        if not len(rows):
            raise NotReady("Nobody of this run's cohort is locked.", action="Set `locked_test` in cohort.yaml.")
        figures = {}
        for kind in kinds:
            signature = cast(AnySignature, artefacts.load(run.artefacts[kind], self._store.blobs))
            risks = signature.probabilities(scoring_frame(tables, signature.features).iloc[rows])
            measured = cohort_metrics(
                tables.outcome[rows], np.asarray(risks), signature.head.threshold, inputs.study.seed
            )
            figures[kind] = {"threshold": signature.head.threshold, **measured}
        return cast("dict[str, Any]", plain(figures))


def _of_phantoms(snapshot: Snapshot, cohort: str, version: int) -> bool:
    members = snapshot.table("cohorts", ["patient_id"], {"cohort": cohort, "version": version})["patient_id"]
    return any(map(is_phantom, members.to_pylist()))


def _looks(snapshot: Snapshot) -> list[LockedLook]:
    found = []
    for row in snapshot.table(TABLE).to_pylist():
        kept = {name: row[name] for name in LockedLook.model_fields if name in row}
        made_up = _of_phantoms(snapshot, row["cohort"], row["version"])
        found.append(LockedLook(**{**kept, "figures": json.loads(row["figures"]), "phantom": made_up}))
    return sorted(found, key=lambda look: look.look)
