"""Correction and withdrawal: what a case no longer holds (who had used it: :mod:`feature_store.touched`).

A corrected case is pushed again; series and regions it no longer has are withdrawn in the same push. A
withdrawn case has a last revision that says so in each of its tables, and a row in ``withdrawals`` with the
reason. Nothing is erased: older views, and tables made from cohorts frozen before, stay as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from feature_store.errors import NotFound
from feature_store.rows import Rows
from feature_store.schemas import ROIS, TABLES, TableSchema
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore

CASE_TABLES = ("cases", "series", "rois", "quality", "clinical")
CORRECTED = ("series", "rois", "quality")
"""Tables with several rows a case: pushed again, a case may have fewer."""


def no_longer_there(snapshot: Snapshot, case: Mapping[str, Any], rows: Mapping[str, Rows]) -> dict[str, pa.Table]:
    """Keys of the case's series and regions that the store has and ``rows``, the case as it is now, has not.

    Regions that a segmentation net drew are kept as long as their image is: a site that sends no mask has not
    taken the net's away.
    """
    images = {row["image_hash"] for row in _as_rows(rows.get("series", []))}
    regions = _held(snapshot, ROIS, case)
    drawn = {_key(ROIS, row) for row in regions if row["segmenter"] is not None and row["image_hash"] in images}
    gone: dict[str, pa.Table] = {}
    for name in CORRECTED:
        schema = TABLES[name]
        now = {_key(schema, row) for row in _as_rows(rows.get(name, []))}
        held = regions if schema is ROIS else _held(snapshot, schema, case)
        old = [row for row in held if _key(schema, row) not in now | drawn]
        if old:
            gone[name] = _keys(schema, old)
    return gone


def withdraw_case(store: FeatureStore, site: str, patient_id: str, reason: str, withdrawn_by: str) -> str:
    """Withdraw a patient's newest case in one push; returns its id. Raises NotFound where there is none (any more)."""
    snapshot = store.snapshot()
    cases = snapshot.heads("cases", {"site": site, "patient_id": patient_id})
    if cases is None or not len(cases.keys):
        raise NotFound("There is no such case, or it was withdrawn.", action="`asdeg cases` lists the cases.")
    newest = max(cases.keys.to_pylist(), key=lambda row: (row["push_sequence"], row["case_id"]))
    case = {name: newest[name] for name in ("site", "patient_id", "case_id")}
    keys = {}
    for name in CASE_TABLES:
        held = _held(snapshot, TABLES[name], case)
        if held:
            keys[name] = _keys(TABLES[name], held)
    row = {
        **case,
        "reason": reason,
        "withdrawn_by": withdrawn_by,
        "withdrawn_at": datetime.now(UTC),
        "as_of": snapshot.sequence,
    }
    store.push(
        {"withdrawals": [row]},
        kind="withdrawal",
        source=site,
        withdraw=keys,
        unless_changed={name: {"site": site, "patient_id": patient_id} for name in CASE_TABLES},
        since=snapshot.sequence,
    )
    return str(case["case_id"])


def _held(snapshot: Snapshot, schema: TableSchema, case: Mapping[str, Any]) -> list[dict[str, Any]]:
    where = {name: case[name] for name in ("site", "patient_id", "case_id")}
    rows: list[dict[str, Any]] = snapshot.table(schema.name, where=where).to_pylist()
    return rows


def _key(schema: TableSchema, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(str(row[column]) for column in schema.key)


def _keys(schema: TableSchema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{column: row[column] for column in schema.key} for row in rows])


def _as_rows(rows: Rows) -> Sequence[Mapping[str, Any]]:
    return rows.to_pylist() if isinstance(rows, pa.Table) else rows
