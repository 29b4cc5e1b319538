"""A backup is a store: every committed push of this one, with its number, at another address.

Made again it takes only what is new; who was erased in the store meanwhile is then erased in the copy. A restore
is the same copy the other way, into a place without a store.
What copies may be killed at any instant and run again; the copy shows whole pushes only, as any store does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from feature_store.blobs import SUFFIXES
from feature_store.delta import DeltaLog
from feature_store.erasure import carry_over
from feature_store.errors import Conflict
from feature_store.store import FeatureStore

BATCH_ROWS = 4096
COMMIT_ROWS = 20_000  # rows of one Parquet file of the copy
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class BackupReport:
    """What was new to the copy, and the push it ends at."""

    pushes: int
    rows: int
    blobs: int
    sequence: int
    erased: int
    """Patients who were in the copy and had been erased in the store."""


def backup(source: FeatureStore, target: FeatureStore, progress: Progress | None = None) -> BackupReport:
    """Bring ``target`` up to ``source``. Sites may push to the source meanwhile; nobody may write to the target.

    Raises Conflict where the target holds pushes that are not the source's first ones.
    """
    say = progress or (lambda step, done: None)
    pushes, there = source.snapshot().pushes, target.snapshot().pushes
    if there["push_id"].to_pylist() != pushes["push_id"].slice(0, len(there)).to_pylist():
        raise Conflict("That address holds another store.", action="Back up into an empty place.")
    new = pushes.slice(len(there))
    names = sorted({name for text in new["tables"].to_pylist() for name in json.loads(text)})
    steps = [*names, *SUFFIXES]
    rows = 0
    for number, name in enumerate(names):
        say(name, number / len(steps))
        rows += _copy_rows(source.log(name), target.log(name), new["push_id"], there["push_id"])
    blobs = 0
    for number, kind in enumerate(SUFFIXES, start=len(names)):
        say(kind, number / len(steps))
        blobs += _copy_blobs(source, target, kind)
    if len(new):
        target.take_pushes(new)
    erased = carry_over(target)
    return BackupReport(pushes=len(new), rows=rows, blobs=blobs, sequence=len(pushes), erased=len(erased))


def _copy_rows(source: DeltaLog, target: DeltaLog, wanted: pa.ChunkedArray, there: pa.ChunkedArray) -> int:
    """Rows of the wanted pushes; what a killed copy left of them goes first."""
    files = target.files()
    if files is not None:
        left = pc.unique(files.dataset().to_table(columns=["push_id"])["push_id"])
        left = left.filter(pc.invert(pc.is_in(left, value_set=there))).to_pylist()
        if left:
            target.remove_pushes(left)
    copied = 0
    for table in _tables(source, wanted):
        target.append(table)
        copied += len(table)
    return copied


def _tables(source: DeltaLog, wanted: pa.ChunkedArray) -> Iterator[pa.Table]:
    """Committed rows in tables of about COMMIT_ROWS."""
    files = source.files()
    if files is None:
        return
    schema = source.schema.arrow()
    filters = pads.field("push_id").isin(pc.unique(wanted))
    waiting: list[pa.RecordBatch] = []
    for batch in files.dataset().scanner(filter=filters, batch_size=BATCH_ROWS).to_batches():
        if len(batch):
            waiting.append(batch)
        if sum(map(len, waiting)) >= COMMIT_ROWS:
            yield pa.Table.from_batches(waiting).select(schema.names).cast(schema)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).select(schema.names).cast(schema)


def _copy_blobs(source: FeatureStore, target: FeatureStore, kind: str) -> int:
    copied = 0
    there = set(target.blobs.names(kind))
    for name in source.blobs.names(kind):
        if name not in there:
            target.blobs.put_file(kind, source.blobs.local_path(kind, name), sha256=name)
            copied += 1
    return copied
