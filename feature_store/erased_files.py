"""The files of one table that still hold what was erased, and getting rid of them.

Rows are deleted in Delta Lake by writing files anew; the old files stay for readers, and the log keeps the bounds
of every file there ever was: a patient's id and values. So, after the rows: a checkpoint that knows only the files
of now, older checkpoints deleted, the bounds of replaced files struck out of the log (whose numbered files all
stay: a writer that was asleep must find its number taken), replaced files deleted, and what killed writers left,
once it is so old that its writer cannot be at work any more.

All of it may be killed at any instant and be done again.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from feature_store.delta import DeltaLog
from feature_store.erased_log import LOG, Commits
from feature_store.files import DataFiles
from feature_store.folder_log import KEPT

COMMIT = re.compile(r"^[0-9]{20}\.json$")
CHECKPOINT = re.compile(r"^(?P<version>[0-9]{20})\.checkpoint.*\.parquet$")


@dataclass(frozen=True)
class Wanted:
    """A text that is looked for in the cells of some columns, or in lists there; with ``site``, in that site's rows."""

    columns: tuple[str, ...]
    text: str
    site: str | None = None

    @property
    def read(self) -> list[str]:
        """The columns that have to be read for it."""
        return [*self.columns, *(() if self.site is None else ("site",))]

    def within(self, rows: pa.Table) -> bool:
        """Whether a row of ``rows`` has it."""
        if self.site is not None and "site" in rows.column_names:
            rows = rows.filter(pc.equal(rows["site"], self.site))
        for name in set(self.columns) & set(rows.column_names):
            cells = rows[name].combine_chunks()
            cells = pc.list_flatten(cells) if pa.types.is_list(cells.type) else cells
            if pc.any(pc.equal(cells, self.text)).as_py():
                return True
        return False

    def bounds(self, stats: str | None) -> bool:
        """Whether what the log keeps of a file has it."""
        said = json.loads(stats or "{}")
        return self.text in [
            said.get(which, {}).get(name) for which in ("minValues", "maxValues") for name in self.columns
        ]

    def listed(self, row: dict[str, Any]) -> bool:
        """Whether the bounds of a listed file have it."""
        return self.text in [row.get(f"{which}.{name}") for which in ("min", "max") for name in self.columns]


@dataclass
class Cleaned:
    """``waiting``: files of writers that may still be at work, and when (seconds since 1970) they no longer can be."""

    files_deleted: int = 0
    log_files_struck: int = 0
    waiting: int = 0
    until: float = 0.0

    def wait(self, until: float) -> None:
        """Something has to be left alone until then."""
        self.waiting, self.until = self.waiting + 1, max(self.until, until)


@dataclass(frozen=True)
class Folder:
    """What lies in a table's folder, from one listing, and the files that were the table's right after it."""

    newest: DataFiles | None
    current: set[str]
    strays: list[tuple[str, float]]
    """Parquet files that the table's newest version does not have, and when (seconds) each was written."""
    log: list[Any]
    """What lies in the folder of the log."""


def folder_of(log: DeltaLog) -> Folder:
    """List a table's folder once: on object storage that takes a request a thousand files and commits."""
    found = log.filesystem.get_file_info(pafs.FileSelector("", recursive=True, allow_not_found=True))
    files = [info for info in found if info.type == pafs.FileType.File]
    newest = log.files()  # after the listing: what was committed in between is no stray
    current = set() if newest is None else set(newest.listing["path"].to_pylist())
    data = [info for info in files if ".parquet" in info.path and LOG not in info.path]
    strays = [(info.path, info.mtime_ns / 1e9) for info in data if info.path not in current]
    return Folder(newest, current, strays, [info for info in files if info.path.startswith(f"{LOG}/")])


def read_stray(log: DeltaLog, path: str, columns: Sequence[str]) -> pa.Table | None:
    """Those of ``columns`` that the file has; None where it was never written to its end or is gone."""
    try:
        with log.filesystem.open_input_file(path) as source:
            stored = pq.ParquetFile(source)
            return stored.read([name for name in columns if name in stored.schema_arrow.names])
    except (OSError, pa.ArrowInvalid):
        return None


def site_of(path: str) -> str:
    """The site that the folder of a file names; of a name that is none anywhere, its beginning."""
    name = unquote(path.partition("/")[0].removeprefix("site="))
    return bytes.fromhex(name[1:]).decode(errors="ignore") if name.startswith("~") else name


