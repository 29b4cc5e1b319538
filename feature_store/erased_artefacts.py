"""What was made of a patient beside tables: rows of kept tables (a run's predictions), and names in nets' records.

A kept table is made anew without the patient's rows, the runs that name it name the new one, the old one goes.
Of what a net was fitted on, the patient's name is replaced by the erasure's: how many there were stays true.
Signatures and nets themselves stay: they hold what was learnt from many. Which ones these are is on record.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import write_deltalake

from feature_store.delta import DeltaLog, quoted
from feature_store.rows import row_hashes, withdrawal_hashes
from feature_store.store import FeatureStore

ARTEFACTS = "artefacts"
PARQUET = b"PAR1"
RUNS = "training_runs"


def rewrite_artefacts(store: FeatureStore, site: str, patient_id: str) -> int:
    """Take the patient's rows out of every Parquet table among the artefacts; how many tables had some."""
    new: dict[str, bytes] = {}
    for name in store.blobs.names(ARTEFACTS):
        if store.blobs.first_bytes(ARTEFACTS, name, len(PARQUET)) != PARQUET:
            continue
        if (data := _without(store.blobs.read_bytes(ARTEFACTS, name), site, patient_id)) is not None:
            new[name] = data
    names = {old: store.blobs.put_bytes(ARTEFACTS, data) for old, data in new.items()}

    def renamed(cell: Any) -> Any:
        for old, now in names.items():
            cell = cell.replace(old, now) if isinstance(cell, str) and old in cell else cell
        return cell

    if names:
        _rewrite(store.log(RUNS), renamed)
    for old in names:
        store.blobs.remove(ARTEFACTS, old)
    return len(names)


def rewrite_nets(log: DeltaLog, name: str, other: str) -> int:
    """Replace ``name`` (site/patient_id) by ``other`` in every list of every revision; how many nets had it."""

    def renamed(cell: Any) -> Any:
        return (
            sorted(other if one == name else one for one in cell) if isinstance(cell, list) and name in cell else cell
        )

    return _rewrite(log, renamed)


def _without(data: bytes, site: str, patient_id: str) -> bytes | None:
    """The table without the patient's rows; None where it has none. A table without sites may be of any."""
    try:
        table = pq.read_table(io.BytesIO(data))
    except pa.ArrowInvalid:
        return None
    if "patient_id" not in table.column_names:
        return None
    mine = pc.equal(table["patient_id"].cast(pa.string()), patient_id)
    if "site" in table.column_names:
        mine = pc.and_(mine, pc.equal(table["site"].cast(pa.string()), site))
    mine = pc.fill_null(mine, False)
    if not pc.any(mine).as_py():
        return None
    buffer = io.BytesIO()
    pq.write_table(table.filter(pc.invert(mine)), buffer)
    return buffer.getvalue()


def _rewrite(log: DeltaLog, edit: Any) -> int:
    """Apply ``edit`` to the cells of a table whose key is one column; rows of a key are replaced in one commit."""
    if not log.exists():
        return 0
    (key,) = log.schema.key
    arrow = log.schema.arrow()
    changed = 0

    def replace(handle: Any) -> bool:
        """One key that has something to edit, read and written at the same version of the table."""
        before = handle.to_pyarrow_dataset().to_table().to_pylist()
        after = [{column: edit(cell) for column, cell in row.items()} for row in before]
        pairs = zip(before, after, strict=True)
        touched = [new[key] for old, new in pairs if any(new[name] is not old[name] for name in old)]
        if not touched:
            return False
        rows = pa.Table.from_pylist([row for row in after if row[key] == touched[0]], arrow)
        gone = pc.fill_null(rows["withdrawn"], False)
        hashes = pc.if_else(gone, withdrawal_hashes(log.schema, rows), row_hashes(log.schema, rows))
        rows = rows.set_column(arrow.get_field_index("row_hash"), arrow.field("row_hash"), hashes).cast(arrow)
        write_deltalake(handle, rows, mode="overwrite", predicate=f"{key} = {quoted(touched[0])}")
        return True

    while log.maintain(replace):
        changed += 1
    return changed
