"""One Delta table: made when first written, appended to, read as an Arrow dataset.

The store needs little of Delta Lake: atomic appends by many writers, and application transactions
(a named counter inside the log) for the one table whose commits must be ordered. Rows are never updated
or deleted here, so the version of a Delta table means nothing to readers: what they may see is decided
by the pushes (:mod:`feature_store.snapshot`).

deltalake's runtime does not survive ``fork``: use spawned processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from feature_store.errors import StoreError
from feature_store.files import DataFiles, Fragments, Where, expression, listed, reading, values_of
from feature_store.folder_log import KINDS, ROW_GROUP, FolderLog, LogState, NumberTaken, UnknownLog, in_order
from feature_store.location import Location
from feature_store.schemas import TableSchema

CHECKPOINT_EVERY = 20  # commits of the library; a reader replays at most this many small JSON files
CHECKPOINT_FOLDER_EVERY = 100  # commits in a folder, where a replayed file costs a reader 50 µs
COMMIT_RETRIES = 1000  # appends never contradict each other, so a writer only waits for its turn
FOLDER = "tables"
SORTED_FILE_BYTES = 16 * 1024**2
"""A look for one patient opens one file, whose footer grows with it."""
QUARTER = 4
"""Files are left alone while those that are new amount to less than one in so many of their bytes."""


class TransactionTaken(Exception):
    """Another writer committed in between something that this commit cannot follow; read again and try again."""


class DeltaLog:
    """Handle on one table of a store. Thread-safe; keeps its Delta state between calls."""

    def __init__(self, location: Location, schema: TableSchema) -> None:
        self.schema = schema
        self._location = location
        self._uri = location.child(FOLDER, schema.name)
        self._lock = threading.RLock()
        self._handle: Any = None
        self._files: tuple[int, DataFiles] | None = None
        self._fragments: Fragments | None = None
        self._folder = None if location.folder is None else FolderLog(self._uri, schema)
        self._state: LogState | None = None

    @property
    def near(self) -> bool:
        """Whether commits take a millisecond of a core here, and no waiting: appending in threads gains nothing."""
        return self._folder is not None

    def exists(self) -> bool:
        """Whether the table has been made (by any process)."""
        with self._lock:
            return self._read() is not None or (self._folder is None and self._refreshed() is not None)

    def create(self) -> None:
        """Make the table if it is not there; several processes may do so at once."""
        try:
            DeltaTable.create(
                self._uri,
                self.schema.arrow(),
                mode="ignore",
                partition_by=["site"] if self.schema.by_site else None,
                description=self.schema.note,
                configuration={"delta.checkpointInterval": str(CHECKPOINT_EVERY)},
                storage_options=self._location.storage_options,
            )
        except (DeltaError, OSError) as error:
            if not self.exists():  # else another process was first
                raise self._failure("be made", error) from error

    def append(self, rows: pa.Table) -> None:
        """Commit ``rows`` (all columns of the schema) at once, or raise StoreError and commit nothing."""
        if self._append_to_folder(rows, None):
            return
        properties = CommitProperties(max_commit_retries=COMMIT_RETRIES)
        for last_try in (False, False, True):
            with self._lock:
                try:
                    return self._write(self._refreshed(), rows, properties)
                except TransactionTaken as error:
                    # Another software version has just added a column. Should this append have got through
                    # after all, the same rows of the same push stand twice, which readers see as once.
                    if last_try:
                        raise self._failure("take rows", error) from error

    def append_numbered(self, rows: pa.Table, name: str, number: int) -> None:
        """Append rows, the last of which is transaction ``number`` of ``name``; they must follow the last one.

        Raises TransactionTaken where that number is taken already, also by a commit that lands while
        this one is under way: deltalake rebases plain appends silently, but refuses to rebase over a
        transaction of the same name.
        """
        if self._append_to_folder(rows, (name, number)):
            return
        with self._lock:  # between reading the last number and writing, this handle must not move on
            handle = self._refreshed()
            last = 0 if handle is None else int(handle.transaction_version(name) or 0)
            if last != number - len(rows):
                raise TransactionTaken
            self._write(handle, rows, CommitProperties(app_transactions=[Transaction(name, number)]))

    def files(self) -> DataFiles | None:
        """The newest committed files, or None where the table is not there yet."""
        with self._lock:
            state = self._read()
            handle = None if self._folder else self._refreshed()
            if state is None and handle is None:
                return None
            version = state.version if state else handle.version()  # type: ignore[union-attr]
            if self._files is None or self._files[0] != version:
                if state is not None:
                    listing = state.files
                else:
                    listing = listed(pa.table(handle.get_add_actions(flatten=True)), self.schema)  # type: ignore[union-attr]
                self._files = (version, DataFiles(listing, self.schema.arrow(), self._shared_fragments()))
            return self._files[1]

    def _shared_fragments(self) -> Fragments:
        if self._fragments is None:
            self._fragments = Fragments(self.filesystem)
        return self._fragments

    def remove_pushes(self, push_ids: Sequence[str]) -> int:
        """Remove every row of these pushes, in one commit; returns how many rows went. Appends go on meanwhile."""
        return self.remove({"push_id": list(push_ids)})

    def remove(self, where: Where) -> int:
        """Remove every row that matches (texts only), in one commit; returns how many rows went. Appends go on."""
        files = self.files()
        with reading():
            count = 0 if files is None else int(files.dataset(where).count_rows(filter=expression(where)))
        if count:
            texts = {column: ", ".join(map(quoted, values_of(value))) for column, value in where.items()}
            condition = " AND ".join(f"{column} IN ({listed})" for column, listed in texts.items())
            # The library's `delete` writes files with a type of text that Arrow cannot compare with its own.
            self.maintain(
                lambda handle: write_deltalake(
                    handle,
                    self.schema.arrow().empty_table(),
                    mode="overwrite",
                    predicate=condition,
                    writer_properties=WriterProperties(max_row_group_size=ROW_GROUP, compression="SNAPPY"),
                )
            )
        return count

    def tidy(self, too_many: int) -> int:
        """Put files together, sorted by patient, where a look for one patient has more than ``too_many`` to open.

        Large files, sorted once, are left alone until the small ones amount to a QUARTER of them, so that doing this
        often costs little. Files are cut at SORTED_FILE_BYTES and hold row groups of ROW_GROUP rows: a look for one
        patient opens one file and reads one group. Rows stay as they are, and readers and writers go on
        meanwhile. Returns how many files went.
        """
        files = self.files()
        gone = 0
        if files is None:
            return gone
        for site, (count, size) in files.by_site().items():
            if count <= size // SORTED_FILE_BYTES + too_many and deepest(_of_site(files.listing, site)) <= too_many:
                continue
            if self._folder is not None and self._state is not None and set(self.schema.arrow().names) >= self._columns:
                gone += self._tidy_folder(site)
            else:
                gone += self._tidy_library(site)
        return gone

    @property
    def _columns(self) -> frozenset[str]:
        return frozenset() if self._state is None else self._state.columns

    def _tidy_folder(self, site: str | None) -> int:
        with self._lock:
            state = self._read()
            if self._folder is None or state is None:
                return 0
            files = DataFiles(state.files, self.schema.arrow(), self._shared_fragments())
        here = _worth_rewriting(_of_site(files.listing, site))
        if len(here) < 2:
            return 0
        try:
            rows = DataFiles(here, self.schema.arrow(), self._shared_fragments()).dataset().to_table()
            self._folder.replace(state, here, _cut(rows, self.schema, pc.sum(here["size_bytes"]).as_py()))
        except NumberTaken:
            return 0  # another process has done it
        except OSError as error:
            raise self._failure("be rewritten", error) from error
        self.checkpoint()
        return len(here)

    def _tidy_library(self, site: str | None) -> int:
        if "patient_id" not in self.schema.column_names:
            return int(self.maintain(lambda handle: handle.optimize.compact())["numFilesRemoved"])
        done = self.maintain(
            lambda handle: handle.optimize.z_order(
                ["patient_id"],
                partition_filters=None if site is None else [("site", "=", site)],
                target_size=SORTED_FILE_BYTES,
                writer_properties=WriterProperties(max_row_group_size=ROW_GROUP, compression="SNAPPY"),
            )
        )
        return int(done["numFilesRemoved"])

    def vacuum(self, hours: float) -> int:
        """Delete files that no version needs and that were let go, or left unfinished, ``hours`` ago; returns how many.

        Nothing of the store's history is in them: revisions are rows, and rows are kept.
        """
        return len(
            self.maintain(
                lambda handle: handle.vacuum(
                    retention_hours=max(int(hours), 0), dry_run=False, enforce_retention_duration=False, full=True
                )
            )
        )

    @property
    def filesystem(self) -> Any:
        """The table's folder, for who cares for the files themselves."""
        return self._location.filesystem(FOLDER, self.schema.name)

    def maintain(self, work: Callable[[Any], Any]) -> Any:
        """Do ``work`` on the library's newest handle, again where another process rewrote the same files first."""
        for last_try in (False, False, True):
            with self._lock:
                handle = self._refreshed()
                try:
                    return work(handle)
                except CommitFailedError as error:
                    self._forget()
                    if last_try:
                        raise self._failure("be rewritten", error) from error
                except (DeltaError, OSError) as error:
                    self._forget()
                    raise self._failure("be rewritten", error) from error

    def _append_to_folder(self, rows: pa.Table, number: tuple[str, int] | None) -> bool:
        """Commit in the folder itself; False where the library has to: other storage, a new table, a new column."""
        with self._lock:
            state = self._read()
        if self._folder is None or state is None or not set(rows.column_names) <= state.columns:
            return False
        if number is not None and state.numbers.get(number[0], 0) != number[1] - len(rows):
            raise TransactionTaken
        try:
            actions = self._folder.write(rows)
            with self._lock:
                version = self._folder.commit(state, actions, number)
        except NumberTaken as error:
            raise TransactionTaken from error
        except OSError as error:
            raise self._failure("take rows", error) from error
        # not every table in the same push, which would have to wait for all of them
        if (version + sum(self.schema.name.encode())) % CHECKPOINT_FOLDER_EVERY == 0:
            self.checkpoint()
        return True

    def _read(self) -> LogState | None:
        """The newest state, where the log in the folder can be read directly; from then on the library is asked."""
        if self._folder is None:
            return None
        with self._lock:
            try:
                self._state = self._folder.read(self._state)
            except UnknownLog:
                self._folder = self._state = None
            except OSError as error:
                raise self._failure("be opened", error) from error
            return self._state

    def checkpoint(self) -> None:
        """Spare whoever opens the table the commits up to here."""
        with self._lock:
            try:
                handle = self._refreshed()
                if handle is not None:
                    handle.create_checkpoint()
                if (state := self._read()) is not None and self._folder is not None:
                    self._folder.keep(state)
            except (DeltaError, OSError):  # the rows are committed: the next one who comes by tries again
                self._forget()

    def _write(self, handle: Any, rows: pa.Table, properties: Any) -> None:
        with self._lock:
            if handle is None:
                self.create()
                handle = self._refreshed()
            grown = not set(rows.column_names) <= {field.name for field in handle.schema().fields}
            try:
                write_deltalake(
                    handle,
                    rows,
                    mode="append",
                    schema_mode="merge" if grown else None,
                    commit_properties=properties,
                )
            except CommitFailedError as error:
                self._forget()
                raise TransactionTaken from error
            except (DeltaError, OSError) as error:
                self._forget()
                raise self._failure("take rows", error) from error

    def _refreshed(self) -> Any:
        with self._lock:
            try:
                if self._handle is None:
                    self._handle = DeltaTable(self._uri, storage_options=self._location.storage_options)
                else:
                    self._handle.update_incremental()
            except TableNotFoundError:
                self._forget()
            except (DeltaError, OSError) as error:
                self._forget()
                raise self._failure("be opened", error) from error
            return self._handle

    def _forget(self) -> None:
        self._handle = None

    def _failure(self, what: str, error: Exception) -> StoreError:
        # Delta's messages can quote rows; only the kind of failure is passed on.
        return StoreError(
            f"Table {self.schema.name} could not {what} ({type(error).__name__}).",
            action="Check that the store's address can be reached and written, then try again.",
        )


