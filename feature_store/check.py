"""Every promise of the store, looked at over all its data, with counts.

Nothing is repaired here. A broken promise means damaged files, or a store that something else has written to.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.blobs import Blobs
from feature_store.erasures import Erased, Erasure, erasures, expected_rows
from feature_store.errors import AsdegError, StoreError, UsageError
from feature_store.rows import composite, count_broken, row_hashes, withdrawal_hashes
from feature_store.schemas import TABLES, TableSchema
from feature_store.snapshot import Snapshot

Verify = Callable[[str, str], None]
"""Called with a blob's kind and name; raises BlobCorrupt where its content no longer has its hash."""

REFERENCES = (
    # table, column, the table it points to; the length its values must have
    ("radiomics", "feature_set", "feature_sets", lambda row: len(row["feature_names"])),
    ("embeddings", "encoder", "encoders", lambda row: int(row["dimension"])),
)
BLOBS = (
    ("series", "image_hash", "images"),
    ("rois", "image_hash", "images"),
    ("rois", "mask_hash", "masks"),
    ("quality", "overlay_hash", "overlays"),
    ("encoders", "checkpoint_hash", "artefacts"),
    ("releases", "signature", "artefacts"),
)


@dataclass(frozen=True)
class Promise:
    """One promise: how many things were looked at, and how many broke it."""

    promise: str
    table: str
    looked_at: int
    broken: int


def check(snapshot: Snapshot, blobs: Blobs, verify: Verify | None = None) -> Iterator[Promise]:
    """Look at everything, promise by promise. With ``verify`` every blob is read as well (slow)."""
    yield from _pushes(snapshot)
    known = erasures(snapshot)
    for schema in TABLES.values():
        if schema.name != "pushes" and snapshot.files(schema.name) is not None:
            yield from _table(snapshot, schema, known)
    for table, column, target, length in REFERENCES:
        yield from _reference(snapshot, table, column, target, length)
    yield from _kept(snapshot, blobs, verify)
    members = snapshot.table("cohorts", ["site", "patient_id", "partition"]).group_by(["site", "patient_id"])
    counts = members.aggregate([("partition", "count_distinct")])["partition_count_distinct"]
    yield Promise("a patient has one partition for ever", "cohorts", len(counts), _sum(pc.greater(counts, 1)))


def _pushes(snapshot: Snapshot) -> Iterator[Promise]:
    rows = snapshot.pushes
    numbers, times = np.asarray(rows["sequence"]), np.asarray(rows["committed_at"].cast(pa.int64()))
    gaps = int((numbers != np.arange(1, len(rows) + 1)).sum())
    yield Promise("pushes are numbered 1, 2, … without gaps", "pushes", len(rows), gaps)
    yield Promise("commit times never run backwards", "pushes", len(rows), int((np.diff(times) <= 0).sum()))
    repeated = len(rows) - len(pc.unique(rows["push_id"]))
    yield Promise("a push is committed once", "pushes", len(rows), repeated)


def _table(snapshot: Snapshot, schema: TableSchema, known: list[Erasure]) -> Iterator[Promise]:
    """Rules, hashes and wholeness of one table, in one pass over its committed rows."""
    files = snapshot.files(schema.name)
    assert files is not None
    committed = snapshot.pushes["push_id"]
    rules: Counter[str] = Counter()
    rows = changed = left = 0
    found: dict[str, set[str]] = {}
    finished = Erased([erasure for erasure in known if erasure.state == "finished"])
    try:
        for batch in files.dataset().scanner(batch_size=2048).to_batches():
            table = pa.Table.from_batches([batch])
            left += int(finished.mask(table).sum())
            shown = table.filter(pc.is_in(table["push_id"], value_set=committed))
            rows += len(shown)
            rules.update(count_broken(schema, shown))
            gone = pc.fill_null(shown["withdrawn"], False)
            hashes = pc.if_else(gone, withdrawal_hashes(schema, shown), row_hashes(schema, shown))
            changed += _sum(pc.not_equal(hashes, shown["row_hash"]))
            for push_id, key in zip(
                shown["push_id"].to_pylist(), composite(shown, schema.key).to_pylist(), strict=True
            ):
                found.setdefault(push_id, set()).add(key)
    except OSError as error:
        raise StoreError(
            f"A file of table {schema.name} cannot be read ({type(error).__name__}).", action="Restore a backup."
        ) from error
    yield Promise("rows keep the schema's rules", schema.name, rows, sum(rules.values()))
    yield Promise("rows have the hash they were written with", schema.name, rows, changed)
    torn = 0
    for push in snapshot.pushes.select(["push_id", "kind", "tables"]).to_pylist():
        count = json.loads(push["tables"]).get(schema.name, 0)
        torn += len(found.get(push["push_id"], ())) not in expected_rows(schema.name, push, count, known)
    yield Promise("a push is whole", schema.name, len(snapshot.pushes), torn)
    if known and "patient_id" in schema.column_names:
        yield Promise("no row is of an erased patient", schema.name, rows, left)


def _reference(
    snapshot: Snapshot, table: str, column: str, target: str, length: Callable[[dict[str, Any]], int]
) -> Iterator[Promise]:
    lengths = {row[column]: length(row) for row in snapshot.table(target).to_pylist()}
    heads = snapshot.heads(table)
    if heads is None:
        return
    rows = unknown = wrong = 0
    for batch in heads.batches([column, "values"]):
        rows += len(batch)
        found = pc.list_value_length(batch.column("values")).to_pylist()
        for name, count in zip(batch.column(column).to_pylist(), found, strict=True):
            unknown += name not in lengths
            wrong += name in lengths and count is not None and count != lengths[name]
    yield Promise(f"{column} is a row of {target}", table, rows, unknown)
    yield Promise(f"values are as long as {target} says", table, rows, wrong)


def _kept(snapshot: Snapshot, blobs: Blobs, verify: Verify | None) -> Iterator[Promise]:
    for table, column, kind in BLOBS:
        names = [name for name in pc.unique(snapshot.table(table, [column])[column]).to_pylist() if name is not None]
        lost = [name for name in names if not _is_kept(blobs, kind, name)]
        yield Promise(f"every {column} is kept among {kind}", table, len(names), len(lost))
        if verify is not None:
            here = sorted(set(names) - set(lost))
            broken = sum(not _sound(verify, kind, name) for name in here)
            yield Promise(f"every {column} still has its hash", table, len(here), broken)


def _is_kept(blobs: Blobs, kind: str, name: str) -> bool:
    try:
        return blobs.has(kind, name)
    except UsageError:  # no blob can have such a name
        return False


def _sound(verify: Verify, kind: str, name: str) -> bool:
    try:
        verify(kind, name)
    except AsdegError:
        return False
    return True


def _sum(mask: Any) -> int:
    return int(pc.sum(pc.cast(mask, pa.int64())).as_py() or 0)
