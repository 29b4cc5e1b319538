"""Clinical variables that a site sends by themselves: of one case, or a table of many."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from feature_store.control import CaseState
from feature_store.errors import Conflict, PatientErased, PatientTableError
from feature_store.pushes import PushReceipt
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from pipelines.cases.manifest_schema import Clinical, case_id, levels_agree
from pipelines.cases.plain_manifest import plain_clinical
from services.ingest.follow_up import FollowUp
from services.ingest.messages import Finding, Said, TableReceipt
from services.ingest.patient_table import Pseudonym, parse_row, read_table, usable_rows
from services.ingest.said_before import MENDED, SAID, SAID_AGAIN, said_meanwhile

TRIES = 20
COLUMNS = ("site", "patient_id", *Clinical.model_fields)


class ClinicalVariables:
    """Takes what is sent beside what stands; the label follows where the operated levels changed."""

    def __init__(self, store: FeatureStore, follow_up: FollowUp, pseudonym: Pseudonym) -> None:
        self._store, self._follow_up, self._pseudonym = store, follow_up, pseudonym

    def put(self, case: CaseState, variables: Clinical) -> Said:
        """All variables of one case; what is not named is not known from now on."""
        row = {"patient_id": case.patient_id, **plain_clinical(variables).model_dump()}
        push, _ = self._push(case.site, [row], SAID)
        return Said(case_id=case.case_id, unchanged=push.sequence is None)

    def stand(self, case: CaseState, accepted: datetime) -> None:
        """What was said of a case after a push of it had been accepted stands, though that push was carried out later:
        it is said again, and the history has both."""
        key = {"site": case.site, "patient_id": case.patient_id, "case_id": case.case_id}
        if said := said_meanwhile(self._store.snapshot(), key, accepted):
            self._push(case.site, [{"patient_id": case.patient_id, **said}], SAID_AGAIN)

    def put_table(self, rows: Iterable[Mapping[str, object]], site: str) -> TableReceipt:
        """Variables of many patients, a row each: one that a row does not name stays what it is.

        Rows that cannot be used, or do not agree with what stands, come back as findings. Raises Conflict where others
        change the same patients all the time.
        """
        found = usable_rows(rows, site, self._store.snapshot(), _parse, self._pseudonym, PatientTableError)
        places = {row["patient_id"]: place for row, place in zip(found.rows, found.places, strict=True)}
        if len(places) < len(found.rows):
            raise PatientTableError("A patient has several rows.", action="Send one row a patient.")
        push, disagreeing = self._push(site, found.rows, MENDED)
        refused = [
            Finding(
                code="PatientTableError",
                file=places[patient],
                message="surgical_segments and fused_levels do not agree, one of them as it stands.",
                action="Send both.",
            )
            for patient in disagreeing
        ]
        refused += [
            Finding(code="PatientTableError", file="", message=row.message, action="Mend the row.")
            for row in push.rejected
        ]
        return TableReceipt(
            patients=len(places),
            rows=len(places) - len(refused),
            unchanged=push.sequence is None,
            findings=found.findings + refused,
        )

    def _push(self, site: str, rows: list[dict[str, Any]], kind: str) -> tuple[PushReceipt, list[str]]:
        """Push rows with their labels, and the patients whose row does not agree with what stands.

        Tried again where another push changed those patients meanwhile. At last whole rows are pushed all the same;
        mended ones never, since they would undo what the other push said.
        """
        where = {"site": site, "patient_id": [row["patient_id"] for row in rows]}
        for attempt in range(TRIES):
            snapshot, last = self._store.snapshot(), attempt == TRIES - 1
            whole = _beside_what_stands(rows, snapshot, where) if kind == MENDED else rows
            clinical = [
                {"site": site, "case_id": case_id(site, row["patient_id"]), "days_from_index": 0, **row}
                for row in whole
                if levels_agree(row["surgical_segments"], row["fused_levels"])
            ]
            fused = {row["patient_id"]: row["fused_levels"] for row in clinical}
            tables = {"clinical": clinical, **self._follow_up.labels_again(site, fused, snapshot)}
            try:
                push = self._store.push(
                    {name: those for name, those in tables.items() if those},
                    kind=kind,
                    source=site,
                    unless_changed={"clinical": where, "follow_up": where} if kind == MENDED or not last else (),
                    since=snapshot.sequence,
                )
            except PatientErased:
                raise
            except Conflict:
                if last:
                    raise
                continue
            return push, [row["patient_id"] for row in whole if row["patient_id"] not in fused]
        raise AssertionError("the last try answers or raises")


def _beside_what_stands(rows: list[dict[str, Any]], snapshot: Snapshot, where: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows with what they do not name as it is in the snapshot."""
    columns = ["patient_id", *Clinical.model_fields]
    standing = {row["patient_id"]: row for row in snapshot.table("clinical", columns, where).to_pylist()}
    return [{**dict.fromkeys(Clinical.model_fields), **standing.get(row["patient_id"], {}), **row} for row in rows]


def read_clinical(path: Path) -> list[dict[str, object]]:
    """Rows of a CSV or Parquet file with the variables of case.yaml as columns. Raises PatientTableError.

    Several fused levels stand in one field: ``L3-L4 L4-L5``.
    """
    return read_table(path, COLUMNS, ("patient_id",), PatientTableError)


def _parse(row: dict[str, object], where: str) -> dict[str, Any]:
    levels = row.get("fused_levels")
    if isinstance(levels, str) and levels.strip():
        row = {**row, "fused_levels": [level for level in re.split(r"[\s,;]+", levels) if level]}
    plain = plain_clinical(parse_row(Clinical, row, where, PatientTableError))
    return {name: value for name, value in plain.model_dump().items() if name in row}
