"""Follow-up measurements in, labels out, in one push: a label never stands beside measurements it does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from feature_store.errors import Conflict, FollowUpError, PatientErased
from feature_store.labels import Label, derive_label
from feature_store.pushes import PushReceipt
from feature_store.schemas import FOLLOW_UP
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from services.ingest.messages import Finding, Measurement, OutcomeReceipt, OutcomesReceipt
from services.ingest.patient_table import Pseudonym, parse_row, read_table, usable_rows

TRIES = 20
KEY = ("days_from_index", "rater", "level")

Patient = tuple[str, str]


class FollowUp:
    """Adds measurements and derives the labels that follow from all there are."""

    def __init__(self, store: FeatureStore, pseudonym: Pseudonym) -> None:
        self._store, self._pseudonym = store, pseudonym

    def add(self, site: str, patient_id: str, case_id: str, measurements: Sequence[Measurement]) -> OutcomeReceipt:
        """Measurements of one patient. Raises FollowUpError where one breaks a rule; then none is stored."""
        keys = [tuple(getattr(m, name) for name in KEY) for m in measurements]
        if not keys or len(set(keys)) < len(keys):
            what = "Two measurements have the same day, rater and level." if keys else "There is no measurement."
            raise FollowUpError(what, action="Send each measurement once.")
        rows = [{"site": site, "patient_id": patient_id, **m.model_dump()} for m in measurements]
        push, labels = self._push(site, rows, whole=True)
        label = labels[patient_id]
        return OutcomeReceipt(
            case_id=case_id,
            outcome=label.outcome,
            incident=label.incident,
            criteria=list(label.criteria),
            reason=label.reason,
            rule=label.rule,
            unchanged=push.sequence is None,
        )

    def add_table(self, rows: Iterable[Mapping[str, object]], site: str) -> OutcomesReceipt:
        """Measurements of many patients, each row with its ``patient_id`` (and ``site``, if at all, this one).

        Rows that break a rule, repeat a measurement of the table, or whose patient has no case here, come back as
        findings; the others are stored.
        """
        found = usable_rows(rows, site, self._store.snapshot(), _parse, self._pseudonym, FollowUpError, once=KEY)
        usable, findings = found.rows, found.findings
        push, labels = self._push(site, usable, whole=False)
        findings += [
            Finding(code="FollowUpError", file="", message=row.message, action="Mend the row.") for row in push.rejected
        ]
        outcomes = [label.outcome for label in labels.values()]
        return OutcomesReceipt(
            patients=len(labels),
            measurements=len(usable) - len(push.rejected),
            unchanged=push.sequence is None,
            positive=outcomes.count(1),
            negative=outcomes.count(0),
            unknown=outcomes.count(None),
            findings=findings,
        )

    def labels_again(
        self, site: str, fused_levels: Mapping[str, Sequence[str] | None], snapshot: Snapshot
    ) -> dict[str, Any]:
        """``labels`` rows of patients whose operated levels have just been sent, of those who have any follow-up."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for row in snapshot.table("follow_up", where={"site": site, "patient_id": list(fused_levels)}).to_pylist():
            found.setdefault(row["patient_id"], []).append(row)
        labels = [
            _label_row(site, patient, derive_label(rows, fused_levels[patient])) for patient, rows in found.items()
        ]
        return {"labels": labels} if labels else {}

    def _push(self, site: str, rows: list[dict[str, Any]], *, whole: bool) -> tuple[PushReceipt, dict[str, Label]]:
        """Push rows with their patients' labels; tried again where another push changed what labels follow from."""
        for attempt in range(TRIES):
            snapshot = self._store.snapshot()
            labels = _labels(snapshot, site, rows)
            tables = {
                "follow_up": rows,
                "labels": [_label_row(site, patient, label) for patient, label in labels.items()],
            }
            try:
                push = self._store.push(
                    tables,
                    kind="outcome",
                    source=site,
                    unless_changed=("follow_up", "clinical") if attempt < TRIES - 1 else (),
                    since=snapshot.sequence,
                )
            except PatientErased:
                raise
            except Conflict:
                continue
            if whole and push.rejected:  # pragma: no cover - the wire type has the same rules as the table
                raise FollowUpError(f"{push.rejected[0].message}.", action="Mend the measurement.")
            return push, labels
        raise AssertionError("the last try asks for nothing")


def _labels(snapshot: Snapshot, site: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Label]:
    patients = list(dict.fromkeys(str(row["patient_id"]) for row in rows))
    if not patients:
        return {}
    where = {"site": site, "patient_id": patients}
    found: dict[str, dict[tuple[Any, ...], Mapping[str, Any]]] = {patient: {} for patient in patients}
    for row in (*snapshot.table("follow_up", where=where).to_pylist(), *rows):
        found[row["patient_id"]][tuple(row[name] for name in KEY)] = row
    clinical = snapshot.table("clinical", columns=["patient_id", "fused_levels"], where=where).to_pylist()
    fused = {row["patient_id"]: row["fused_levels"] for row in clinical}
    return {patient: derive_label(list(found[patient].values()), fused.get(patient)) for patient in patients}


def _label_row(site: str, patient_id: str, label: Label) -> dict[str, Any]:
    return {
        "site": site,
        "patient_id": patient_id,
        "rule": label.rule,
        "outcome": label.outcome,
        "incident": label.incident,
        "criteria": list(label.criteria),
        "reason": label.reason,
        "last_day": label.last_day,
    }


def _parse(row: dict[str, object], where: str) -> dict[str, Any]:
    return parse_row(Measurement, row, where, FollowUpError).model_dump()


def read_follow_up(path: Path) -> list[dict[str, object]]:
    """Rows of a CSV or Parquet file with the columns of ``follow_up``. Raises FollowUpError."""
    return read_table(path, FOLLOW_UP.column_names, ("patient_id", *KEY), FollowUpError)
