"""The two things about a NIfTI file that its reader keeps to itself.

A file that is cut short is filled up with zeros, and NaN and infinite voxels become zeros, both silently. So
the header's sizes and the raw floating-point voxels are looked at here.
"""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

_SIZE_OF_HEADER = {1: 348, 2: 540}
_FLOATS = {16: "f4", 64: "f8"}
_CHUNK = 2**22


@dataclass(frozen=True)
class NiftiHeader:
    """What of a NIfTI-1 or -2 header says how long the file must be. ``order`` is ``<`` or ``>``."""

    order: str
    shape: tuple[int, ...]
    datatype: int
    bits: int
    offset: int

    @property
    def voxel_bytes(self) -> int:
        return math.prod(self.shape) * self.bits // 8


def parse_header(head: bytes) -> NiftiHeader | None:
    """The header at the start of a file; None where there is none. Raises ValueError where its sizes are impossible."""
    for order in "<>":
        for version, size in _SIZE_OF_HEADER.items():
            if len(head) >= 4 and struct.unpack(order + "i", head[:4])[0] == size:
                return _parse(head, order, version)
    return None


def _parse(head: bytes, order: str, version: int) -> NiftiHeader:
    if len(head) < _SIZE_OF_HEADER[version]:
        raise ValueError("the header is cut short")
    dim = struct.unpack_from(order + ("8h" if version == 1 else "8q"), head, 40 if version == 1 else 16)
    datatype, bits = struct.unpack_from(order + "2h", head, 70 if version == 1 else 12)
    (offset,) = struct.unpack_from(order + ("f" if version == 1 else "q"), head, 108 if version == 1 else 168)
    shape = dim[1 : dim[0] + 1] if 1 <= dim[0] <= 7 else ()
    if not shape or min(shape) < 1 or bits < 0 or not 0 <= offset <= 2**40:
        raise ValueError("the header has impossible sizes")
    return NiftiHeader(order, shape, datatype, bits, int(offset))


def voxel_file(path: Path) -> Path | None:
    """The second file of a pair (``.hdr`` and ``.img``), if this is one."""
    voxels = path.with_suffix(".img")
    return voxels if path.suffix == ".hdr" and voxels.is_file() else None


def count_not_finite(path: Path, header: NiftiHeader) -> int:
    """How many raw floating-point voxels are NaN or infinite (0 for whole numbers). The file is whole already."""
    if header.datatype not in _FLOATS:
        return 0
    dtype = np.dtype(header.order + _FLOATS[header.datatype])
    beside = voxel_file(path)
    with _open(beside or path) as stream:
        stream.read(0 if beside else header.offset)
        left, bad = header.voxel_bytes, 0
        while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
            values = np.frombuffer(chunk, dtype, count=len(chunk) // dtype.itemsize)
            bad += int(values.size - np.count_nonzero(np.isfinite(values)))
            left -= len(chunk)
    return bad


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]