def clean(log: DeltaLog, wanted: Wanted, grace_s: float, commits: Commits) -> Cleaned:
    """Leave no file and no line of the log that has what is ``wanted``; its rows must be deleted already."""
    done = Cleaned()
    files = log.filesystem
    log.maintain(lambda handle: handle.create_checkpoint())
    folder = folder_of(log)
    added: set[str] = set()
    for info in folder.log:
        if COMMIT.match(info.path.rsplit("/", 1)[-1]):
            added |= commits.of(info.path).added
            done.log_files_struck += commits.strike_out(info.path, folder.current)
    _drop_old_checkpoints(files, folder.log, done)
    _delete(files, f"{LOG}/{KEPT}")  # the next checkpoint brings it back
    _drop_drafts(files, folder.log, wanted, grace_s, done)
    for path, written in folder.strays:
        rows = read_stray(log, path, wanted.read)
        if rows is not None and not wanted.within(rows):
            continue
        until = written + grace_s
        if path not in added and until > time.time():
            done.wait(until)  # its writer may be about to commit it
            continue
        _delete(files, path)  # last: as long as anything is left, the file itself shows whom it is about
        done.files_deleted += 1
    return done


def traces(log: DeltaLog, wanted: Wanted, commits: Commits) -> list[str]:
    """Where there is still something of what is ``wanted``: in rows, in files that are no longer the table's (or
    cannot be read), in the bounds that the log keeps of these, in drafts of commits. Names of files."""
    files, folder, found = log.filesystem, folder_of(log), []
    newest, current = folder.newest, folder.current
    if newest is not None:
        columns = [name for name in wanted.read if name in log.schema.column_names]
        where = {} if wanted.site is None else {"site": wanted.site}
        if wanted.within(newest.dataset(where).to_table(columns=columns)):
            found.append("rows")
    for path, _ in folder.strays:
        rows = read_stray(log, path, wanted.read)
        if (rows is None and _is_there(files, path)) or (rows is not None and wanted.within(rows)):
            found.append(path)
    for info in folder.log:
        name = info.path.rsplit("/", 1)[-1]
        if CHECKPOINT.match(name):
            has = any(map(wanted.bounds, _bounds_of_gone(log, info.path, current)))
        elif name == KEPT:
            has = any(row["path"] not in current and wanted.listed(row) for row in _kept_rows(files, info.path))
        elif COMMIT.match(name):
            has = commits.of(info.path).has(current)
        else:
            has = name != "_last_checkpoint" and not _harmless(files, info.path, wanted)
        if has:
            found.append(info.path)
    return found


def _bounds_of_gone(log: DeltaLog, checkpoint: str, current: set[str]) -> list[str | None]:
    """What a checkpoint has of files that are no longer the table's."""
    rows = read_stray(log, checkpoint, ["add"])
    if rows is None:
        return []
    adds = rows["add"].drop_null().combine_chunks()
    paths = pc.struct_field(adds, "path").to_pylist()
    gone = [at for at, path in enumerate(paths) if unquote(path) not in current]
    return list(pc.struct_field(adds, "stats").take(pa.array(gone, pa.int64())).to_pylist())


def _drop_old_checkpoints(files: Any, listed: list[Any], done: Cleaned) -> None:
    found = [(CHECKPOINT.match(info.path.rsplit("/", 1)[-1]), info.path) for info in listed]
    try:
        with files.open_input_stream(f"{LOG}/_last_checkpoint") as source:
            kept = int(json.loads(source.read())["version"])
    except (FileNotFoundError, ValueError):  # somebody is writing it: the next round
        return
    if kept not in [int(match["version"]) for match, _ in found if match]:
        return
    for match, path in found:
        if match and int(match["version"]) < kept:
            _delete(files, path)
            done.files_deleted += 1


def _drop_drafts(files: Any, listed: list[Any], wanted: Wanted, grace_s: float, done: Cleaned) -> None:
    """What a writer that was killed left of a commit or a checkpoint under another name."""
    for info in listed:
        name = info.path.rsplit("/", 1)[-1]
        if COMMIT.match(name) or CHECKPOINT.match(name) or name in ("_last_checkpoint", KEPT):
            continue
        until = info.mtime_ns / 1e9 + grace_s
        if until < time.time():
            _delete(files, info.path)
            done.files_deleted += 1
        elif not _harmless(files, info.path, wanted):
            done.wait(until)


def _harmless(files: Any, path: str, wanted: Wanted) -> bool:
    try:
        return not Commits(files, wanted).of(path).has(set())
    except ValueError:  # no whole JSON: it is being written, or is no commit
        return False


def _kept_rows(files: Any, path: str) -> list[dict[str, Any]]:
    """Of the listing that is kept beside the log; none where it is gone by now."""
    try:
        with files.open_input_file(path) as source, pa.ipc.open_file(source) as reader:
            return list(reader.read_all().to_pylist())
    except FileNotFoundError:
        return []


def _is_there(files: Any, path: str) -> bool:
    return bool(files.get_file_info(path).type == pafs.FileType.File)


def _delete(files: Any, path: str) -> None:
    try:
        files.delete_file(path)
    except FileNotFoundError:  # another erasure, or the optimiser, was here
        return
