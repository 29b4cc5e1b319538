"""Is an image file whole, and does it stay inside its folder?

The NIfTI reader fills the missing rest of a half-transferred file with zeros, turns NaN to zero, and says
nothing of either, so both are checked here before any reader is asked. Header files that name a second file
for their voxels (``.mhd``, ``.nhdr``) are only followed within their own folder: a pushed case must not make
a server read another file.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

from feature_store.errors import ImageNotFinite, ImageUnreadable
from pipelines.imaging.nifti import count_not_finite, parse_header, voxel_file

MAX_BYTES = 16 * 2**30
"""Decompressed size past which a file is refused: 512 x 512 x 4000 voxels of eight bytes, twice over."""
MAX_VOXELS = 10**9
"""Past it a header is refused before anything of its size is allocated."""

_CHUNK = 4 * 2**20
_HEAD = 64 * 1024
_AGAIN = "Transfer the file again; if it stays so, export it anew."
_META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4, "LONG_LONG": 8,
               "ULONG_LONG": 8, "DOUBLE": 8}  # fmt: skip


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM does: with the mark of part 10, or (old archives) with group 0002 or 0008."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(132)
    return head[128:] == b"DICM" or (head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\x00")


def check_file(path: Path, file: str) -> None:
    """Refuse what is no regular file, is damaged or cut short, or names voxels outside its own folder.

    Raises ImageUnreadable; ImageNotFinite for NaN or infinite voxels of a NIfTI file.
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
    else:
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
    try:
        header = parse_header(head)
    except ValueError as error:
        raise ImageUnreadable(f"no usable NIfTI: {error}.", action=_AGAIN, file=file) from error
    if header is None:
        return
    if header.voxel_bytes > MAX_BYTES:
        raise ImageUnreadable("its header announces an absurd size.", action="Send the one series.", file=file)
    beside = voxel_file(path)
    if beside:
        _require(beside.stat().st_size, header.voxel_bytes, file)
    else:
        _require(length, header.offset + header.voxel_bytes, file)
    if bad := count_not_finite(path, header):
        raise ImageNotFinite(
            f"{bad} voxels are NaN or infinite.",
            action="Export the series again, or fill the background with a number.",
            file=file,
        )


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
