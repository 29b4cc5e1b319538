"""Image files that are damaged, or hold no volume, or values that no scanner gives."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from feature_store.errors import (
    ImageConstant,
    ImageNotFinite,
    ImageUnitError,
    ImageUnreadable,
)
from tests.pipelines.imaging.malformed_kind import Kind


# --- files --------------------------------------------------------------------------------------------
def an_image(seed: int = 0, dtype: type = np.int16) -> sitk.Image:
    """Small, with voxels of three different sizes."""
    rng = np.random.default_rng(seed)
    image = sitk.GetImageFromArray(rng.integers(-1000, 2000, (5, 6, 7)).astype(dtype))
    image.SetSpacing((0.7, 0.8, 3.3))
    image.SetOrigin((-12.3, 45.6, 7.8))
    return image


def _nifti(folder: Path) -> bytes:
    sitk.WriteImage(an_image(), str(folder / "whole.nii"))
    return (folder / "whole.nii").read_bytes()


def file_of(name: str, make: Callable[[Path], bytes]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / name).write_bytes(make(folder))
        return name

    return write


def _image(name: str, image: Callable[[], sitk.Image]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        sitk.WriteImage(image(), str(folder / name))
        return name

    return write


def _cut(suffix: str, compress: bool = False) -> Callable[[Path], str]:
    def whole(folder: Path) -> bytes:
        sitk.WriteImage(an_image(), str(folder / f"whole{suffix}"), compress)
        return (folder / f"whole{suffix}").read_bytes()[:-100]

    return file_of(f"i{suffix}", whole)


def _flipped_checksum(folder: Path) -> bytes:
    data = bytearray(gzip.compress(_nifti(folder)))
    data[-6] ^= 0xFF
    return bytes(data)


def _patched(*patches: tuple[int, str, tuple[float, ...]]) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        data = bytearray(_nifti(folder))
        for place, code, values in patches:
            struct.pack_into(code, data, place, *values)
        return bytes(data)

    return make


def _mhd_elsewhere(folder: Path) -> bytes:
    (folder.parent / "secret.raw").write_bytes(bytes(1000))
    return b"ObjectType = Image\nNDims = 3\nDimSize = 5 5 5\nElementType = MET_SHORT\nElementDataFile = ../secret.raw\n"


def _nrrd_elsewhere(folder: Path) -> bytes:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 5 5\nendian: little\nencoding: raw\n"
    return f"{head}data file: {folder.parent / 'secret.raw'}\n\n".encode()


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "i.nii")
    return "i.nii"


def _complex() -> sitk.Image:
    return sitk.RealAndImaginaryToComplex(*[sitk.Cast(an_image(), sitk.sitkFloat32)] * 2)


FILES: dict[str, Kind] = {
    "file: missing": Kind(ImageUnreadable, "no such file", lambda folder: "i.nii"),
    "file: empty": Kind(ImageUnreadable, "empty", file_of("i.nii.gz", lambda _: b"")),
    "file: rubbish": Kind(ImageUnreadable, "no reader", file_of("i.nii.gz", lambda _: b"\x07\x01rubbish" * 300)),
    "file: text": Kind(ImageUnreadable, "no reader", file_of("i.nrrd", lambda _: b"see the other folder")),
    "file: a pipe": Kind(ImageUnreadable, "no such file", _pipe),
    "NIfTI: cut short": Kind(ImageUnreadable, "cut short", file_of("i.nii", lambda f: _nifti(f)[:-100])),
    "NIfTI: half a header": Kind(ImageUnreadable, "header is cut short", file_of("i.nii", lambda f: _nifti(f)[:60])),
    "NIfTI: absurd size": Kind(
        ImageUnreadable, "absurd size", file_of("i.nii", _patched((42, "<3h", (30000, 30000, 30000))))
    ),
    "NIfTI: negative size": Kind(ImageUnreadable, "impossible sizes", file_of("i.nii", _patched((42, "<h", (-5,))))),
    "NIfTI: sheared": Kind(
        ImageUnreadable,
        "sheared",
        file_of("i.nii", _patched((252, "<2h", (0, 1)), (280, "<4f", (1, 0.5, 0.3, 0)))),
    ),
    "gzip: cut short": Kind(
        ImageUnreadable, "cut short or damaged", file_of("i.nii.gz", lambda f: gzip.compress(_nifti(f))[:-50])
    ),
    "gzip: whole, NIfTI inside cut short": Kind(
        ImageUnreadable, "cut short", file_of("i.nii.gz", lambda f: gzip.compress(_nifti(f)[:-100]))
    ),
    "gzip: wrong checksum": Kind(ImageUnreadable, "damaged", file_of("i.nii.gz", _flipped_checksum)),
    "NRRD: cut short": Kind(ImageUnreadable, "no reader", _cut(".nrrd")),
    "NRRD: compressed, cut short": Kind(ImageUnreadable, "no reader", _cut(".nrrd", True)),
    "NRRD: voxels in another folder": Kind(ImageUnreadable, "not beside it", file_of("i.nhdr", _nrrd_elsewhere)),
    "MetaImage: cut short": Kind(ImageUnreadable, "cut short", _cut(".mha")),
    "MetaImage: compressed, cut short": Kind(ImageUnreadable, "cut short", _cut(".mha", True)),
    "MetaImage: voxels in another folder": Kind(ImageUnreadable, "not beside it", file_of("i.mhd", _mhd_elsewhere)),
    "image: four dimensions": Kind(
        ImageUnreadable, "several volumes", _image("i.nii.gz", lambda: sitk.JoinSeries([an_image(), an_image(1)]))
    ),
    "image: RGB": Kind(
        ImageUnreadable,
        "3 numbers a voxel",
        _image("i.nrrd", lambda: sitk.Compose([sitk.Cast(an_image(), sitk.sitkUInt8)] * 3)),
    ),
    "image: two dimensions": Kind(ImageUnreadable, "single slice", _image("i.nii.gz", lambda: an_image()[:, :, 2])),
    "image: one slice": Kind(ImageUnreadable, "single slice", _image("i.nrrd", lambda: an_image()[:, :, 2:3])),
    "image: complex numbers": Kind(ImageUnreadable, "complex", _image("i.nrrd", _complex)),
    "image: a picture": Kind(
        ImageUnreadable, "single slice", _image("i.png", lambda: sitk.Cast(an_image()[:, :, 2], sitk.sitkUInt8))
    ),
}


# --- values -------------------------------------------------------------------------------------------
def _filled(values: Sequence[float], dtype: type = np.float32) -> Callable[[Path], str]:
    return _image("i.nrrd", lambda: sitk.GetImageFromArray(np.resize(np.array(values, dtype), (3, 4, 5))))


def _spaced(spacing: tuple[float, float, float]) -> Callable[[Path], str]:
    def image() -> sitk.Image:
        made = an_image()
        made.SetSpacing(spacing)
        return made

    return _image("i.nrrd", image)


VALUES: dict[str, Kind] = {
    "values: NaN": Kind(ImageNotFinite, "30 of 60 voxels", _filled([1, np.nan])),
    "values: all NaN": Kind(ImageNotFinite, "60 of 60 voxels", _filled([np.nan])),
    "values: infinite": Kind(ImageNotFinite, "30 of 60 voxels", _filled([1, -np.inf])),
    "values: zero-filled": Kind(ImageConstant, "same value", _filled([0], np.int16)),
    "values: constant": Kind(ImageConstant, "same value", _filled([-1000]), "ct"),
    "values: CT without its offset": Kind(ImageUnitError, "offset", _filled([0, 1024, 2900], np.uint16), "ct"),
    "values: CT as an 8 bit picture": Kind(ImageUnitError, "windowed", _filled([0, 255], np.uint8), "ct"),
    "values: CT z-scored": Kind(ImageUnitError, "no Hounsfield", _filled([-2.1, 6.4]), "ct"),
    "values: CT windowed to soft tissue": Kind(ImageUnitError, "as high as bone", _filled([-1000, 80]), "ct"),
    "values: CT scaled by a hundred": Kind(ImageUnitError, "scaled", _filled([-1e5, 1e5]), "ct"),
    "spacing: in metres": Kind(ImageUnitError, "voxel size", _spaced((0.0007, 0.0007, 0.003))),
    "spacing: in micrometres": Kind(ImageUnitError, "voxel size", _spaced((700, 700, 3000))),
}