def quoted(text: str) -> str:
    """A text as a literal in a condition."""
    return "'" + text.replace("'", "''") + "'"


def _of_site(listing: pa.Table, site: str | None) -> pa.Table:
    return listing if site is None else listing.filter(pc.equal(listing["partition.site"], site))


def deepest(listing: pa.Table) -> int:
    """The most files that may hold one patient's rows of one feature set; 1 where there are no patients."""
    if "min.patient_id" not in listing.column_names or not len(listing):
        return 1
    names = [*(kind for kind in KINDS if f"min.{kind}" in listing.column_names), "patient_id"]
    lows, highs = (
        list(zip(*(listing[f"{which}.{name}"].to_pylist() for name in names), strict=True)) for which in ("min", "max")
    )
    if any(None in bounds for bounds in (*lows, *highs)):
        return len(listing)
    edges = sorted([(low, 0) for low in lows] + [(high, 1) for high in highs])  # a file begins before one ends
    return int(np.cumsum([1 - 2 * end for _, end in edges]).max())


def _worth_rewriting(listing: pa.Table) -> pa.Table:
    """Of one site's files, the small ones up to some that are much larger than all before them; or every one."""
    by_size = listing.sort_by("size_bytes")
    sizes = by_size["size_bytes"].to_pylist()
    large = by_size.filter(pc.greater(by_size["size_bytes"], SORTED_FILE_BYTES // 2))
    if deepest(large) > 2:  # two share the patient at whom files were cut; more have never been sorted together
        return listing
    count = total = 0
    for size in sizes:
        if size * 2 > SORTED_FILE_BYTES or (count > 1 and size > total * QUARTER):
            break
        count, total = count + 1, total + size
    return listing if total * QUARTER >= sum(sizes) else by_size.slice(0, count)


def _cut(rows: pa.Table, schema: TableSchema, size: int) -> Iterator[pa.Table]:
    """The rows in order, cut into files; each holds one feature set or encoder, and whole patients but for its ends."""
    ordered = rows.take(in_order(rows, schema))
    kinds = [kind for kind in KINDS if kind in schema.key[1:]]
    parts = [ordered]
    for kind in kinds:
        parts = [part.filter(pc.equal(part[kind], one)) for part in parts for one in pc.unique(part[kind])]
    for part in parts:
        cuts = max(1, round(size * len(part) / len(rows) / SORTED_FILE_BYTES))
        each = -(-len(part) // cuts)
        for start in range(0, len(part), each):
            yield part.slice(start, each)
