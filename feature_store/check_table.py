"""The promises of one table: its files, every row in them, and that pushes are whole.

A file that was whole stays so, because files are never changed: given what an earlier check found, only files that
are new since are read. Of the earlier ones presence and length are looked at, and keys where files were rewritten or a
patient was erased since, because a push may have rows in several files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from feature_store.checked import Checked, Promise
from feature_store.delta import DeltaLog
from feature_store.erasures import Erased, Erasure, expected_rows
from feature_store.errors import StoreError
from feature_store.files import DataFiles, Fragments, listing_schema
from feature_store.rows import composite, count_broken, row_hashes, withdrawal_hashes
from feature_store.schemas import TableSchema
from feature_store.snapshot import Snapshot

BATCH_ROWS = 2048
WHOLE_FILES = "files are there, as long as the log says, and can be read"


@dataclass(frozen=True)
class TableFound:
    """What can be read of the table, and what of that is new; ``settled`` as in :class:`Checked`, None where a promise
    is broken."""

    readable: DataFiles
    new: DataFiles
    settled: dict[str, bool] | None


def check_table(
    snapshot: Snapshot, log: DeltaLog, schema: TableSchema, known: Sequence[Erasure], last: Checked | None
) -> Generator[Promise, None, TableFound]:
    """Files, rules, hashes, wholeness and erased patients of one table, in one pass over what is new."""
    files = snapshot.files(schema.name)
    listing = listing_schema(schema).empty_table() if files is None else files.listing
    before = {} if last is None else last.files.get(schema.name, {})
    finished = [erasure for erasure in known if erasure.state == "finished"]
    rewritten = not set(before) <= set(listing["path"].to_pylist())
    erased_since = last is not None and not {erasure.erasure for erasure in finished} <= set(last.erasures)
    all_keys = not before or rewritten or erased_since
    wrong, missing = wrong_files(log, listing)
    fragments, arrow = Fragments(log.filesystem), schema.arrow()
    rows = _Rows(schema, snapshot.pushes["push_id"], Erased(finished))
    settled: dict[str, bool] = {}
    new, readable, taken = [], [], 0
    for number, path in enumerate(listing["path"].to_pylist()):
        one = listing.slice(number, 1)
        if path in missing:
            continue
        try:
            if not before.get(path, False):
                settled[path] = rows.look(DataFiles(one, arrow, fragments))
                new.append(number)
            else:
                if all_keys:
                    rows.look_at_keys(DataFiles(one, arrow, fragments))
                settled[path] = True
                taken += one["num_records"][0].as_py() or 0
            readable.append(number)
        except (OSError, pa.ArrowInvalid):
            wrong.add(path)
    judged = snapshot.pushes if all_keys or last is None else snapshot.pushes.slice(last.sequence)
    torn = 0
    for push in judged.select(["push_id", "kind", "tables"]).to_pylist():
        count = json.loads(push["tables"]).get(schema.name, 0)
        torn += len(rows.keys.get(push["push_id"], ())) not in expected_rows(schema.name, push, count, known)
    broken = sum(rows.rules.values())
    found = [
        Promise(WHOLE_FILES, schema.name, len(listing), len(wrong)),
        Promise("rows keep the schema's rules", schema.name, rows.shown, broken, taken),
        Promise("rows have the hash they were written with", schema.name, rows.shown, rows.changed, taken),
        Promise("a push is whole", schema.name, len(judged), torn, len(snapshot.pushes) - len(judged)),
    ]
    if known and "patient_id" in schema.column_names:
        found.append(
            Promise(
                "no row is of an erased patient", schema.name, rows.shown + rows.only_keys, rows.erased,
                taken - rows.only_keys,
            )
        )  # fmt: skip
    yield from found
    return TableFound(
        readable=DataFiles(listing.take(pa.array(readable, pa.int64())), arrow, fragments),
        new=DataFiles(listing.take(pa.array(new, pa.int64())), arrow, fragments),
        settled=None if any(promise.broken for promise in found) else settled,
    )


class _Rows:
    """Counts over the rows of a table's files."""

    def __init__(self, schema: TableSchema, committed: pa.ChunkedArray, erased: Erased) -> None:
        self._schema, self._committed, self._erased = schema, committed, erased
        self.rules: Counter[str] = Counter()
        self.shown = self.changed = self.erased = self.only_keys = 0
        self.keys: dict[str, set[str]] = {}
        """By push, the keys of its rows: twice by one push is once."""

    def look(self, files: DataFiles) -> bool:
        """At whole rows; whether all of them are of pushes that the view has."""
        settled = True
        for table in _batches(files, None):
            shown = self._look_at_keys(table)
            settled = settled and len(shown) == len(table)
            self.shown += len(shown)
            self.rules.update(count_broken(self._schema, shown))
            gone = pc.fill_null(shown["withdrawn"], False)
            hashes = pc.if_else(gone, withdrawal_hashes(self._schema, shown), row_hashes(self._schema, shown))
            self.changed += int(pc.sum(pc.not_equal(hashes, shown["row_hash"])).as_py() or 0)
        return settled

    def look_at_keys(self, files: DataFiles) -> None:
        """At keys only, of rows that an earlier check has looked at."""
        who = [name for name in ("site", "patient_id") if name in self._schema.column_names]
        for table in _batches(files, list(dict.fromkeys([*self._schema.key, *who, "push_id"]))):
            self.only_keys += len(self._look_at_keys(table))

    def _look_at_keys(self, table: pa.Table) -> pa.Table:
        self.erased += int(self._erased.mask(table).sum())
        shown = table.filter(pc.is_in(table["push_id"], value_set=self._committed))
        names = composite(shown, self._schema.key).to_pylist()
        for push_id, name in zip(shown["push_id"].to_pylist(), names, strict=True):
            self.keys.setdefault(push_id, set()).add(name)
        return shown


def wrong_files(log: DeltaLog, listing: pa.Table) -> tuple[set[str], set[str]]:
    """Of the listed files those that are not as long as the log says, and those of them that are not there.

    Raises StoreError where files went because an erasure has just rewritten them.
    """
    there = log.filesystem.get_file_info(pafs.FileSelector("", recursive=True, allow_not_found=True))
    sizes = {info.path: info.size for info in there}
    said = dict(zip(listing["path"].to_pylist(), listing["size_bytes"].to_pylist(), strict=True))
    missing = set(said) - set(sizes)
    if missing:
        newest = log.files()
        if newest is not None and not missing <= set(newest.listing["path"].to_pylist()):
            raise StoreError(f"Table {log.schema.name} was rewritten meanwhile.", action="Check again.")
    return missing | {path for path, size in said.items() if size is not None and sizes.get(path) != size}, missing


def _batches(files: DataFiles, columns: list[str] | None) -> Iterator[pa.Table]:
    for batch in files.dataset().scanner(columns=columns, batch_size=BATCH_ROWS).to_batches():
        yield pa.Table.from_batches([batch])
