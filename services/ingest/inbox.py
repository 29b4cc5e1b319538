"""Uploads on disk: a folder each, that outlives the process and that several replicas may share.

Bytes are appended at an offset and count once they are synced and the control database says so: what a killed
server had written beyond that is written over. One request at a time appends to an upload; it holds a lease that
it prolongs only as bytes arrive, so that a dead connection does not keep the next one out for long.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from feature_store.control import ControlDatabase
from feature_store.errors import ArchiveError, ArchiveTooLarge, ChecksumMismatch, Conflict, StoreError
from feature_store.leases import Lease, Leases
from feature_store.uploads import OPEN, Upload, UploadBook
from services.ingest.archive import Limits

BUFFER = 4 << 20
COMMIT_BYTES = 64 << 20
"""A kill costs at most this much of what had arrived."""
LEASE_S, PROLONG_S = 15.0, 5.0
HASHES = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}


@dataclass(frozen=True)
class Checksum:
    """Of the bytes of one request; ``algorithm`` is one of HASHES."""

    algorithm: str
    digest: bytes


class Inbox:
    """Begins uploads, appends to them, and clears away what nobody goes on with. Shared by threads."""

    def __init__(self, folder: Path, control: ControlDatabase, limits: Limits, quota: int, hours: float) -> None:
        """``quota``: bytes one site's uploads may take at once; ``hours``: how long an unfinished one is kept."""
        self.folder, self.limits, self.quota, self.hours = folder, limits, quota, hours
        self.book = UploadBook(control)
        self._leases = Leases(control)

    def begin(self, site: str, sender: str, length: int | None = None, sha256: str | None = None) -> Upload:
        """A new upload; or the site's own unfinished one, where it is declared to become the same bytes.

        Raises ArchiveTooLarge, or TooMuchAtOnce where the site has too much under way.
        """
        if length is not None and length > self.limits.packed:
            raise self._too_large()
        if sha256 is not None and length is not None and (found := self.book.unfinished(site, sha256, length)):
            return found
        upload = self.book.create(site, sender, length, sha256, self.quota)
        try:
            self.of(upload).mkdir(parents=True, mode=0o700)
        except OSError as error:
            self.book.remove(upload.upload_id)
            raise _no_room(error) from error
        return upload

    def of(self, upload: Upload) -> Path:
        """The upload's own folder."""
        return self.folder / upload.upload_id

    def packed(self, upload: Upload) -> Path:
        """The bytes as they came."""
        return self.of(upload) / "packed"

    async def append(self, upload: Upload, chunks: AsyncIterator[bytes], checksum: Checksum | None = None) -> Upload:
        """Append what comes, from ``upload.held`` on; with a checksum all of it or nothing.

        Without one, what had arrived when the connection broke is kept (ClientDisconnect is raised all the same).
        Raises Conflict where another request is appending, ChecksumMismatch, ArchiveTooLarge past the length.
        """
        lease = await run_in_threadpool(self._lease, upload)
        writer = await run_in_threadpool(_Writer, self, upload, lease, checksum)
        try:
            try:
                async for chunk in chunks:
                    if writer.take(chunk):
                        await run_in_threadpool(writer.flush)
            except ClientDisconnect:
                if checksum is None:
                    await run_in_threadpool(writer.commit)
                raise
            await run_in_threadpool(writer.end)
            return writer.upload
        finally:
            await run_in_threadpool(writer.close)

    def discard(self, upload: Upload) -> None:
        """Its files go."""
        shutil.rmtree(self.of(upload), ignore_errors=True)

    def sweep(self) -> int:
        """Uploads that nobody went on with, and folders that belong to none, go; returns how many."""
        gone = self.book.expired(time.time() - self.hours * 3600)
        for upload in gone:
            self.book.remove(upload.upload_id)
        # A folder is made after its upload is on record: one that is not by now belongs to none (any more).
        names = {one.name for one in self.folder.glob("*")}
        for name in names - self.book.in_the_inbox():
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return len(gone)

    def prolong(self, upload: Upload, holder: str) -> Lease:
        """The right to append, for a few more seconds. Raises Conflict where another request has it."""
        lease = self._leases.take(f"upload:{upload.upload_id}", holder, LEASE_S)
        if not lease:
            raise Conflict(
                "Another request is sending to this upload.", action="Ask for its offset in a few seconds, and go on."
            )
        return lease

    def check_quota(self, upload: Upload) -> None:
        """For an upload that never said how long it will be. Raises TooMuchAtOnce."""
        self.book.check_quota(upload.site, self.quota)

    def _lease(self, upload: Upload) -> tuple[str, Lease]:
        holder = secrets.token_hex(8)
        return holder, self.prolong(upload, holder)

    def _too_large(self) -> ArchiveTooLarge:
        return ArchiveTooLarge(
            f"The upload is larger than {self.limits.packed >> 20} MB.",
            action="Send one case per upload, or raise ASDEG_UPLOAD_LIMIT_MB.",
        )


