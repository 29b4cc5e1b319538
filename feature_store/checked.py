"""What a check found: promise by promise, and what the next one may take over because files never change."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from feature_store.location import Location

FILE = "checked.json"
"""At the store's address. It names files, pushes and erasures, and nobody; a backup has none until it is checked."""


@dataclass(frozen=True)
class Promise:
    """One promise: how many things were looked at, how many broke it, and how many an earlier check answers for."""

    promise: str
    table: str
    looked_at: int
    broken: int
    taken_over: int = 0


@dataclass(frozen=True)
class Checked:
    """What kept every promise at push ``sequence``; a table that broke one is not in it.

    ``files``: by table every file it had, and whether each of its rows was of a push by then (else the file is read
    again). ``erasures``: those that were finished. ``blobs_read_at``: seconds since 1970 when a check began that read
    every blob written by then, or those since such a one; None where none did.
    """

    sequence: int
    checked_at: float
    files: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    erasures: tuple[str, ...] = ()
    blobs_read_at: float | None = None


def read_checked(location: Location) -> Checked | None:
    """What the last check wrote; None where there is nothing that can be read."""
    try:
        with location.filesystem().open_input_stream(FILE) as source:
            said = json.loads(source.read())
        return Checked(**{**said, "erasures": tuple(said["erasures"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_checked(location: Location, checked: Checked) -> None:
    """Keep it, whole or not at all. Where nothing can be written, the next check takes over what it did before."""
    text = json.dumps(asdict(checked)).encode()
    with contextlib.suppress(OSError):
        if location.folder is None:
            with location.filesystem().open_output_stream(FILE) as target:
                target.write(text)
            return
        part = location.folder / f".{uuid.uuid4().hex}.part"
        part.write_bytes(text)
        part.replace(location.folder / FILE)
