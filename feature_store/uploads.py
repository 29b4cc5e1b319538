"""Uploads on their way, in the control database: how much of each is kept, and what became of it.

An upload is ``open`` while bytes come, ``complete`` when all are there, ``received`` once its sender has been
told which case it is (from then on it is never lost), and ends as ``done`` or ``refused``. The bytes lie in the
inbox; what counts as held is what stands here.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from feature_store.control import ControlDatabase
from feature_store.control_tables import UploadRow
from feature_store.errors import Conflict, NotFound, TooMuchAtOnce

OPEN, COMPLETE, RECEIVED, DONE, REFUSED = "open", "complete", "received", "done", "refused"
IN_THE_INBOX = (OPEN, COMPLETE, RECEIVED)


@dataclass(frozen=True)
class Upload:
    """One upload. ``length`` is None where its sender has not said it; ``held`` bytes are on disk for certain.

    ``sha256`` is what the sender declared, later that of the bytes. ``answer`` is the case's receipt, or the error;
    ``holds`` names what the store held of the case when it was done; ``size`` is what it takes unpacked. Times are
    seconds since 1970.
    """

    upload_id: str
    site: str
    sender: str
    state: str
    length: int | None
    held: int
    sha256: str | None
    case_id: str | None
    answer: Mapping[str, Any] | None
    holds: str | None
    size: int | None
    attempts: int
    accepted_at: float | None
    created_at: float
    changed_at: float


class UploadBook:
    """Reads and writes the table ``uploads``. Shared by threads and processes."""

    def __init__(self, control: ControlDatabase) -> None:
        self._control = control

    def create(self, site: str, sender: str, length: int | None, sha256: str | None, quota: int) -> Upload:
        """A new, open upload. Raises TooMuchAtOnce where the site's uploads would take more than ``quota`` bytes."""
        now = time.time()
        upload = Upload(
            upload_id=secrets.token_hex(16),
            site=site,
            sender=sender,
            state=OPEN,
            length=length,
            held=0,
            sha256=sha256,
            case_id=None,
            answer=None,
            holds=None,
            size=None,
            attempts=0,
            accepted_at=None,
            created_at=now,
            changed_at=now,
        )
        with self._control.alone() as connection:
            _check((connection.scalar(_taken(site)) or 0) + (length or 0), quota)
            connection.execute(insert(UploadRow).values(vars(upload)))
        return upload

    def check_quota(self, site: str, quota: int) -> None:
        """Raises TooMuchAtOnce where the site's uploads take more than ``quota`` bytes."""
        with self._control.reading() as connection:
            _check(connection.scalar(_taken(site)) or 0, quota)

    def get(self, upload_id: str, site: str | None = None) -> Upload:
        """Raises NotFound where there is none (of that site)."""
        query = select(UploadRow.__table__).where(UploadRow.upload_id == upload_id)
        found = self._all(query if site is None else query.where(UploadRow.site == site))
        if not found:
            raise NotFound("There is no such upload.", action="Begin a new one with POST /v1/cases/uploads.")
        return found[0]

    def advance(self, upload: Upload, held: int) -> Upload:
        """``held`` bytes are on disk now. Raises Conflict where somebody else wrote in between."""
        return self._change(upload, UploadRow.held == upload.held, held=held)

    def complete(self, upload: Upload, sha256: str | None = None) -> Upload:
        """All bytes are there."""
        return self._change(upload, length=upload.held, state=COMPLETE, sha256=sha256 or upload.sha256)

    def accept(self, upload: Upload, case_id: str, sha256: str, size: int) -> Upload:
        """Its sender will be told the case; from now on it has to be carried out. It takes ``size`` bytes."""
        now = time.time()
        return self._change(upload, state=RECEIVED, case_id=case_id, sha256=sha256, size=size, accepted_at=now)

    def try_again(self, upload: Upload, attempts: int) -> Upload:
        """Count an attempt to carry it out, before it is made."""
        return self._change(upload, attempts=attempts)

    def finish(self, upload: Upload, state: str, answer: Mapping[str, Any], holds: str | None = None) -> Upload:
        """It is done or refused; its bytes may go."""
        return self._change(upload, state=state, answer=dict(answer), holds=holds)

    def join(self, upload: Upload, other: Upload) -> Upload:
        """The same bytes are here already as ``other``: this one ends as that one does."""
        return self._change(upload, state=DONE, case_id=other.case_id, sha256=other.sha256, answer=other.answer)

    def remove(self, upload_id: str) -> None:
        """Forget one that never became a case."""
        with self._control.writing() as connection:
            connection.execute(delete(UploadRow).where(UploadRow.upload_id == upload_id))

    def same_bytes(self, site: str, sha256: str) -> Upload | None:
        """The site's newest accepted upload of those bytes."""
        query = select(UploadRow.__table__).where(
            UploadRow.site == site, UploadRow.sha256 == sha256, UploadRow.accepted_at.is_not(None)
        )
        found = self._all(query.order_by(UploadRow.accepted_at.desc()).limit(1))
        return found[0] if found else None

    def unfinished(self, site: str, sha256: str, length: int) -> Upload | None:
        """The site's open upload that was declared to become those bytes, to go on with."""
        query = select(UploadRow.__table__).where(
            UploadRow.site == site, UploadRow.sha256 == sha256, UploadRow.state == OPEN, UploadRow.length == length
        )
        found = self._all(query.order_by(UploadRow.held.desc()).limit(1))
        return found[0] if found else None

    def of_case(self, case_id: str) -> Upload | None:
        """The newest accepted upload of a case."""
        query = select(UploadRow.__table__).where(UploadRow.case_id == case_id, UploadRow.accepted_at.is_not(None))
        found = self._all(query.order_by(UploadRow.accepted_at.desc()).limit(1))
        return found[0] if found else None

    def in_state(self, state: str, case_id: str | None = None) -> list[Upload]:
        """In the order they were accepted, or begun."""
        query = select(UploadRow.__table__).where(UploadRow.state == state)
        query = query if case_id is None else query.where(UploadRow.case_id == case_id)
        return self._all(query.order_by(UploadRow.accepted_at, UploadRow.created_at))

    def waiting(self, cases: Collection[str] | None = None) -> set[str]:
        """Ids of the cases (among those) that have an upload still to be carried out."""
        query = select(UploadRow.case_id).where(UploadRow.state == RECEIVED).distinct()
        query = query if cases is None or len(cases) > 500 else query.where(UploadRow.case_id.in_(sorted(cases)))
        with self._control.reading() as connection:
            return {str(case_id) for case_id in connection.scalars(query)}

    def expired(self, before: float) -> list[Upload]:
        """Uploads that nobody has gone on with since, and those that were refused before."""
        over = UploadRow.state.in_((OPEN, REFUSED))
        return self._all(select(UploadRow.__table__).where(over, UploadRow.changed_at < before))

    def in_the_inbox(self) -> set[str]:
        """Ids of the uploads whose files are needed."""
        with self._control.reading() as connection:
            query = select(UploadRow.upload_id).where(UploadRow.state.in_(IN_THE_INBOX))
            return set(connection.scalars(query))

    def _change(self, upload: Upload, *only: Any, **values: Any) -> Upload:
        values["changed_at"] = time.time()
        mine = (UploadRow.upload_id == upload.upload_id, UploadRow.state == upload.state, *only)
        with self._control.writing() as connection:
            changed = connection.execute(update(UploadRow).where(*mine).values(values)).rowcount
        if not changed:
            raise Conflict("Another request changed this upload.", action="Ask for its offset, and go on from there.")
        return Upload(**{**vars(upload), **values})

    def _all(self, query: Any) -> list[Upload]:
        with self._control.reading() as connection:
            return [Upload(**row) for row in connection.execute(query).mappings()]


def _check(size: int, quota: int) -> None:
    if size > quota:
        raise TooMuchAtOnce(
            f"This site's uploads under way would take more than {quota >> 20} MB.",
            action="Wait until earlier ones are done, or end them; the limit is ASDEG_SITE_QUOTA_MB.",
        )


def _taken(site: str) -> Any:
    """Bytes that a site's uploads take, or will."""
    size = func.coalesce(UploadRow.size, UploadRow.length, UploadRow.held)
    query = select(func.coalesce(func.sum(size), 0))
    return query.where(UploadRow.site == site, UploadRow.state.in_(IN_THE_INBOX))
