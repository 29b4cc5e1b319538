"""Files under the store's URI, kept once by the hash of their content.

Images and masks are named by the hash of their voxels and geometry, so the same image in another
file format is the same blob; artefacts and overlay pictures are named by the SHA-256 of their bytes and
checked when read.
A blob appears under its name whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from feature_store.errors import BlobCorrupt, NotFound, StoreError, UsageError
from feature_store.location import Location

FOLDER = "blobs"
SUFFIXES = {"images": ".nrrd", "masks": ".nrrd", "overlays": ".png", "artefacts": ""}
"""What is kept, and the suffix its files have: images and masks are canonical NRRD."""

NAMED_BY_BYTES = frozenset({"artefacts", "overlays"})
HASH = re.compile(r"^[0-9a-f]{16,128}$")


class Blobs:
    """Put, look for and read blobs of a kind (``images``, ``masks``, ``overlays``, ``artefacts``)."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def put_file(self, kind: str, path: Path, sha256: str | None = None) -> str:
        """Keep the file's bytes; returns the name: ``sha256`` if given (images, masks), else that of the bytes."""
        name = sha256 or _hash_of(path)
        with path.open("rb") as source:
            self._put(kind, name, source)
        return name

    def put_bytes(self, kind: str, data: bytes) -> str:
        """Keep ``data``; returns its SHA-256."""
        name = hashlib.sha256(data).hexdigest()
        self._put(kind, name, io.BytesIO(data))
        return name

    def has(self, kind: str, name: str) -> bool:
        """Whether the blob is kept."""
        return bool(self._files().get_file_info(_path(kind, name)).type == pafs.FileType.File)

    def names(self, kind: str) -> list[str]:
        """All blobs of a kind, sorted."""
        return sorted(self.written(kind))

    def written(self, kind: str) -> dict[str, float]:
        """All blobs of a kind, and when (seconds since 1970) each was put."""
        selector = pafs.FileSelector(kind, allow_not_found=True, recursive=True)
        files = [info for info in self._files().get_file_info(selector) if info.type == pafs.FileType.File]
        found = {info.base_name.removesuffix(SUFFIXES[kind]): info.mtime_ns / 1e9 for info in files}
        # what is half written begins with a dot
        return {name: at for name, at in found.items() if HASH.fullmatch(name)}

    def read_bytes(self, kind: str, name: str) -> bytes:
        """The whole blob. Raises NotFound, or BlobCorrupt where the bytes no longer have their hash."""
        data = self.local_path(kind, name).read_bytes()
        if kind in NAMED_BY_BYTES and hashlib.sha256(data).hexdigest() != name:
            raise BlobCorrupt(f"A blob of {kind} no longer has its hash.", action="Restore it from a backup.")
        return data

    def local_path(self, kind: str, name: str, suffix: str | None = None) -> Path:
        """A file on this machine to read: the stored one, or a cached copy of a remote one.

        Readers that go by the file's suffix get one with ``suffix`` (default: the kind's own). Raises NotFound.
        """
        inside = _path(kind, name)
        if not self.has(kind, name):
            raise NotFound(f"There is no such blob among {kind}.", action="Send the case again.")
        if self._location.folder is not None:
            stored = self._location.folder / FOLDER / inside
            if not suffix or stored.name.endswith(suffix):
                return stored
        cached = self._cache() / f"{inside.removesuffix(SUFFIXES[kind])}{suffix or SUFFIXES[kind]}"
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            part = cached.with_name(f".{uuid.uuid4().hex}.part")
            with self._files().open_input_stream(inside) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target)
            part.replace(cached)
        return cached

    def first_bytes(self, kind: str, name: str, count: int) -> bytes:
        """The beginning of a blob, without fetching the rest."""
        with self._files().open_input_stream(_path(kind, name), buffer_size=max(count, 64)) as source:
            return bytes(source.read(count))

    def written_at(self, kind: str, name: str) -> float | None:
        """When (seconds since 1970) the blob was put; None where there is none."""
        info = self._files().get_file_info(_path(kind, name))
        return None if info.type != pafs.FileType.File else info.mtime_ns / 1e9

    def remove(self, kind: str, name: str) -> bool:
        """Delete a blob, and this machine's copies of it; whether there was one. Only erasure does that."""
        inside = _path(kind, name)
        for cached in (self._cache() / inside).parent.glob(f"{name}*"):
            cached.unlink(missing_ok=True)
        if not self.has(kind, name):
            return False
        with contextlib.suppress(FileNotFoundError):  # another erasure was here
            self._files().delete_file(inside)
        return True

    def sweep_cache(self) -> int:
        """Delete this machine's copies of blobs that the store no longer has; returns how many."""
        swept = 0
        for kind in SUFFIXES:
            for cached in (self._cache() / kind).glob("*/*"):
                if not self.has(kind, cached.name.partition(".")[0]):
                    cached.unlink(missing_ok=True)
                    swept += 1
        return swept

    def sweep_unfinished(self, hours: float) -> int:
        """Delete what writers that were killed left half written, ``hours`` ago or earlier; returns how many.

        Object storage has none: an object appears when it is whole.
        """
        if self._location.folder is None:
            return 0
        swept = 0
        for part in (self._location.folder / FOLDER).glob("*/*/.*.part"):
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_mtime < time.time() - hours * 3600:
                    part.unlink()
                    swept += 1
        return swept

    def _put(self, kind: str, name: str, source: Any) -> None:
        path = _path(kind, name)
        files = self._files()
        if self.has(kind, name):
            return
        try:
            if self._location.folder is None:
                with files.open_output_stream(path) as target:  # an object appears when it is whole
                    shutil.copyfileobj(source, target)
                return
            final = self._location.folder / FOLDER / path
            final.parent.mkdir(parents=True, exist_ok=True)
            part = final.with_name(f".{uuid.uuid4().hex}.part")
            try:
                with part.open("wb") as target:
                    shutil.copyfileobj(source, target)
                    target.flush()
                    os.fsync(target.fileno())
                part.replace(final)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"A blob of {kind} could not be written ({type(error).__name__}).", action="Check space and rights."
            ) from error

    def _files(self) -> Any:
        return self._location.filesystem(FOLDER)

    def _cache(self) -> Path:
        root = os.environ.get("ASDEG_CACHE") or Path(tempfile.gettempdir()) / f"asdeg-cache-{os.getuid()}"
        return Path(root) / hashlib.sha256(self._location.uri.encode()).hexdigest()[:16]


def _path(kind: str, name: str) -> str:
    if kind not in SUFFIXES:
        raise UsageError(f"Blobs of kind {kind} are not kept.", action=f"Kinds: {', '.join(SUFFIXES)}.")
    if not HASH.fullmatch(name):
        raise UsageError("A blob's name is a hash in hex digits.", action="Give the content hash.")
    return f"{kind}/{name[:2]}/{name}{SUFFIXES[kind]}"


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
