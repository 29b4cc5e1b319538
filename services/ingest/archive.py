"""A case folder out of an uploaded archive, without trusting a byte of it.

``.zip``, ``.tar`` and ``.tar.gz``, told apart by their first bytes. Only plain files and folders come out, each
below the target; sizes are counted as they are unpacked, never believed from a header.
"""

from __future__ import annotations

import errno
import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from feature_store.errors import ArchiveError, ArchiveTooLarge, StoreError

CHUNK = 1 << 20
MANIFEST = "case.yaml"
OUR_FAULT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)
"""What no archive brings about."""


@dataclass(frozen=True)
class Limits:
    """What an upload may hold at most, in bytes and files."""

    packed: int
    unpacked: int
    entries: int


def unpack_case(archive: Path, target: Path, limits: Limits) -> Path:
    """Unpack an archive into the empty folder ``target`` and return the case folder in it.

    The case folder is where ``case.yaml`` lies: the archive's root or its one top folder.
    Raises ArchiveError for anything but plain files below the target, a broken or encrypted archive, or not
    exactly one case; ArchiveTooLarge over a limit.
    """
    try:
        with archive.open("rb") as stream:
            _write(_members(stream, limits), target, limits)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError):
        raise ArchiveError("The archive is broken or cut short.", action="Pack it again and send it again.") from None
    return case_folder(target)


def _members(stream: BinaryIO, limits: Limits) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each plain file."""
    magic = stream.read(4)
    stream.seek(0)
    if magic[:2] == b"PK":
        yield from _zip_members(stream, limits)
    elif magic[:2] == b"\x1f\x8b":
        # A gzip stream names no size: whatever is read from it, headers included, is bounded.
        with gzip.GzipFile(fileobj=stream) as unzipped:
            yield from _tar_members(
                _Bounded(cast(IO[bytes], unzipped), limits.unpacked + limits.entries * 4 * tarfile.BLOCKSIZE)
            )
    elif tarfile.is_tarfile(stream):
        stream.seek(0)
        yield from _tar_members(_Bounded(stream, limits.packed))
    else:
        raise ArchiveError(
            "The upload is neither zip nor tar.", action="Send a .zip, .tar or .tar.gz of a case folder."
        )


def _zip_members(stream: BinaryIO, limits: Limits) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        _check_entries(len(infos), limits)
        for info in infos:
            if info.flag_bits & 0x1:
                raise ArchiveError("The archive is encrypted.", action="Send it without a password.")
            kind = (info.external_attr >> 16) & 0o170000
            if kind not in (0, 0o100000, 0o040000):
                raise _not_plain()
            if not info.is_dir():
                with archive.open(info) as content:
                    yield info.filename, content


def _tar_members(stream: _Bounded) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise _not_plain()
            content = archive.extractfile(member)
            if content is None:  # pragma: no cover - only for links, which are refused above
                raise _not_plain()
            yield member.name, content
            archive.members = []  # type: ignore[attr-defined]  # a million names are not kept
    # tarfile takes a header that is cut short or broken for the end; half a case must not pass for a whole one.
    if stream.last != bytes(tarfile.BLOCKSIZE):
        raise EOFError


def _write(members: Iterator[tuple[str, IO[bytes]]], target: Path, limits: Limits) -> None:
    left = limits.unpacked
    for count, (name, content) in enumerate(members, start=1):
        _check_entries(count, limits)
        path = target / _safe(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                while chunk := content.read(CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        raise ArchiveTooLarge(
                            f"The upload unpacks to more than {limits.unpacked >> 20} MB.",
                            action="Send one case at a time, or raise ASDEG_UNPACKED_LIMIT_MB.",
                        )
                    file.write(chunk)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise ArchiveError("Two entries of the archive have the same name.", action="Pack it again.") from None
        except (RuntimeError, OSError) as error:
            if isinstance(error, (gzip.BadGzipFile, zipfile.BadZipFile)):
                raise
            if isinstance(error, OSError) and error.errno in OUR_FAULT:
                raise StoreError("The inbox cannot be written.", action="Check its space and rights.") from error
            raise ArchiveError(
                "An entry of the archive cannot be written as a file.", action="Use short, plain file names."
            ) from None


def _safe(name: str) -> PurePosixPath:
    """The entry's path below the target; ArchiveError for one that points elsewhere."""
    path = PurePosixPath(name)
    bad = "\\" in name or ":" in name or any(ord(letter) < 32 for letter in name)
    if bad or path.is_absolute() or ".." in path.parts or not path.parts:
        raise ArchiveError(
            "An entry of the archive has a path that leads out of it.", action="Pack the case folder by itself."
        )
    return path


def case_folder(target: Path) -> Path:
    """Where the one ``case.yaml`` of an unpacked archive lies. Raises ArchiveError."""
    manifests = [path for path in (target / MANIFEST, *sorted(target.glob(f"*/{MANIFEST}"))) if path.is_file()]
    if len(manifests) != 1:
        found = "no case.yaml" if not manifests else f"{len(manifests)} case.yaml"
        raise ArchiveError(
            f"The archive has {found} at its top.", action="Send one case folder per upload, with its case.yaml."
        )
    return manifests[0].parent


def _check_entries(count: int, limits: Limits) -> None:
    if count > limits.entries:
        raise ArchiveTooLarge(
            f"The archive has more than {limits.entries} entries.",
            action="Send one case, or raise ASDEG_UPLOAD_ENTRIES.",
        )


def _not_plain() -> ArchiveError:
    return ArchiveError("The archive holds a link or a device.", action="Pack plain files and folders only.")


class _Bounded(io.RawIOBase):
    """A readable stream that refuses to go past a bound, and to hand out much at once.

    tarfile reads a header of whatever size the archive claims into memory; here it cannot.
    """

    def __init__(self, inner: IO[bytes], bound: int) -> None:
        self.inner, self.bound = inner, bound
        self.last = b""
        """What was read last."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.inner.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > self.bound + tarfile.RECORDSIZE:
            raise self._over()
        return self.inner.seek(offset)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > 8 * CHUNK:
            raise ArchiveError("The archive has a header of absurd size.", action="Pack it with a usual tar.")
        data = self.last = self.inner.read(size)
        if self.inner.tell() > self.bound + tarfile.RECORDSIZE:
            raise self._over()
        return data

    def _over(self) -> ArchiveTooLarge:
        return ArchiveTooLarge("The upload unpacks to more than the limit.", action="Send one case at a time.")
