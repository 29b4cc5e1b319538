"""Is an image file whole, and does it stay inside its folder?

Some readers fill the missing rest of a half-transferred NIfTI with zeros and say nothing, so length is
checked here before any reader is asked. Header files that name a second file for their voxels (``.mhd``,
``.nhdr``) are only followed within their own folder: a pushed case must not make a server read another file.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

from feature_store.errors import ImageUnreadable

MAX_BYTES = 16 * 2**30
"""Decompressed size past which a file is refused: 512 x 512 x 4000 voxels of eight bytes, twice over."""

_CHUNK = 4 * 2**20
_HEAD = 64 * 1024
_AGAIN = "Transfer the file again; if it stays so, export it anew."
_META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4, "LONG_LONG": 8,
               "ULONG_LONG": 8, "DOUBLE": 8}  # fmt: skip


def check_file(path: Path, file: str) -> None:
    """Refuse what is no regular file, is damaged or cut short, or names voxels outside its own folder.

    Raises ImageUnreadable.
    """
    if not path.is_file():
        raise ImageUnreadable("there is no such file.", action="Add it, or mend its path in case.yaml.", file=file)
    if path.suffix == ".img" and path.with_suffix(".hdr").is_file():
        path = path.with_suffix(".hdr")
    head, length = _measure(path, file)
    if length == 0:
        raise ImageUnreadable("the file is empty.", action=_AGAIN, file=file)
    if length > MAX_BYTES:
        raise ImageUnreadable("the file is larger than any spine image.", action="Send the one series.", file=file)
    if head[:4] == b"NRRD":
        _refuse_leaving(path, re.findall(rb"(?im)^data ?file:[ \t]*(.+?)\r?$", head.split(b"\n\n")[0]), file)
    elif match := re.search(rb"(?im)^ElementDataFile[ \t]*=[ \t]*(.+?)\r?\n?$", head):
        _check_meta_image(path, head[: match.end()], match[1], length, file)
    elif struct.unpack("<i", head[:4].ljust(4, b"\0"))[0] in (348, 540, 1543569408, 469893120):
        _check_nifti(path, head, length, file)


def _measure(path: Path, file: str) -> tuple[bytes, int]:
    """First bytes and full length, both after decompression; a gzip's checksum is verified on the way."""
    with path.open("rb") as raw:
        magic = raw.read(2)
        if magic != b"\x1f\x8b":
            raw.seek(0)
            return raw.read(_HEAD), path.stat().st_size
    head, length = b"", 0
    try:
        with gzip.open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                head = head or chunk[:_HEAD]
                length += len(chunk)
                if length > MAX_BYTES:
                    break
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImageUnreadable("its compressed data are cut short or damaged.", action=_AGAIN, file=file) from error
    return head, length


def _require(length: int, needed: int, file: str) -> None:
    if length < needed:
        raise ImageUnreadable(
            f"the file is cut short: its header announces {needed} bytes, {length} are there.", action=_AGAIN, file=file
        )


def _check_nifti(path: Path, head: bytes, length: int, file: str) -> None:
    """NIfTI-1 and -2, either byte order, voxels in the same file or beside it (``.img``)."""
    order = "<" if struct.unpack("<i", head[:4])[0] in (348, 540) else ">"
    two = struct.unpack(order + "i", head[:4])[0] == 540
    try:
        dim = struct.unpack_from(order + ("8q" if two else "8h"), head, 16 if two else 40)
        (bits,) = struct.unpack_from(order + "h", head, 14 if two else 72)
        offset = struct.unpack_from(order + ("q" if two else "f"), head, 168 if two else 108)[0]
    except struct.error as error:
        raise ImageUnreadable("its header is cut short.", action=_AGAIN, file=file) from error
    if not 1 <= dim[0] <= 7 or any(n < 1 for n in dim[1 : dim[0] + 1]) or bits < 0 or not 0 <= offset <= MAX_BYTES:
        raise ImageUnreadable("its NIfTI header has impossible sizes.", action=_AGAIN, file=file)
    needed = math.prod(dim[1 : dim[0] + 1]) * bits // 8
    if needed > MAX_BYTES:
        raise ImageUnreadable("its header announces an absurd size.", action="Send the one series.", file=file)
    voxels = path.with_suffix(".img")
    if path.suffix == ".hdr" and voxels.is_file():
        length, offset = voxels.stat().st_size, 0
    _require(length, int(offset) + needed, file)


def _check_meta_image(path: Path, header: bytes, data: bytes, length: int, file: str) -> None:
    local = data.strip().upper() == b"LOCAL"
    if not local:
        _refuse_leaving(path, [data], file)
    fields = {
        k.strip().lower(): v.strip()
        for k, _, v in (line.partition("=") for line in header.decode("latin1").split("\n"))
    }
    size = fields.get("dimsize", "").split()
    width = _META_BYTES.get(fields.get("elementtype", "").upper().removeprefix("MET_"))
    channels = fields.get("elementnumberofchannels", "1")
    if not width or not all(n.isdigit() for n in (*size, channels)):
        return  # the reader itself says no
    needed = math.prod(map(int, size)) * width * int(channels)
    if fields.get("compresseddata", "").lower() == "true":
        compressed = fields.get("compresseddatasize", "0")
        needed = int(compressed) if compressed.isdigit() else 0
    if not local:
        voxels = path.parent / data.decode("utf-8", "replace").strip()
        if not voxels.is_file():
            return
        header, length = b"", voxels.stat().st_size
    _require(length, len(header) + needed, file)


def _refuse_leaving(path: Path, names: list[bytes], file: str) -> None:
    """A header may name its voxel file only within its own folder."""
    home = path.parent.resolve()
    for name in names:
        text = name.decode("utf-8", "replace").strip()
        if text.upper().startswith("LIST") or "%" in text or not (home / text).resolve().is_relative_to(home):
            raise ImageUnreadable(
                "its header names voxel files that are not beside it.",
                action="Send one file that holds header and voxels (.nii.gz, .nrrd, .mha).",
                file=file,
            )
