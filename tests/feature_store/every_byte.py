"""Looks for a patient in every byte under a store's address: raw, unpacked, and as numbers in columns."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from feature_store.location import Location


@dataclass(frozen=True)
class Marks:
    """What nothing may be left of: texts, numbers (float64 or float32), voxels (their bytes)."""

    texts: tuple[str, ...]
    numbers: tuple[float, ...]
    voxels: bytes

    def found_in(self, data: bytes) -> set[str]:
        """Which of them ``data`` has, as it is."""
        found = {text for text in self.texts if text.encode() in data}
        for number in self.numbers:
            if struct.pack("<d", number) in data or struct.pack("<f", number) in data or repr(number).encode() in data:
                found.add(repr(number))
        return found | ({"voxels"} if self.voxels in data else set())


def look(uri: str, marks: Marks) -> dict[str, set[str]]:
    """Paths under the address, with what of ``marks`` is in each."""
    files = Location.parse(uri).filesystem()
    found = {}
    for info in files.get_file_info(pafs.FileSelector("", recursive=True)):
        if info.type == pafs.FileType.File:
            with files.open_input_stream(info.path, compression=None) as source:
                data = source.read()
            if here := marks.found_in(data) | _unpacked(data, marks):
                found[info.path] = here
    return found


def _unpacked(data: bytes, marks: Marks) -> set[str]:
    found: set[str] = set()
    start = data.find(b"\x1f\x8b")  # gzip, as NRRD has it behind its header
    while start >= 0:
        with contextlib.suppress(zlib.error):
            found |= marks.found_in(zlib.decompressobj(31).decompress(data[start:]))
        start = data.find(b"\x1f\x8b", start + 1)
    if data[:4] == b"PAR1":
        try:
            table = pq.read_table(io.BytesIO(data))
        except pa.ArrowInvalid:  # never written to its end: its pages cannot be found
            return found | {"unreadable"}
        for column in table.columns:
            cells = column.combine_chunks()
            while pa.types.is_list(cells.type):
                cells = cells.flatten()
            if pa.types.is_floating(cells.type):
                numbers = np.asarray(cells)
                found |= {repr(n) for n in marks.numbers if n in numbers or np.float32(n) in numbers}
            else:
                found |= marks.found_in("\n".join(map(str, cells.to_pylist())).encode())
    return found
