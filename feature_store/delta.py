"""One Delta table: made when first written, appended to, read as an Arrow dataset.

The store needs little of Delta Lake: atomic appends by many writers, and application transactions
(a named counter inside the log) for the one table whose commits must be ordered. Rows are never updated
or deleted here, so the version of a Delta table means nothing to readers: what they may see is decided
by the pushes (:mod:`feature_store.snapshot`).

deltalake's runtime does not survive ``fork``: use spawned processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from feature_store.errors import StoreError
from feature_store.files import DataFiles
from feature_store.location import Location
from feature_store.schemas import TableSchema

CHECKPOINT_EVERY = 20  # commits; a reader replays at most this many small JSON files
COMMIT_RETRIES = 1000  # appends never contradict each other, so a writer only waits for its turn
FOLDER = "tables"
SORTED_FILE_BYTES = 64 * 1024**2
ROW_GROUP = 256  # of 851 float64 values: 1.7 MB, what a look for one patient reads


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

    def exists(self) -> bool:
        """Whether the table has been made (by any process)."""
        return self._refreshed() is not None

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
        with self._lock:  # between reading the last number and writing, this handle must not move on
            handle = self._refreshed()
            last = 0 if handle is None else int(handle.transaction_version(name) or 0)
            if last != number - len(rows):
                raise TransactionTaken
            self._write(handle, rows, CommitProperties(app_transactions=[Transaction(name, number)]))

    def files(self) -> DataFiles | None:
        """The newest committed files, or None where the table is not there yet."""
        with self._lock:
            handle = self._refreshed()
            if handle is None:
                return None
            version = handle.version()
            if self._files is None or self._files[0] != version:
                actions = pa.table(handle.get_add_actions(flatten=True))
                filesystem = self._location.filesystem(FOLDER, self.schema.name)
                self._files = (version, DataFiles(actions, self.schema.arrow(), filesystem))
            return self._files[1]

    def compact(self) -> int:
        """Merge small files; returns how many went. Readers and writers go on meanwhile."""
        with self._lock:
            handle = self._refreshed()
            if handle is None:
                return 0
            try:
                return int(handle.optimize.compact()["numFilesRemoved"])
            except DeltaError:  # another process compacted the same files: it is done either way
                self._forget()
                return 0

    def remove_pushes(self, push_ids: Sequence[str]) -> int:
        """Remove every row of these pushes, in one commit; returns how many rows went. Appends go on meanwhile."""
        listed = ", ".join(f"'{name}'" for name in push_ids)  # hex digits only
        done = self._maintain(lambda handle: handle.delete(f"push_id IN ({listed})"))
        return int(done["num_deleted_rows"] or 0)

    def sort(self, site: str | None, column: str) -> int:
        """Rewrite one site's files (or all) sorted by ``column``; returns how many files went.

        Files are cut at SORTED_FILE_BYTES and hold row groups of ROW_GROUP rows, so that a look for one
        patient opens one file and reads one group. Rows stay as they are; appends go on meanwhile.
        """
        partition = None if site is None else [("site", "=", site)]
        done = self._maintain(
            lambda handle: handle.optimize.z_order(
                [column],
                partition_filters=partition,
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
            self._maintain(
                lambda handle: handle.vacuum(
                    retention_hours=max(int(hours), 0), dry_run=False, enforce_retention_duration=False, full=True
                )
            )
        )

    def _maintain(self, work: Callable[[Any], Any]) -> Any:
        """Do ``work`` on the newest handle, again where another process rewrote the same files first."""
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
