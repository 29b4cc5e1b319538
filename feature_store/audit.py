"""The audit log: who did what to which case, when, and how it ended; rows chained by their hashes.

Each row's hash covers the row before it, so a row that was changed, removed or put in is found. The database
itself refuses to change or delete rows. What was cut off at the end is found by whoever kept an earlier
:class:`Head`, as ``asdeg audit verify`` prints it.

Patient and case (pseudonyms, as in the store) enter the hash through a salted hash of their own. Erasing a
patient forgets them and the salt: the row stays and the chain holds, and nobody can tell any more, not even by
trying pseudonyms, whom the row was about. What was forgotten is named by the row of the erasure.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.engine import Connection

from feature_store.control import ControlDatabase, Credential
from feature_store.control_tables import AuditRow
from feature_store.errors import AuditBroken, PatientErased, UsageError

START = "0" * 64
READ_ROWS = 2000
OK = "ok"
COVERED = (
    "previous",
    "number",
    "at_us",
    "name",
    "role",
    "of_site",
    "action",
    "site",
    "outcome",
    "details",
    "subject_hash",
)
"""What a row's hash covers, in this order: all but what may be forgotten, which has a hash of its own."""


@dataclass(frozen=True)
class Act:
    """One thing to be recorded. ``details`` are for programs; they never hold a patient's id or value.

    ``action`` is a short word: push, read, score, withdraw, erase, …; ``outcome`` is ``ok`` or an error's code.
    ``site``, ``patient_id``, ``case_id`` are of the case it was about, as far as it was about one.
    """

    action: str
    site: str | None = None
    patient_id: str | None = None
    case_id: str | None = None
    outcome: str = OK
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditEntry:
    """One row. ``forgotten``: whom it was about has been erased."""

    number: int
    at: datetime
    name: str
    role: str
    of_site: str | None
    action: str
    site: str | None
    patient_id: str | None
    case_id: str | None
    outcome: str
    details: dict[str, Any]
    forgotten: bool


@dataclass(frozen=True)
class Head:
    """The last row: its number and hash. Written down elsewhere, it shows later that nothing before it was cut."""

    number: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Head:
        """Of ``NUMBER:HASH``. Raises UsageError."""
        number, _, digest = text.partition(":")
        if not number.isdigit() or len(digest) != 64:
            raise UsageError("That is no head of an audit log.", action="Write NUMBER:HASH as `audit verify` says it.")
        return cls(int(number), digest)

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


