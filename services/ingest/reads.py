"""Surgeons' own predictions, beside which the signatures are judged: of one case, or a table of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from feature_store.control import CaseState
from feature_store.errors import PatientTableError
from feature_store.schemas import SURGEON_READS
from feature_store.store import FeatureStore
from services.ingest.messages import Finding, Reading, Said, TableReceipt
from services.ingest.patient_table import Pseudonym, parse_row, read_table, usable_rows


class SurgeonReads:
    """Adds readings; one of the same surgeon and patient replaces the one before."""

    def __init__(self, store: FeatureStore, pseudonym: Pseudonym) -> None:
        self._store, self._pseudonym = store, pseudonym

    def put(self, case: CaseState, readings: Sequence[Reading]) -> Said:
        """Readings of one patient. Raises PatientTableError where a surgeon stands twice, or none does."""
        rows = [{"site": case.site, "patient_id": case.patient_id, **one.model_dump()} for one in readings]
        if not rows:
            raise PatientTableError("There is no reading.", action="Send at least one.")
        _check_once(rows)
        push = self._store.push({SURGEON_READS.name: rows}, kind="reads", source=case.site)
        return Said(case_id=case.case_id, unchanged=push.sequence is None)

    def put_table(self, rows: Iterable[Mapping[str, object]], site: str) -> TableReceipt:
        """Readings of many patients; rows that cannot be used come back as findings."""
        found = usable_rows(rows, site, self._store.snapshot(), _parse, self._pseudonym, PatientTableError)
        _check_once(found.rows)
        push = self._store.push({SURGEON_READS.name: found.rows}, kind="reads", source=site)
        refused = [
            Finding(code="PatientTableError", file="", message=row.message, action="Mend the row.")
            for row in push.rejected
        ]
        return TableReceipt(
            patients=len({row["patient_id"] for row in found.rows}),
            rows=len(found.rows) - len(refused),
            unchanged=push.sequence is None,
            findings=found.findings + refused,
        )


def read_reads(path: Path) -> list[dict[str, object]]:
    """Rows of a CSV or Parquet file with the columns of ``surgeon_reads``. Raises PatientTableError."""
    columns = SURGEON_READS.column_names
    return read_table(path, columns, [name for name in columns if name != "site"], PatientTableError)


def _check_once(rows: Sequence[Mapping[str, Any]]) -> None:
    if len({(row["patient_id"], row["surgeon"]) for row in rows}) < len(rows):
        raise PatientTableError("A surgeon has several readings of a patient.", action="Send each reading once.")


def _parse(row: dict[str, object], where: str) -> dict[str, Any]:
    if isinstance(row.get("prediction"), str) and str(row["prediction"]).strip() in ("0", "1"):
        row = {**row, "prediction": int(str(row["prediction"]))}
    return parse_row(Reading, row, where, PatientTableError).model_dump()