class _Writer:
    """One request's bytes on their way to disk."""

    def __init__(self, inbox: Inbox, upload: Upload, lease: tuple[str, Lease], checksum: Checksum | None) -> None:
        self._inbox, self._checksum = inbox, checksum
        self._holder, self._lease = lease
        self._buffer = bytearray()
        self._hash = HASHES[checksum.algorithm]() if checksum else None
        self._renewed = time.monotonic()
        self._file: BinaryIO | None = None
        try:
            # As it stands now that nobody else may change it.
            self.upload = inbox.book.get(upload.upload_id)
            if self.upload.held != upload.held or self.upload.state != OPEN:
                raise Conflict(
                    "The offset is not where the upload ends.", action="Ask for its offset, and go on there."
                )
            self._at = self.upload.held
            self._most = inbox.limits.packed if self.upload.length is None else self.upload.length
            self._file = os.fdopen(os.open(inbox.packed(upload), os.O_RDWR | os.O_CREAT, 0o600), "r+b")
            self._file.seek(self._at)
            self._file.truncate()
        except OSError as error:
            self.close()
            raise _no_room(error) from error
        except BaseException:
            self.close()
            raise

    def take(self, chunk: bytes) -> bool:
        """Keep a chunk for later; whether it is time to flush."""
        self._buffer += chunk
        if self._at + len(self._buffer) > self._most:
            if self.upload.length is None:
                raise self._inbox._too_large()
            raise ArchiveError("More came than was announced.", action="Announce the upload's whole length.")
        return len(self._buffer) >= BUFFER

    def flush(self) -> None:
        assert self._file is not None
        if time.monotonic() - self._renewed > PROLONG_S:
            self._inbox.prolong(self.upload, self._holder)
            self._renewed = time.monotonic()
        try:
            self._file.write(self._buffer)
        except OSError as error:
            raise _no_room(error) from error
        if self._hash is not None:
            self._hash.update(self._buffer)
        self._at += len(self._buffer)
        self._buffer.clear()
        if self._checksum is None and self._at - self.upload.held >= COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        """What is written counts from now on."""
        assert self._file is not None
        if self._buffer:
            self.flush()
        if self._at == self.upload.held:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _no_room(error) from error
        self.upload = self._inbox.book.advance(self.upload, self._at)
        if self.upload.length is None:
            self._inbox.check_quota(self.upload)

    def end(self) -> None:
        if self._buffer:
            self.flush()
        if self._checksum is not None and self._hash is not None and self._hash.digest() != self._checksum.digest:
            raise ChecksumMismatch("The checksum of what came is another one.", action="Send that part again.")
        self.commit()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._lease.release()


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def on_disk(folder: Path) -> int:
    """Sync every file below a folder to disk; returns their bytes in all."""
    size = 0
    for path in (folder, *_below(folder)):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        size += path.stat().st_size if path.is_file() else 0
    return size


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_symlink())


def _no_room(error: OSError) -> StoreError:
    return StoreError(f"The inbox cannot be written ({type(error).__name__}).", action="Check its space and rights.")
