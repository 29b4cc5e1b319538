"""Leases: the right to do a job that only one may do at a time, in the control database, until it runs out.

Who dies with a lease keeps the others out no longer than it lasts. :meth:`Leases.keep` prolongs one in a thread
for as long as a block of work takes. A database that is away for a while costs nothing as long as the lease has
not run out. Where the lease is lost (the process was asleep, or the database away, for longer), its holder can see it
at any step (:attr:`KeptLease.lost`) and is stopped before it commits (:meth:`KeptLease.check`).
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from types import TracebackType

import structlog
from sqlalchemy import delete, or_, select, update

from feature_store.control import ControlDatabase, upsert
from feature_store.control_tables import LeaseRow
from feature_store.errors import LeaseLost, StoreError

log = structlog.get_logger(__name__)

PROLONGED = 4
"""Times that a lease is prolonged before it could run out; after a failure it is tried again twice as soon."""


class Lease:
    """True while held. As a context it is given back at the end."""

    def __init__(self, leases: Leases, name: str, holder: str, held: bool) -> None:
        self._leases, self._name, self._holder, self.held = leases, name, holder, held

    def __bool__(self) -> bool:
        return self.held

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it back before it runs out."""
        if self.held:
            self._leases.release(self._name, self._holder)
            self.held = False


class KeptLease:
    """A lease that is prolonged while the block runs; falsy where another holds it. One thread uses it."""

    def __init__(self, leases: Leases, name: str, seconds: float) -> None:
        self._leases, self._name, self._seconds = leases, name, seconds
        self._holder = f"process {os.getpid()} on {socket.gethostname()[:120]} ({uuid.uuid4().hex[:8]})"
        self._held = self._taken_over = False
        self._until = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name=f"lease {name}")

    def __bool__(self) -> bool:
        return self._held

    def __enter__(self) -> KeptLease:
        begun = time.monotonic()
        self._held = bool(self._leases.take(self._name, self._holder, self._seconds))
        if self._held:
            self._until = begun + self._seconds
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._held:
            return
        self._over.set()
        self._thread.join()
        try:
            self._leases.release(self._name, self._holder)
        except StoreError as away:  # the work is done, or has an error of its own: the lease runs out by itself
            log.warning("lease not given back", lease=self._name, error=away.code)

    @property
    def lost(self) -> bool:
        """Whether another may be at it by now."""
        return self._taken_over or time.monotonic() > self._until

    def check(self) -> None:
        """For before something is committed: ask whether it is still held, and prolong it. Raises LeaseLost."""
        try:
            self._prolong()
        except StoreError as error:
            log.warning("lease not prolonged", lease=self._name, error=error.code)
        if self.lost:
            raise LeaseLost(
                "The lease on this work was lost while it went on.", action="Begin it again: what is done is kept."
            )

    def _keep(self) -> None:
        pause = self._seconds / PROLONGED
        while not self._over.wait(pause) and not self._taken_over:
            pause = self._seconds / PROLONGED
            try:
                self._prolong()
            except StoreError as error:
                log.warning("lease not prolonged", lease=self._name, error=error.code)
                pause /= 2

    def _prolong(self) -> None:
        begun = time.monotonic()
        if self._leases.prolong(self._name, self._holder, self._seconds):
            self._until = begun + self._seconds
        else:
            self._taken_over = True


class Leases:
    """Takes, prolongs and gives back. Shared by threads and processes."""

    def __init__(self, control: ControlDatabase) -> None:
        self._control = control

    def keep(self, name: str, seconds: float) -> KeptLease:
        """A context that takes ``name`` and keeps it for as long as the block runs; falsy where another holds it."""
        return KeptLease(self, name, seconds)

    def take(self, name: str, holder: str, seconds: float) -> Lease:
        """Take, or by the same holder prolong, the right to do ``name``; falsy where another holds it."""
        now = time.time()
        free = or_(LeaseRow.expires_at < now, LeaseRow.holder == holder)
        with self._control.writing() as connection:
            row = {"holder": holder, "expires_at": now + seconds}
            held = upsert(connection, LeaseRow, {"name": name}, row, only_where=free) > 0
        return Lease(self, name, holder, held)

    def prolong(self, name: str, holder: str, seconds: float) -> bool:
        """False where another took it meanwhile, also one that has given it back by now.

        One that ran out and that nobody took is still the holder's: nobody was at the work in between.
        """
        mine = update(LeaseRow).where(LeaseRow.name == name, LeaseRow.holder == holder)
        with self._control.writing() as connection:
            return connection.execute(mine.values(expires_at=time.time() + seconds)).rowcount > 0

    def release(self, name: str, holder: str) -> None:
        """Give back; nothing happens where another holds it by now."""
        with self._control.writing() as connection:
            connection.execute(delete(LeaseRow).where(LeaseRow.name == name, LeaseRow.holder == holder))

    def holder(self, name: str) -> str | None:
        """Who holds it now; None where nobody does."""
        query = select(LeaseRow.holder).where(LeaseRow.name == name, LeaseRow.expires_at >= time.time())
        with self._control.reading() as connection:
            return connection.scalar(query)
