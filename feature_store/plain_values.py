"""Lists of numbers that lie in a Parquet file as they lie in memory, looked at where they are.

The store writes its values uncompressed and plainly encoded, a row group a page (:mod:`feature_store.folder_log`).
Arrow decodes such a page number by number, since any of them could be null; that takes several times as long as to copy
it. What is read here is the same layout of the Parquet format, version 1 data pages: the page's header, the levels,
then the numbers. Whatever is not exactly so (another writer, a null, an empty list, two pages, lists of several
lengths) is left to Arrow.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, np.dtype[Any]] = {"DOUBLE": np.dtype("<f8"), "FLOAT": np.dtype("<f4")}
ENCODINGS = {"PLAIN", "RLE", "BIT_PACKED"}
"""Of numbers and of levels; numbers have no other than the first."""
LONGEST_HEADER = 256
DATA_PAGE = 0
KEPT_LEVELS = 100


class PlainFile:
    """A file in a folder, mapped. Thread-safe."""

    def __init__(self, path: str, metadata: Any) -> None:
        self._bytes = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # slices of a memmap cost more
        self._metadata = metadata
        names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        self._column = {name: i for i, name in enumerate(names)}

    def rows(self, group: int, column: str) -> NDArray[Any] | None:
        """Cells of a column of lists as (rows, length), not to be written to; None where Arrow has to read them."""
        of_group = self._metadata.row_group(group)
        number = self._column.get(f"{column}.list.element")
        if number is None or sys.byteorder != "little":
            return None
        chunk = of_group.column(number)
        kind = KINDS.get(chunk.physical_type)
        if kind is None or chunk.compression != "UNCOMPRESSED" or not set(chunk.encodings) <= ENCODINGS:
            return None
        begin, end = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
        if end > len(self._bytes):
            return None
        size = _page_size(self._bytes[begin : begin + LONGEST_HEADER].tobytes())
        if size is None or not 0 < end - begin - size <= LONGEST_HEADER:
            return None  # more than one page
        at = end - size
        repetition, at = self._section(at)
        _, at = self._section(at)
        if at + chunk.num_values * kind.itemsize != end:
            return None  # some entries have no number
        length = _length(repetition, chunk.num_values, of_group.num_rows)
        if length is None or length * of_group.num_rows != chunk.num_values:
            return None
        return self._bytes[at:end].view(kind).reshape(of_group.num_rows, length)

    def _section(self, at: int) -> tuple[bytes, int]:
        """Levels that begin with their length, and where they end."""
        size = int.from_bytes(self._bytes[at : at + 4].tobytes(), "little")
        return self._bytes[at + 4 : at + 4 + size].tobytes(), at + 4 + size


def _page_size(header: bytes) -> int | None:
    """Bytes after a data page's header (Thrift's compact protocol: its first fields are type and the two sizes)."""
    found, at = [], 0
    for _ in range(3):
        if header[at : at + 1] != b"\x15":  # the next field, a number
            return None
        number, at = _varint(header, at + 1)
        found.append((number >> 1) ^ -(number & 1))
    kind, plain, stored = found
    return stored if kind == DATA_PAGE and plain == stored else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return number, at


@lru_cache(KEPT_LEVELS)  # row groups of as many rows and values have the same
def _length(levels: bytes, entries: int, rows: int) -> int | None:
    """Length of every list by repetition levels of one bit (runs and packed bits); None where lists differ."""
    parts, at = [], 0
    while at < len(levels):
        head, at = _varint(levels, at)
        if head & 1:
            packed = np.frombuffer(levels, np.uint8, head >> 1, at)
            parts.append(np.unpackbits(packed, bitorder="little"))
            at += head >> 1
        else:
            parts.append(np.full(head >> 1, levels[at], np.uint8))
            at += 1
    level = np.concatenate(parts)[:entries] if parts else np.zeros(0, np.uint8)
    starts = np.flatnonzero(level == 0)
    if len(level) != entries or len(starts) != rows or entries % rows:
        return None
    return entries // rows if (np.diff(starts) == entries // rows).all() and starts[0] == 0 else None
