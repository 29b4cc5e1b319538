"""A case folder as a tar archive that is never made: any part of it can be read, and the same folder gives the same."""

from __future__ import annotations

import hashlib
import tarfile
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

from feature_store.errors import UsageError

TOP = "case"
BLOCK = 1 << 20


class CaseArchive:
    """Plain files below ``folder``, sorted, without times and owners; ``replaced`` has other contents for some.

    Raises UsageError where there is none, or, while it is read, where a file changes.
    """

    def __init__(self, folder: Path, replaced: dict[str, bytes] | None = None) -> None:
        self._parts: list[bytes | Path] = []
        self._starts: list[int] = []
        self.size = 0
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            content: bytes | Path = (replaced or {}).get(name, path)
            info = tarfile.TarInfo(f"{TOP}/{name}")
            info.size = path.stat().st_size if isinstance(content, Path) else len(content)
            self._add(info.tobuf(tarfile.PAX_FORMAT))
            self._add(content, info.size)
            self._add(bytes(-info.size % tarfile.BLOCKSIZE))
        if not self._parts:
            raise UsageError("That folder holds no file.", action="Give a case folder (one with a case.yaml).")
        self._add(bytes(2 * tarfile.BLOCKSIZE))

    def _add(self, part: bytes | Path, size: int | None = None) -> None:
        size = len(part) if isinstance(part, bytes) else size or 0
        if size:
            self._parts.append(part)
            self._starts.append(self.size)
            self.size += size

    def read(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset`` on."""
        found = bytearray()
        end = min(self.size, offset + count)
        at = bisect_right(self._starts, offset) - 1
        while offset + len(found) < end:
            here = offset + len(found)
            start, part = self._starts[at], self._parts[at]
            over = (self._starts[at + 1] if at + 1 < len(self._starts) else self.size) - start
            wanted = min(end - here, over - (here - start))
            if isinstance(part, bytes):
                found += part[here - start : here - start + wanted]
            else:
                found += _read(part, here - start, wanted)
            at += 1
        return bytes(found)

    def sha256(self, progress: Callable[[int], None] = lambda done: None) -> str:
        """Of the whole, in hex digits; ``progress(bytes looked at)`` meanwhile."""
        digest = hashlib.sha256()
        for offset in range(0, self.size, BLOCK):
            digest.update(self.read(offset, BLOCK))
            progress(min(offset + BLOCK, self.size))
        return digest.hexdigest()


def _read(path: Path, offset: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(count)
    if len(data) < count:
        raise UsageError("A file of the case became shorter while it was sent.", action="Send it again.")
    return data
