"""Delta Lake's log of a table in a folder, read and appended to directly.

A push commits to a dozen tables. Asked of the library, every one of them lists the log, replays it and plans a
query: ten milliseconds of a core each, and eight sites wait for one another's. What a store needs of the protocol
is little: the newest checkpoint and the numbered JSON files after it say which Parquet files there are, and an
append is one more such file, made under its final name by a hard link, which fails where another writer was
first. Everything else (making tables, new columns, checkpoints, compaction, deletion) is the library's, as is
all of it on object storage; both see each other's commits.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from feature_store.files import listing_schema, tracked
from feature_store.schemas import TableSchema
from feature_store.software import software_version

ROW_GROUP = 128
"""Rows: of 851 float64 values 870 KB, what a look for one patient reads. Of narrow rows more cost no more."""
ROW_GROUP_BYTES = 900_000
FEW = 100
"""Files of a checkpoint: so many are listed one by one, more column by column."""
PAGE_BYTES = 64 * 1024**2
"""More than any row group has: a column of values is then one page, to be read as it lies (``plain_values``)."""
SAFE = "/="  # in a path's URL
KINDS = ("feature_set", "encoder")
"""Columns that say of what kind a row of values is."""
BOUNDED = ("patient_id", "push_id", *KINDS)
"""Columns by whose bounds row groups are picked in a file; those of others would only lengthen its footer."""
KEPT = "_listing.arrow"
"""Beside the log, the store's own: a version's files as a table that is read in a fraction of a checkpoint's time."""
READER, WRITER = 1, 2
"""Protocol versions understood here; the tables are made with them."""


class UnknownLog(Exception):
    """A log that is written in a way this module does not know; the library has to read it."""


class NumberTaken(Exception):
    """Another commit has numbered itself since, or has rewritten the same files."""


@dataclass(frozen=True)
class LogState:
    """One version of a table: its files (a row each, :func:`feature_store.files.listing_schema`), numbers, columns."""

    version: int
    files: pa.Table
    numbers: Mapping[str, int]
    columns: frozenset[str]


