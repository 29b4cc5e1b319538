"""The feature store's front door: open it, push to it, take a snapshot of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.blobs import Blobs
from feature_store.check import Verify, check
from feature_store.checked import Checked, Promise, read_checked, write_checked
from feature_store.delta import DeltaLog
from feature_store.erasures import erased, refused
from feature_store.errors import StoreNotFound, UsageError
from feature_store.location import Location
from feature_store.optimize import OptimizedTable, OptimizeSettings, Progress, optimize
from feature_store.push_log import PushLog
from feature_store.pushes import Guard, Pusher, PushReceipt
from feature_store.rows import Rows
from feature_store.schemas import PUSHES, TABLES
from feature_store.snapshot import Snapshot


class FeatureStore:
    """Tables and blobs under one URI. Any number of processes may write and read at once.

    Handles may be shared by threads; a process opens its own (send it ``uri``). After ``fork`` the
    handle of the parent must not be used: start processes by spawning.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._logs = {name: DeltaLog(location, schema) for name, schema in TABLES.items()}
        self._push_log = PushLog(self._logs[PUSHES.name])
        self._pusher = Pusher(self._logs, self._push_log)
        self.uri = location.uri
        self.blobs = Blobs(location)

    @classmethod
    def open(cls, uri: str | Path, create: bool = False) -> FeatureStore:
        """Open the store at a folder, ``file://…`` or ``s3://…``; with ``create`` make it where there is none.

        Raises StoreNotFound where there is no store and ``create`` is not set.
        """
        store = cls(Location.parse(uri))
        pushes = store._logs[PUSHES.name]
        if not pushes.exists():
            if not create:
                raise StoreNotFound(
                    "There is no store at that address.", action="Check --store, or ingest a case first."
                )
            pushes.create()
        return store

    def push(
        self,
        tables: Mapping[str, Rows],
        *,
        kind: str,
        source: str,
        unless_changed: Guard = (),
        since: int | None = None,
        withdraw: Mapping[str, Rows] | None = None,
    ) -> PushReceipt:
        """Write rows of several tables; readers see all of them or none.

        ``tables`` maps a table's name to rows (dicts, or an Arrow table). Rows equal to their key's
        latest revision are left out; rows that break a rule come back in the receipt and the others are
        written. ``unless_changed`` names tables (or maps a table to the key columns' values that matter) that
        no other push may have written after push ``since`` (default: the newest at the call); else Conflict
        is raised and nothing becomes visible. ``withdraw`` maps a table to keys (rows with the key columns) that
        hold nothing from this push on; those that hold nothing already are left out. Older views keep them.
        Raises SchemaError for columns that are not the table's, StoreError where the store refuses, PatientErased
        where every row is of patients who were erased (rows of several patients: theirs are rejected).
        """
        return self._pusher.push(tables, kind, source, unless_changed, since, withdraw)

    def admit(self, site: str, patient_id: str) -> None:
        """Raises PatientErased where the patient was erased: before any of a case is kept."""
        if erased(self.snapshot()).holds(site, patient_id):
            raise refused()

    def log(self, table: str) -> DeltaLog:
        """The files of one table, for who cares for them or copies them."""
        return self._logs[table]

    def take_pushes(self, rows: pa.Table) -> None:
        """Make copied pushes visible (:mod:`feature_store.backup`)."""
        self._push_log.take(rows)

    def optimize(
        self,
        settings: OptimizeSettings | None = None,
        progress: Progress | None = None,
        before_each: Callable[[], None] = lambda: None,
    ) -> list[OptimizedTable]:
        """Fewer files, sorted by patient; rows and files that dead writers left go (:mod:`feature_store.optimize`).

        ``before_each`` is called before each table and may raise. One at a time: :mod:`feature_store.optimize_alone`.
        """
        return optimize(self._logs, self._push_log, self.blobs, settings, progress, before_each)

    def last_checked(self) -> Checked | None:
        """What the last check found whole; None where there was none."""
        return read_checked(self._location)

    def check(self, verify: Verify | None = None, last: Checked | None = None) -> Iterator[Promise]:
        """Every promise, with counts: over all data, or over what is new since ``last`` (:mod:`feature_store.check`).

        What it found whole is :meth:`last_checked` from then on, once the last promise was asked for.
        """
        found = yield from check(self.snapshot(), self._logs, self.blobs, verify, last)
        write_checked(self._location, found)

    def snapshot(self, as_of: int | datetime | None = None) -> Snapshot:
        """Whole pushes up to sequence ``as_of``, or up to a time (with a time zone), or all of them."""
        pushes = self._push_log.rows()
        newest = Snapshot(self._logs, pushes)
        if as_of is None:
            return newest
        if isinstance(as_of, datetime):
            if as_of.tzinfo is None:
                raise UsageError("A time needs its time zone.", action="Write 2026-01-31T12:00:00+00:00.")
            # commit times never run backwards, so this is the length of a prefix
            as_of = int(pc.sum(pc.less_equal(pushes["committed_at"], pa.scalar(as_of))).as_py() or 0)
        return newest.at(as_of)
