"""One patient's features in under a millisecond, from a snapshot that is held.

Which stored row fills which columns is worked out once, for all patients together and by the code that makes a
training table; asked for one patient, only the values of that patient's rows are read, from a file that is open
already. Patients whom later pushes touch are read anew; the others stay where they are.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc

from feature_store.errors import NotFound, StoreError, UsageError
from feature_store.matrix import MatrixPlan
from feature_store.retrieval import newest_cases, patient_features
from feature_store.snapshot import Snapshot
from feature_store.vocabulary import PAPER_ROIS, RoiName

DECIDING = ("cases", "series", "rois", "radiomics", "embeddings")
"""Tables whose rows decide a patient's features."""
FOR_ALL = ("feature_sets", "encoders", "erasures")
"""Tables whose rows decide everybody's."""
TOUCHED = 2000
"""Patients: so many read one by one are worth a new index."""


class PatientIndex:
    """Of the feature sets, encoders and ROIs given. Thread-safe."""

    def __init__(self, snapshot: Snapshot, feature_sets: Sequence[str], rois: Sequence[RoiName] = PAPER_ROIS) -> None:
        self._feature_sets, self._rois = tuple(feature_sets), tuple(rois)
        self._lock = threading.Lock()
        self._plan: MatrixPlan | None = None
        self._build(snapshot)

    def features(self, site: str, patient_id: str, snapshot: Snapshot | None = None) -> dict[str, float]:
        """What :func:`feature_store.retrieval.patient_features` gives, as of ``snapshot`` (default: the last one).

        A snapshot older than the last one is read without the index. Raises what that function raises.
        """
        with self._lock:
            if snapshot is not None and snapshot.sequence > self._snapshot.sequence:
                self._follow(snapshot)
            row, plan = self._rows.get((site, patient_id)), self._plan
            view = self._snapshot if snapshot is None else snapshot
            indexed = (site, patient_id) not in self._touched and view.sequence == self._snapshot.sequence
        if plan is None or not indexed:
            return patient_features(view, site, patient_id, self._feature_sets, self._rois)
        if row is None:
            raise NotFound("There is no such patient.", action="Send the case first.")
        try:
            blocks = list(plan.of_case(row))
        except (OSError, StoreError):  # the files of then have been tidied away: those of now hold the same rows
            with self._lock:
                self._build(view.anew())
            return patient_features(self._snapshot, site, patient_id, self._feature_sets, self._rois)
        found: dict[str, float] = {}
        for names, values in blocks:
            if not np.isnan(values).all():
                found.update(zip(names, values.tolist(), strict=True))
        return found

    def _build(self, snapshot: Snapshot) -> None:
        cases = newest_cases(snapshot)
        try:
            self._plan = MatrixPlan(snapshot, cases, self._feature_sets, self._rois)
        except UsageError:  # one patient has the same ROI in two feature sets: that is no matter of the others
            self._plan = None
        self._rows = {(site, patient_id): row for row, (site, patient_id, _) in enumerate(cases)}
        self._touched: set[tuple[str, str]] = set()
        self._snapshot = snapshot

    def _follow(self, snapshot: Snapshot) -> None:
        """Learn whom the pushes since the last snapshot have touched."""
        new = snapshot.pushes.slice(self._snapshot.sequence)
        tables = {name for text in new["tables"].to_pylist() for name in json.loads(text)}
        if tables & set(FOR_ALL):
            return self._build(snapshot)
        for name in sorted(tables & set(DECIDING)):
            files = snapshot.files(name)
            assert files is not None
            rows = files.dataset({"push_id": new["push_id"].to_pylist()}).to_table(
                columns=["site", "patient_id"], filter=pc.is_in(pc.field("push_id"), value_set=new["push_id"])
            )
            self._touched |= set(zip(rows["site"].to_pylist(), rows["patient_id"].to_pylist(), strict=True))
        if len(self._touched) > TOUCHED:
            return self._build(snapshot)
        self._snapshot = snapshot
        return None
