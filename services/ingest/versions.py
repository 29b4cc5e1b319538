"""What the store holds of a case in one table: as it stands, and every revision before."""

from __future__ import annotations

from typing import Any

from feature_store.control import CaseState
from feature_store.schemas import TABLES
from feature_store.snapshot import Snapshot
from services.ingest.messages import Version, Versions

PLACE = ("site", "patient_id", "case_id")


def versions(snapshot: Snapshot, table: str, case: CaseState) -> Versions:
    """Rows without the case's own key; history oldest first, a withdrawn row with no values."""
    schema = TABLES[table]
    where: dict[str, Any] = {"site": case.site, "patient_id": case.patient_id}
    if "case_id" in schema.key:
        where["case_id"] = case.case_id
    told = [name for name in schema.column_names if name not in PLACE]
    current = snapshot.table(table, told, where=where).to_pylist()
    order = [("push_sequence", "ascending"), *((name, "ascending") for name in schema.key if name in told)]
    revisions = snapshot.revisions(table, where=where).sort_by(order).to_pylist()
    kinds = snapshot.pushes["kind"]
    history = [
        Version(
            push=row["push_sequence"],
            at=row["committed_at"],
            by=kinds[row["push_sequence"] - 1].as_py(),
            withdrawn=bool(row["withdrawn"]),
            values={name: row[name] for name in told if not row["withdrawn"] or name in schema.key},
        )
        for row in revisions
    ]
    return Versions(case_id=case.case_id, current=current, history=history)