class AuditLog:
    """Appends to the log and reads it. Any number of processes may do so at once."""

    def __init__(self, control: ControlDatabase) -> None:
        self._control = control

    def record(self, by: Credential, *acts: Act) -> Head:
        """Append a row an act, all of them or none; on disk when this returns."""
        with self._control.alone() as connection:
            return _append(connection, by, acts)

    def entries(
        self, *, site: str | None = None, patient_id: str | None = None, newest: int | None = None
    ) -> list[AuditEntry]:
        """Rows about a site (and patient), oldest first; only the ``newest`` so many."""
        query = select(AuditRow.__table__).order_by(AuditRow.number.desc())
        query = query if site is None else query.where(AuditRow.site == site)
        query = query if patient_id is None else query.where(AuditRow.patient_id == patient_id)
        with self._control.reading() as connection:
            rows = connection.execute(query if newest is None else query.limit(newest)).mappings().all()
        return [_entry(dict(row)) for row in reversed(rows)]

    def verify(self, kept: Head | None = None) -> Head:
        """Look at every row, and that ``kept`` is one of them; returns the last. Raises AuditBroken, naming the first
        row that does not hold."""
        last = Head(0, START)
        forgotten, allowed, seen = set[int](), set[int](), kept in (None, last)
        for row in self._rows():
            if row["number"] != last.number + 1 or row["previous"] != last.hash:
                raise _broken(last.number + 1, "is missing, or was put in")
            if row["hash"] != _row_hash(row):
                raise _broken(row["number"], "was changed")
            if row["subject_hash"] is not None and row["salt"] is None:
                forgotten.add(row["number"])
            elif row["subject_hash"] != _subject_hash(row["salt"], row["patient_id"], row["case_id"]):
                raise _broken(row["number"], "names another case than was recorded")
            allowed |= set(json.loads(row["details"]).get("forgotten_rows", ()))
            last = Head(row["number"], row["hash"])
            seen = seen or last == kept
        if unexplained := forgotten - allowed:
            raise _broken(min(unexplained), "names no case any more, and no erasure says why")
        if not seen:
            assert kept is not None
            raise _broken(kept.number, "is not what it was when that head was noted, or is gone")
        return last

    def forget(
        self, by: Credential, site: str, patient_id: str, case_ids: Collection[str] = (), **details: Any
    ) -> tuple[int, Head]:
        """Forget whom the rows about a patient are about, and record that; returns how many rows, and the new last one.

        Nothing is recorded where there is nothing to forget and no ``details`` are given.
        """
        about = or_(AuditRow.patient_id == patient_id, AuditRow.case_id.in_(sorted(case_ids)))
        with self._control.alone() as connection:
            query = select(AuditRow.number).where(AuditRow.site == site, about).order_by(AuditRow.number)
            numbers = list(connection.scalars(query))
            if not numbers and not details:
                return 0, _head(connection)
            for start in range(0, len(numbers), 500):
                some = AuditRow.number.in_(numbers[start : start + 500])
                connection.execute(update(AuditRow).where(some).values(patient_id=None, case_id=None, salt=None))
            act = Act("erase", site=site, details={**details, "forgotten_rows": numbers})
            return len(numbers), _append(connection, by, [act])

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        last = 0
        while True:
            query = select(AuditRow.__table__).where(AuditRow.number > last).order_by(AuditRow.number)
            with self._control.reading() as connection:
                rows = connection.execute(query.limit(READ_ROWS)).mappings().all()
            if not rows:
                return
            yield from map(dict, rows)
            last = rows[-1]["number"]


def _append(connection: Connection, by: Credential, acts: Sequence[Act]) -> Head:
    head = _head(connection)
    for act in acts:
        if act.outcome == PatientErased.__name__:  # whom the refused push was about is not kept either
            act = replace(act, patient_id=None, case_id=None)
        about = act.patient_id is not None or act.case_id is not None
        salt = secrets.token_hex(16) if about else None
        row: dict[str, Any] = {
            "number": head.number + 1,
            "at_us": time.time_ns() // 1000,
            "name": by.name,
            "role": by.role,
            "of_site": by.site,
            "action": act.action,
            "site": act.site,
            "patient_id": act.patient_id,
            "case_id": act.case_id,
            "salt": salt,
            "outcome": act.outcome,
            "details": json.dumps(dict(act.details), sort_keys=True),
            "subject_hash": _subject_hash(salt, act.patient_id, act.case_id),
            "previous": head.hash,
        }
        row["hash"] = _row_hash(row)
        connection.execute(AuditRow.__table__.insert().values(row))  # type: ignore[attr-defined]
        head = Head(row["number"], row["hash"])
    return head


def _head(connection: Connection) -> Head:
    query = select(AuditRow.number, AuditRow.hash).order_by(AuditRow.number.desc()).limit(1)
    row = connection.execute(query).first()
    return Head(0, START) if row is None else Head(*row)


def _subject_hash(salt: str | None, patient_id: str | None, case_id: str | None) -> str | None:
    return None if salt is None else _hash([salt, patient_id, case_id])


def _row_hash(row: Mapping[str, Any]) -> str:
    return _hash([row[name] for name in COVERED])


def _hash(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=True).encode()).hexdigest()


def _entry(row: Mapping[str, Any]) -> AuditEntry:
    same = ["number", "name", "role", "of_site", "action", "site", "patient_id", "case_id", "outcome"]
    return AuditEntry(
        **{name: row[name] for name in same},
        at=datetime.fromtimestamp(row["at_us"] / 1e6, UTC),
        details=json.loads(row["details"]),
        forgotten=row["subject_hash"] is not None and row["salt"] is None,
    )


def _broken(number: int, what: str) -> AuditBroken:
    return AuditBroken(
        f"Row {number} of the audit log {what}.", action="Compare with a backup of the control database."
    )
