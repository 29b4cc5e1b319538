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
from feature_store.store import FeatureStore
from pipelines.cases.manifest_schema import Clinical, case_id
from pipelines.cases.plain_manifest import plain_clinical
from services.ingest.follow_up import FollowUp
from services.ingest.messages import Finding, Said, TableReceipt
from services.ingest.patient_table import Pseudonym, parse_row, read_table, usable_rows
from services.ingest.said_before import said_meanwhile

TRIES = 20
COLUMNS = ("site", "patient_id", *Clinical.model_fields)


class ClinicalVariables:
    """Replaces all variables of a case by those sent; the label follows where the operated levels changed."""

    def __init__(self, store: FeatureStore, follow_up: FollowUp, pseudonym: Pseudonym) -> None:
        self._store, self._follow_up, self._pseudonym = store, follow_up, pseudonym

    def put(self, case: CaseState, variables: Clinical) -> Said:
        """All variables of one case; what is not named is not known from now on."""
        push = self._push(case.site, [{"patient_id": case.patient_id, **plain_clinical(variables).model_dump()}])
        return Said(case_id=case.case_id, unchanged=push.sequence is None)

    def stand(self, case: CaseState, accepted: datetime) -> None:
        """What was said of a case after a push of it had been accepted stands, though that push was carried out later:
        it is said again, and the history has both."""
        key = {"site": case.site, "patient_id": case.patient_id, "case_id": case.case_id}
        if said := said_meanwhile(self._store.snapshot(), key, accepted):
            self.put(case, Clinical(**{name: said[name] for name in Clinical.model_fields}))

    def put_table(self, rows: Iterable[Mapping[str, object]], site: str) -> TableReceipt:
        """Variables of many patients, a row each; rows that cannot be used come back as findings."""
        found = usable_rows(rows, site, self._store.snapshot(), _parse, self._pseudonym, PatientTableError)
        once = {row["patient_id"]: row for row in found.rows}
        if len(once) < len(found.rows):
            raise PatientTableError("A patient has several rows.", action="Send one row a patient.")
        push = self._push(site, found.rows)
        refused = [
            Finding(code="PatientTableError", file="", message=row.message, action="Mend the row.")
            for row in push.rejected
        ]
        return TableReceipt(
            patients=len(once),
            rows=len(once) - len(refused),
            unchanged=push.sequence is None,
            findings=found.findings + refused,
        )

    def _push(self, site: str, rows: list[dict[str, Any]]) -> PushReceipt:
        where = {"site": site, "patient_id": [row["patient_id"] for row in rows]}
        clinical = [
            {"site": site, "case_id": case_id(site, row["patient_id"]), "days_from_index": 0, **row} for row in rows
        ]
        for attempt in range(TRIES):
            snapshot = self._store.snapshot()
            fused = {row["patient_id"]: row["fused_levels"] for row in rows}
            tables = {"clinical": clinical, **self._follow_up.labels_again(site, fused, snapshot)}
            try:
                return self._store.push(
                    {name: those for name, those in tables.items() if those},
                    kind="clinical",
                    source=site,
                    unless_changed={"clinical": where, "follow_up": where} if attempt < TRIES - 1 else (),
                    since=snapshot.sequence,
                )
            except PatientErased:
                raise
            except Conflict:
                continue
        raise AssertionError("the last try asks for nothing")


def read_clinical(path: Path) -> list[dict[str, object]]:
    """Rows of a CSV or Parquet file with the variables of case.yaml as columns. Raises PatientTableError.

    Several fused levels stand in one field: ``L3-L4 L4-L5``.
    """
    return read_table(path, COLUMNS, ("patient_id",), PatientTableError)


def _parse(row: dict[str, object], where: str) -> dict[str, Any]:
    levels = row.get("fused_levels")
    if isinstance(levels, str) and levels.strip():
        row = {**row, "fused_levels": [level for level in re.split(r"[\s,;]+", levels) if level]}
    return plain_clinical(parse_row(Clinical, row, where, PatientTableError)).model_dump()