class FolderLog:
    """Not thread-safe: one caller at a time."""

    def __init__(self, folder: str, schema: TableSchema) -> None:
        self._address, self._schema = folder, schema
        self._checkpoint: tuple[int, int] | None = None  # when and how large the pointer to it was last seen

    @cached_property
    def _folder(self) -> Path:
        return Path(self._address)

    @cached_property
    def _log(self) -> Path:
        return self._folder / "_delta_log"

    @cached_property
    def _listing(self) -> pa.Schema:
        return listing_schema(self._schema)

    @cached_property
    def _tracked(self) -> Mapping[str, pa.DataType]:
        return tracked(self._schema)

    def read(self, known: LogState | None) -> LogState | None:
        """The newest version, from ``known`` on; None where there is no table. Raises UnknownLog, OSError."""
        if known is None:
            known = self._whole()
        state = None if known is None else self._tail(known)
        newest = self._moved_checkpoint()
        if state is not None and newest is not None and newest > state.version:
            state = self._tail(state)  # it may have come in between; or the commits up to it are gone
            if newest > state.version:
                whole = self._whole()
                state = None if whole is None else self._tail(whole)
        return state

    def write(self, rows: pa.Table) -> list[dict[str, Any]]:
        """Write Parquet files that nobody sees yet; returns the actions that add them."""
        if len(rows) > ROW_GROUP:
            rows = rows.take(in_order(rows, self._schema))
        return self._write(rows)

    def _write(self, rows: pa.Table) -> list[dict[str, Any]]:
        if not self._schema.by_site:
            return [self._write_file(rows, {})]
        sites = pc.unique(rows["site"]).to_pylist()
        of = {site: rows if len(sites) == 1 else rows.filter(pc.equal(rows["site"], site)) for site in sites}
        return [self._write_file(part.drop_columns(["site"]), {"site": site}) for site, part in of.items()]

    def replace(self, state: LogState, old: pa.Table, parts: Iterable[pa.Table]) -> int:
        """Put the same rows into new files: ``parts`` are the rows of the files listed in ``old``, a file each.

        Raises NumberTaken where somebody else has replaced one of them meanwhile; nothing is committed then.
        (The library lets two compactions of the same files through, and their rows stand there twice.)
        """
        adds = [action for part in parts for action in self._write(part)]
        now = int(time.time() * 1000)
        removes = [
            {"remove": {"path": quote(path, safe=SAFE), "deletionTimestamp": now, "dataChange": False}}
            for path in old["path"].to_pylist()
        ]
        for action in adds:
            action["add"]["dataChange"] = False
        return self.commit(state, [*removes, *adds], None, pc.unique(old["path"]), "OPTIMIZE")

    def commit(
        self,
        state: LogState,
        actions: Sequence[Mapping[str, Any]],
        number: tuple[str, int] | None,
        needs: pa.Array | None = None,
        operation: str = "WRITE",
    ) -> int:
        """Add ``actions`` as the version after whichever is the newest; returns that version.

        With ``number`` (a name and a number) the commit is that transaction of the name, and must follow the
        last one in ``state``: raises NumberTaken where any other has come since, or a file of ``needs`` has gone.
        """
        now = int(time.time() * 1000)
        info = {"timestamp": now, "operation": operation, "operationParameters": {"mode": "Append"}}
        lines: list[Mapping[str, Any]] = [{"commitInfo": info | {"engineInfo": software_version()}}]
        if number is not None:
            lines.append({"txn": {"appId": number[0], "version": number[1], "lastUpdated": now}})
        content = "\n".join(json.dumps(line, separators=(",", ":")) for line in (*lines, *actions))
        draft = self._log / f"_commit_{uuid.uuid4()}.json.tmp"
        draft.write_text(content, encoding="utf-8")
        try:
            before = state
            while True:
                latest = self.read(state)
                if latest is None:
                    raise FileNotFoundError(self._log)
                state = latest
                if number is not None and state.numbers.get(number[0]) != before.numbers.get(number[0]):
                    raise NumberTaken
                if needs is not None and not pc.all(pc.is_in(needs, value_set=state.files["path"])).as_py():
                    raise NumberTaken
                try:
                    os.link(draft, self._commit(state.version + 1))
                except FileExistsError:
                    continue
                break
        finally:
            draft.unlink()
        mine = state.version + 1
        newest = self._moved_checkpoint()
        if newest is not None and newest > mine and not self._commit(mine + 1).exists():
            raise OSError("the log was cut off above this commit")  # asleep so long that its number is history
        return mine

    def _commit(self, version: int) -> Path:
        return self._log / f"{version:020d}.json"

    def _moved_checkpoint(self) -> int | None:
        """Version of the newest checkpoint if its pointer has changed since the last look."""
        pointer = self._log / "_last_checkpoint"
        try:
            found = pointer.stat()
            if (seen := (found.st_mtime_ns, found.st_size)) == self._checkpoint:
                return None
            said = json.loads(pointer.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:  # it is being written
            return None
        if said.get("parts") or said.get("v2Checkpoint"):
            raise UnknownLog
        self._checkpoint = seen
        return int(said["version"])

    def _whole(self) -> LogState | None:
        """The state at the newest checkpoint, or before the first commit."""
        self._checkpoint = None
        version = self._moved_checkpoint()
        if version is not None:
            return self._kept(version) or self._from_checkpoint(version)
        if self._commit(0).exists():
            return LogState(-1, self._listing.empty_table(), {}, frozenset())
        if self._log.is_dir() and any(self._log.iterdir()):
            raise UnknownLog
        return None

    def keep(self, state: LogState) -> None:
        """Put down what ``state`` lists, so that whoever opens the table need not make it out of a checkpoint."""
        said = {"version": state.version, "numbers": dict(state.numbers), "columns": sorted(state.columns)}
        draft = self._log / f"_listing_{uuid.uuid4()}.tmp"
        schema = self._listing.with_metadata({"state": json.dumps(said)})
        with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(state.files.combine_chunks().cast(schema))
        draft.replace(self._log / KEPT)

    def _kept(self, checkpoint: int) -> LogState | None:
        """What :meth:`keep` put down last, unless it is older than the checkpoint or of other software."""
        try:
            with pa.OSFile(str(self._log / KEPT)) as source, pa.ipc.open_file(source) as reader:
                said = json.loads((reader.schema.metadata or {}).get(b"state", b"{}"))
                if said.get("version", -1) < checkpoint or not reader.schema.equals(self._listing):
                    return None
                return LogState(said["version"], reader.read_all(), said["numbers"], frozenset(said["columns"]))
        except (FileNotFoundError, pa.ArrowInvalid, ValueError):
            return None

    def _from_checkpoint(self, version: int) -> LogState:
        file = self._log / f"{version:020d}.checkpoint.parquet"
        try:
            stored = pq.ParquetFile(file)
            wanted = ["add.path", "add.partitionValues", "add.size", "add.stats", "txn", "metaData.schemaString"]
            wanted += ["protocol", "add.deletionVector"]
            rows = stored.read(columns=wanted, use_threads=False)
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise UnknownLog from error
        for protocol in rows["protocol"].drop_null().to_pylist():
            _understood(protocol)
        schema = rows["metaData"].drop_null().to_pylist()[-1]["schemaString"]
        numbers = {entry["appId"]: entry["version"] for entry in rows["txn"].drop_null().to_pylist()}
        adds = rows["add"].drop_null().combine_chunks()
        return LogState(version, self._listed(adds), numbers, _columns(schema))

    def _listed(self, adds: Any) -> pa.Table:
        """The listing of a checkpoint's ``add`` column."""
        if len(adds) <= FEW:
            return pa.Table.from_pylist([self._entry(add) for add in adds.to_pylist()], self._listing)
        part = {name: pc.struct_field(adds, name) for name in ("path", "partitionValues", "size", "stats")}
        bounds = pa.struct([pa.field(name, kind) for name, kind in self._tracked.items()])
        kinds = pa.schema([("numRecords", pa.int64()), ("minValues", bounds), ("maxValues", bounds)])
        lines = "\n".join(text or "{}" for text in part["stats"].to_pylist()).encode()
        options = pj.ParseOptions(explicit_schema=kinds, unexpected_field_behavior="ignore")
        stats = pj.read_json(
            pa.BufferReader(lines), pj.ReadOptions(block_size=max(len(lines) + 1, 1024), use_threads=False), options
        )
        columns = [
            pa.array([unquote(path) for path in part["path"].to_pylist()], pa.string()),
            part["size"],
            stats["numRecords"],
            pc.map_lookup(part["partitionValues"], "site", "first"),
            *(pc.struct_field(stats[which], name) for which in ("minValues", "maxValues") for name in bounds.names),
        ]
        return pa.Table.from_arrays(columns, schema=self._listing)

    def _tail(self, state: LogState) -> LogState:
        """``state`` and every commit after it."""
        changed: dict[str, dict[str, Any] | None] = {}
        numbers, columns, version = dict(state.numbers), state.columns, state.version
        while True:
            try:
                text = self._commit(version + 1).read_text(encoding="utf-8")
            except FileNotFoundError:
                break
            version += 1
            for action in map(json.loads, text.splitlines()):
                if add := action.get("add"):
                    if add.get("deletionVector"):
                        raise UnknownLog
                    changed[unquote(add["path"])] = self._entry(add)
                elif remove := action.get("remove"):
                    changed[unquote(remove["path"])] = None
                elif number := action.get("txn"):
                    numbers[number["appId"]] = number["version"]
                elif meta := action.get("metaData"):
                    columns = _columns(meta["schemaString"])
                elif protocol := action.get("protocol"):
                    _understood(protocol)
        if version == state.version:
            return state
        files = state.files
        if changed:
            if any(entry is None for entry in changed.values()):
                gone = pc.is_in(files["path"], value_set=pa.array(list(changed), pa.string()))
                files = files.filter(pc.invert(gone))
            added = [entry for entry in changed.values() if entry is not None]
            files = pa.concat_tables([files, pa.Table.from_pylist(added, self._listing)]).combine_chunks()
        return LogState(version, files, numbers, columns)

    def _entry(self, add: Mapping[str, Any]) -> dict[str, Any]:
        stats = json.loads(add.get("stats") or "{}")
        entry = {
            "path": unquote(add["path"]),
            "size_bytes": add["size"],
            "num_records": stats.get("numRecords"),
            "partition.site": dict(add["partitionValues"]).get("site"),
        }
        for which in ("min", "max"):
            found = stats.get(f"{which}Values", {})
            entry |= {f"{which}.{name}": found.get(name) for name in self._tracked}
        return entry

    def _write_file(self, rows: pa.Table, partition: dict[str, str]) -> dict[str, Any]:
        site = partition.get("site")
        # The log says of which site a file is; the folder's name is for people, and has to be a name anywhere.
        plain = site is None or (site.isascii() and site.replace("-", "").replace("_", "").isalnum())
        place = "" if site is None else f"site={site if plain else '0x' + site.encode().hex()[:64]}/"
        path = f"{place}part-{uuid.uuid4()}.parquet"
        file = self._folder / path
        file.parent.mkdir(exist_ok=True)
        lists = {field.name for field in rows.schema if pa.types.is_list(field.type)}
        columns = [name for name in rows.column_names if name not in lists]
        # numbers do not become smaller, only slower to read
        packed = dict.fromkeys(columns, "snappy") | {f"{name}.list.element": "none" for name in lists}
        with file.open("xb") as sink:
            pq.write_table(
                rows,
                sink,
                row_group_size=max(ROW_GROUP, ROW_GROUP_BYTES * len(rows) // max(rows.nbytes, 1)),
                use_dictionary=columns,
                write_statistics=[name for name in self._tracked if name in BOUNDED],
                compression=packed,
                data_page_size=PAGE_BYTES,
            )
        bounds: dict[str, dict[str, Any]] = {"minValues": {}, "maxValues": {}}
        for name in self._tracked:
            found = pc.min_max(rows[name]).as_py()
            bounds["minValues"][name], bounds["maxValues"][name] = found["min"], found["max"]
        stats = {"numRecords": len(rows), **bounds, "nullCount": dict.fromkeys(self._tracked, 0)}
        return {
            "add": {
                "path": quote(path, safe=SAFE),
                "partitionValues": partition,
                "size": file.stat().st_size,
                "modificationTime": int(time.time() * 1000),
                "dataChange": True,
                "stats": json.dumps(stats, separators=(",", ":")),
            }
        }


def _understood(protocol: Mapping[str, Any]) -> None:
    if protocol["minReaderVersion"] > READER or protocol["minWriterVersion"] > WRITER:
        raise UnknownLog


def _columns(schema: str) -> frozenset[str]:
    return frozenset(field["name"] for field in json.loads(schema)["fields"])


def in_order(rows: pa.Table, schema: TableSchema) -> pa.Array:
    """Positions of the rows by site, patient and the rest of the key: what is looked for together stands together."""
    # of values, a reader wants one feature set or encoder and not the others: each has row groups of its own
    kinds = [name for name in KINDS if name in schema.key[1:]]
    first = ["site", *kinds, "patient_id"] if "patient_id" in schema.column_names else ["sequence"]
    keys = [name for name in dict.fromkeys([*first, *schema.key]) if name in schema.column_names]
    return pc.sort_indices(rows.select(keys), [(name, "ascending") for name in keys])
