"""The numbered files of a table's log: whom they name, and taking that out of them.

Each is read once in a search: it only ever changes by being struck out, and that only loses what it said.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

import pyarrow.fs as pafs

LOG = "_delta_log"
PLANNED = "predicate"
"""In a commit's description: the condition of a deletion, which names the patient."""


class Bounded(Protocol):
    """What is looked for."""

    def bounds(self, stats: str | None) -> bool:
        """Whether what the log keeps of a file has it."""
        ...


@dataclass(frozen=True)
class Commit:
    """What one says: the files it adds, which of them with bounds, which with bounds that have what is looked for; and
    whether it has the condition of a deletion."""

    added: frozenset[str] = frozenset()
    bounded: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()
    planned: bool = False

    def has(self, current: set[str]) -> bool:
        """Whether it has what is looked for. Bounds of a file that is the table's come from rows, looked at there."""
        return self.planned or not self.wanted <= current


class Commits:
    """Of one table, for one search; ``files`` is the table's folder."""

    def __init__(self, files: Any, wanted: Bounded) -> None:
        self._files, self._wanted = files, wanted
        self._read: dict[str, Commit] = {}

    def of(self, path: str) -> Commit:
        """One of them; one that is gone by now says nothing. Raises ValueError for what is no commit."""
        if path not in self._read:
            self._read[path] = self._commit(_lines(self._files, path))
        return self._read[path]

    def strike_out(self, path: str, current: set[str]) -> bool:
        """Take bounds of files that are gone, and the condition of a deletion, out of one; whether it had any."""
        commit = self.of(path)
        if commit.bounded <= current and not commit.planned:
            return False
        lines = _lines(self._files, path)
        for line in lines:
            if "add" in line and unquote(line["add"]["path"]) not in current:
                line["add"].pop("stats", None)
            line.get("commitInfo", {}).get("operationParameters", {}).pop(PLANNED, None)
        text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
        _replace(self._files, path, text.encode())
        self._read[path] = self._commit(lines)
        return True

    def _commit(self, lines: list[dict[str, Any]]) -> Commit:
        adds = [(unquote(line["add"]["path"]), line["add"].get("stats")) for line in lines if "add" in line]
        return Commit(
            added=frozenset(path for path, _ in adds),
            bounded=frozenset(path for path, stats in adds if stats is not None),
            wanted=frozenset(path for path, stats in adds if self._wanted.bounds(stats)),
            planned=any(PLANNED in line.get("commitInfo", {}).get("operationParameters", {}) for line in lines),
        )


def _lines(files: Any, path: str) -> list[dict[str, Any]]:
    try:
        with files.open_input_stream(path) as source:
            return [json.loads(line) for line in source.read().decode().splitlines() if line]
    except FileNotFoundError:
        return []


def _replace(files: Any, path: str, data: bytes) -> None:
    """Whole or not at all, for whoever reads it meanwhile; an object is so by itself."""
    local = isinstance(files.base_fs, pafs.LocalFileSystem)
    written = f"{LOG}/_struck_{uuid.uuid4()}.json.tmp" if local else path
    with files.open_output_stream(written) as target:
        target.write(data)
    if local:
        files.move(written, path)
