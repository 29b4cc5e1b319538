"""Every promise of the store, looked at over all its data, with counts.

Nothing is repaired here. A broken promise means damaged files, or a store that something else has written to.

Given what an earlier check found, only what is new since is read, and what spans files is looked at among the keys
(:mod:`feature_store.check_table`). Damage that leaves an earlier file's length as it was is then not seen, nor values
of earlier rows that no longer fit because something else gave their feature set another meaning: only the whole check
finds these.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.blobs import Blobs
from feature_store.check_table import WHOLE_FILES, TableFound, check_table, wrong_files
from feature_store.checked import Checked, Promise
from feature_store.declared import DECLARATIONS, Declaration
from feature_store.delta import DeltaLog
from feature_store.erasures import erasures
from feature_store.errors import AsdegError
from feature_store.files import DataFiles
from feature_store.heads import Heads
from feature_store.rows import composite
from feature_store.schemas import PUSHES, TABLES
from feature_store.snapshot import Snapshot

Verify = Callable[[str, str], None]
"""Called with a blob's kind and name; raises BlobCorrupt where its content no longer has its hash."""

BLOBS = (
    ("series", "image_hash", "images"),
    ("rois", "image_hash", "images"),
    ("rois", "mask_hash", "masks"),
    ("quality", "overlay_hash", "overlays"),
    ("encoders", "checkpoint_hash", "artefacts"),
    ("releases", "signature", "artefacts"),
)


CLOCKS_APART_S = 3600.0
"""A blob has the time of the machine, or of the object storage, that wrote it."""


def check(
    snapshot: Snapshot,
    logs: Mapping[str, DeltaLog],
    blobs: Blobs,
    verify: Verify | None = None,
    last: Checked | None = None,
) -> Generator[Promise, None, Checked]:
    """Look at everything that is new since ``last`` (None: at everything), promise by promise.

    With ``verify`` blobs are read as well (slow). Returns what the next check may take over.
    """
    began = time.time()
    if last is not None and last.sequence > snapshot.sequence:  # of a store that was there before this one
        last = None
    known = erasures(snapshot)
    yield from _pushes(snapshot, logs[PUSHES.name])
    found: dict[str, TableFound] = {}
    written = {name for text in snapshot.pushes["tables"].to_pylist() for name in json.loads(text)}
    for schema in TABLES.values():
        if schema.name != PUSHES.name and (schema.name in written or snapshot.files(schema.name) is not None):
            found[schema.name] = yield from check_table(snapshot, logs[schema.name], schema, known, last)
    readable = Snapshot(logs, snapshot.pushes, {name: table.readable for name, table in found.items()})
    for table, declared in DECLARATIONS.items():
        for promise in _declared(readable, found[table].new, table, declared) if table in found else ():
            yield promise
            if promise.broken:
                found[table] = replace(found[table], settled=None)
    read_at = None if last is None else last.blobs_read_at
    all_read = yield from _kept(readable, blobs, verify, read_at or 0.0)
    members = readable.table("cohorts", ["site", "patient_id", "partition"]).group_by(["site", "patient_id"])
    counts = members.aggregate([("partition", "count_distinct")])["partition_count_distinct"]
    yield Promise("a patient has one partition for ever", "cohorts", len(counts), _sum(pc.greater(counts, 1)))
    return Checked(
        sequence=snapshot.sequence,
        checked_at=began,
        files={name: table.settled for name, table in found.items() if table.settled},
        erasures=tuple(sorted(erasure.erasure for erasure in known if erasure.state == "finished")),
        blobs_read_at=began if all_read else read_at,
    )


def _pushes(snapshot: Snapshot, log: DeltaLog) -> Iterator[Promise]:
    if (files := log.files()) is not None:
        yield Promise(WHOLE_FILES, PUSHES.name, len(files), len(wrong_files(log, files.listing)[0]))
    rows = snapshot.pushes
    numbers, times = np.asarray(rows["sequence"]), np.asarray(rows["committed_at"].cast(pa.int64()))
    gaps = int((numbers != np.arange(1, len(rows) + 1)).sum())
    yield Promise("pushes are numbered 1, 2, … without gaps", "pushes", len(rows), gaps)
    yield Promise("commit times never run backwards", "pushes", len(rows), int((np.diff(times) <= 0).sum()))
    repeated = len(rows) - len(pc.unique(rows["push_id"]))
    yield Promise("a push is committed once", "pushes", len(rows), repeated)


def _declared(snapshot: Snapshot, new: DataFiles, table: str, declared: Declaration) -> Iterator[Promise]:
    column, target = declared.column, declared.table
    lengths = {row[column]: declared.length(row) for row in snapshot.table(target).to_pylist()}
    heads = snapshot.heads(table)
    assert heads is not None
    unknown = _sum(pc.invert(pc.is_in(heads.keys[column], value_set=pa.array(list(lengths), pa.string()))))
    yield Promise(f"{column} is a row of {target}", table, len(heads.keys), unknown)
    named = [*TABLES[table].key, "push_id"]
    rows, wrong = 0, set()
    for batch in Heads(new, {}, TABLES[table].key, snapshot.pushes).batches([*named, "values"]):
        wanted = pa.array([lengths.get(name) for name in batch[column].to_pylist()], pa.int64())
        other = pc.fill_null(pc.not_equal(pc.list_value_length(batch["values"]), wanted), False)
        wrong |= set(composite(batch.filter(other), named).to_pylist())
        rows += len(batch)
    if wrong:  # among what is new, an earlier revision may be the newest
        wrong &= set(composite(heads.keys, named).to_pylist())
    taken = max(len(heads.keys) - rows, 0)
    yield Promise(f"values are as long as {target} says", table, rows, len(wrong), taken)


def _kept(snapshot: Snapshot, blobs: Blobs, verify: Verify | None, read_at: float) -> Generator[Promise, None, bool]:
    """Every blob is there; with ``verify`` those written after ``read_at`` are whole. Returns whether all are."""
    written = {kind: blobs.written(kind) for kind in {kind for _, _, kind in BLOBS}}
    all_sound = verify is not None
    for table, column, kind in BLOBS:
        names = [name for name in pc.unique(snapshot.table(table, [column])[column]).to_pylist() if name is not None]
        here = sorted(name for name in names if name in written[kind])
        yield Promise(f"every {column} is kept among {kind}", table, len(names), len(names) - len(here))
        if verify is not None:
            new = [name for name in here if written[kind][name] > read_at - CLOCKS_APART_S]
            broken = sum(not _sound(verify, kind, name) for name in new)
            all_sound = all_sound and not broken and len(here) == len(names)
            yield Promise(f"every {column} still has its hash", table, len(new), broken, len(here) - len(new))
    return all_sound


def _sound(verify: Verify, kind: str, name: str) -> bool:
    try:
        verify(kind, name)
    except AsdegError:
        return False
    return True


def _sum(mask: Any) -> int:
    return int(pc.sum(pc.cast(mask, pa.int64())).as_py() or 0)
