"""Malformed images and masks: every kind that is tried, how it is made, and the error it has to get.

``python -m tests.pipelines.imaging.malformed`` makes each of them and prints ``kind -> Error: message``.
"""

from __future__ import annotations

import gzip
import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from highdicom.seg import SegmentationTypeValues
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGLSLossless, RLELossless

from feature_store.errors import (
    DicomSeriesError,
    GridMismatch,
    ImageConstant,
    ImageNotFinite,
    ImageUnitError,
    ImageUnreadable,
    InputError,
    MaskUnreadable,
)
from pipelines.imaging.images import check_image, load_image
from pipelines.imaging.masks import align_mask, read_mask
from tests.pipelines.imaging.dicom_folder import CORONAL, SAGITTAL, recoded, save, slice_dataset, write_dicom
from tests.pipelines.imaging.mask_files import contours_of, segmentation, source_slices, structure_set
from tests.pipelines.imaging.multi_frame_file import multi_frame, write_multi_frame

IMAGE, MASK = "image", "mask"
T1 = {"EchoTime": 12.0, "RepetitionTime": 600.0}
T2 = {"EchoTime": 95.0, "RepetitionTime": 3500.0}


@dataclass(frozen=True)
class Kind:
    """``make`` writes into a folder; what it returns is the image's name there, or image and mask.

    ``says`` is a part of the message, so that the right rule refuses it.
    """

    error: type[InputError]
    says: str
    make: Callable[[Path], str | tuple[str, str] | None]
    sequence: str = ""
    series_number: int | None = None


def attempt(kind: Kind, folder: Path) -> InputError | None:
    """Make it and read it as a case does; the error it got, or None if it was taken."""
    made = kind.make(folder)
    image, mask = made if isinstance(made, tuple) else (made or IMAGE, None)
    try:
        loaded = load_image(folder / image, "sent", sequence=kind.sequence, series_number=kind.series_number)
        check_image(loaded.image, kind.sequence, "sent")
        if mask:
            align_mask(read_mask(folder / mask, "sent", loaded), loaded.image, "sent")
    except InputError as error:
        return error
    return None


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


def _bytes(name: str, make: Callable[[Path], bytes]) -> Callable[[Path], str]:
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

    return _bytes(f"i{suffix}", whole)


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
    "file: empty": Kind(ImageUnreadable, "empty", _bytes("i.nii.gz", lambda _: b"")),
    "file: rubbish": Kind(ImageUnreadable, "no reader", _bytes("i.nii.gz", lambda _: b"\x07\x01rubbish" * 300)),
    "file: text": Kind(ImageUnreadable, "no reader", _bytes("i.nrrd", lambda _: b"see the other folder")),
    "file: a pipe": Kind(ImageUnreadable, "no such file", _pipe),
    "NIfTI: cut short": Kind(ImageUnreadable, "cut short", _bytes("i.nii", lambda f: _nifti(f)[:-100])),
    "NIfTI: half a header": Kind(ImageUnreadable, "header is cut short", _bytes("i.nii", lambda f: _nifti(f)[:60])),
    "NIfTI: absurd size": Kind(
        ImageUnreadable, "absurd size", _bytes("i.nii", _patched((42, "<3h", (30000, 30000, 30000))))
    ),
    "NIfTI: negative size": Kind(ImageUnreadable, "impossible sizes", _bytes("i.nii", _patched((42, "<h", (-5,))))),
    "NIfTI: sheared": Kind(
        ImageUnreadable,
        "sheared",
        _bytes("i.nii", _patched((252, "<2h", (0, 1)), (280, "<4f", (1, 0.5, 0.3, 0)))),
    ),
    "gzip: cut short": Kind(
        ImageUnreadable, "cut short or damaged", _bytes("i.nii.gz", lambda f: gzip.compress(_nifti(f))[:-50])
    ),
    "gzip: whole, NIfTI inside cut short": Kind(
        ImageUnreadable, "cut short", _bytes("i.nii.gz", lambda f: gzip.compress(_nifti(f)[:-100]))
    ),
    "gzip: wrong checksum": Kind(ImageUnreadable, "damaged", _bytes("i.nii.gz", _flipped_checksum)),
    "NRRD: cut short": Kind(ImageUnreadable, "no reader", _cut(".nrrd")),
    "NRRD: compressed, cut short": Kind(ImageUnreadable, "no reader", _cut(".nrrd", True)),
    "NRRD: voxels in another folder": Kind(ImageUnreadable, "not beside it", _bytes("i.nhdr", _nrrd_elsewhere)),
    "MetaImage: cut short": Kind(ImageUnreadable, "cut short", _cut(".mha")),
    "MetaImage: compressed, cut short": Kind(ImageUnreadable, "cut short", _cut(".mha", True)),
    "MetaImage: voxels in another folder": Kind(ImageUnreadable, "not beside it", _bytes("i.mhd", _mhd_elsewhere)),
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
}  # fmt: skip


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


# --- DICOM series -------------------------------------------------------------------------------------
def voxels_of(slices: int = 6, seed: int = 3) -> np.ndarray:
    """Like a CT's, (slice, row, column)."""
    return np.random.default_rng(seed).integers(-1000, 2000, (slices, 8, 9))


def _series(voxels: np.ndarray | None = None, **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write_dicom(folder / IMAGE, voxels_of() if voxels is None else voxels, **options)

    return make


def _both(*makers: Callable[[Path], Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for maker in makers:
            maker(folder)

    return make


def _edited(edit: Callable[[Dataset], None], which: slice = slice(2, 3), **options: Any) -> Callable[[Path], None]:
    """A series of which some files were changed afterwards."""

    def make(folder: Path) -> None:
        for path in write_dicom(folder / IMAGE, voxels_of(), **options)[which]:
            dataset = pydicom.dcmread(path)
            edit(dataset)
            save(dataset, path)

    return make


def _without(keyword: str) -> Callable[[Path], None]:
    return _edited(lambda dataset: delattr(dataset, keyword))


def _cut_last(left: int) -> Callable[[Path], None]:
    """An end slice: positions alone would not show that it is gone."""

    def make(folder: Path) -> None:
        path = write_dicom(folder / IMAGE, voxels_of())[-1]
        path.write_bytes(path.read_bytes()[:left])

    return make


def _one_left_out(folder: Path) -> None:
    write_dicom(folder / IMAGE, voxels_of())[2].unlink()


def _undecodable(dataset: Dataset) -> None:
    dataset.PixelData = encapsulate([b"\x00" * 64])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.103")


def _another_size(dataset: Dataset) -> None:
    recoded(dataset, RLELossless)
    dataset.Rows = 16


def _damaged_stream(dataset: Dataset) -> None:
    recoded(dataset, JPEGLSLossless)
    data = bytearray(dataset.PixelData)
    data[40:-8] = bytes(len(data) - 48)
    dataset.PixelData = bytes(data)


def _lookup(dataset: Dataset) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 16], np.array([0, 1, 4, 9], np.uint16).tobytes()
    dataset.ModalityLUTSequence = [table]


def _coloured(dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = bytes(8 * 9 * 3)


def _report(folder: Path) -> None:
    (folder / IMAGE).mkdir()
    report = slice_dataset(
        np.zeros((2, 2), np.int16), {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}
    )
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    save(report, folder / IMAGE / "report.dcm")


def _frames(edit: Callable[[Dataset], None] = lambda dataset: None, **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        dataset = multi_frame(voxels_of().astype(np.int16), **options)
        edit(dataset)
        write_multi_frame(folder / IMAGE / "a.dcm", dataset)

    return make


def _fewer_groups(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence.pop()


def _no_groups(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence


def _heights(*heights: float, **of_each: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"ImagePositionPatient": [0.0, 0.0, z], **{k: v[i] for k, v in of_each.items()}} for i, z in enumerate(heights)
    ]


_TURNED = [[1.0, 0, 0, 0, 1.0, 0]] * 4 + [list(SAGITTAL)] * 2
_MR = {"modality": "MR", "orientation": SAGITTAL}

SERIES: dict[str, Kind] = {
    "DICOM: empty folder": Kind(DicomSeriesError, "no DICOM image", lambda f: (f / IMAGE).mkdir()),
    "DICOM: folder without DICOM": Kind(
        DicomSeriesError,
        "no DICOM image",
        _both(lambda f: (f / IMAGE).mkdir(), _bytes(f"{IMAGE}/a.txt", lambda _: b"x")),
    ),
    "DICOM: a report only": Kind(DicomSeriesError, "no DICOM image", _report),
    "DICOM: two series": Kind(
        DicomSeriesError,
        r"2 series \(12 files\), 2 fit equally: series without a number: axial, 6 slices of 3.0 mm",
        _both(_series(), _series(series="1.2.4", prefix="t")),
    ),
    "DICOM: none fits the sequence": Kind(
        DicomSeriesError,
        "none fits for t2_sag: series 1: sagittal, t1, 6 slices",
        _both(
            _series(tags={**T1, "SeriesNumber": 1}, **_MR),
            _series(tags={**T1, "SeriesNumber": 2}, series="1.2.4", prefix="t", **_MR),
        ),
        "t2_sag",
    ),
    "DICOM: pinned series is not there": Kind(DicomSeriesError, "no series 7", _series(), "ct", 7),
    "DICOM: T1 called t2_sag": Kind(DicomSeriesError, "times say t1", _series(tags=T1, **_MR), "t2_sag"),
    "DICOM: STIR called t2_sag": Kind(
        DicomSeriesError, "times say stir", _series(tags={**T2, "InversionTime": 160.0}, **_MR), "t2_sag"
    ),
    "DICOM: Dixon water called t2_sag": Kind(
        DicomSeriesError,
        "say dixon",
        _series(tags={**T2, "ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"]}, **_MR),
        "t2_sag",
    ),
    "DICOM: coronal called t2_ax": Kind(
        DicomSeriesError, "slices are coronal", _series(tags=T2, modality="MR", orientation=CORONAL), "t2_ax"
    ),
    "DICOM: MR called ct": Kind(ImageUnitError, "modality is MR", _series(modality="MR"), "ct"),
    "DICOM: empty file": Kind(DicomSeriesError, "damaged, cut short, or holds no image", _cut_last(0)),
    "DICOM: header cut short": Kind(DicomSeriesError, "damaged, cut short, or holds no image", _cut_last(200)),
    "DICOM: pixels cut short": Kind(DicomSeriesError, "pixels are damaged", _cut_last(-20)),
    "DICOM: pixels missing": Kind(DicomSeriesError, "pixels are damaged", _without("PixelData")),
    "DICOM: compressed pixels damaged": Kind(DicomSeriesError, "pixels are damaged", _edited(_damaged_stream)),
    "DICOM: unsupported compression": Kind(DicomSeriesError, "MPEG-4.* is not supported", _edited(_undecodable)),
    "DICOM: pixels of another size": Kind(DicomSeriesError, "differ in size", _edited(_another_size)),
    "DICOM: missing slice": Kind(
        DicomSeriesError, r"1 of 4 distances are not the usual 3.00 mm \(6.00 mm\)", _one_left_out
    ),
    "DICOM: uneven slices": Kind(DicomSeriesError, "2 of 5 distances", _series(positions=[0, 3, 6, 9.4, 12, 15])),
    "DICOM: doubled slices": Kind(
        DicomSeriesError, "2 of 8 slices", _both(_series(), _series(voxels_of(2), prefix="again"))
    ),
    "DICOM: every slice doubled": Kind(DicomSeriesError, "3 of 6 slices", _series(positions=[0, 0, 3, 3, 6, 6])),
    "DICOM: two echoes, one lacks a slice": Kind(
        DicomSeriesError,
        "5 of 11 slices lie where another one lies",
        _both(
            _series(modality="MR", tags={"EchoTime": 20.0}),
            _series(modality="MR", tags={"EchoTime": 90.0}, prefix="t"),
            lambda folder: (folder / IMAGE / "t003.dcm").unlink(),
        ),
    ),
    "DICOM: two phases": Kind(
        DicomSeriesError,
        r"fit for ct equally: .*temporal position 1\).*temporal position 2\)",
        _both(
            _series(tags={"TemporalPositionIdentifier": 1}), _series(tags={"TemporalPositionIdentifier": 2}, prefix="t")
        ),
        "ct",
    ),
    "DICOM: single slice": Kind(DicomSeriesError, "single slice", _series(voxels_of(1))),
    "DICOM: localizer among the slices": Kind(
        DicomSeriesError,
        "size, pixel spacing or orientation",
        _both(_series(), _series(voxels_of(1), orientation=SAGITTAL, prefix="loc")),
    ),
    "DICOM: two pixel spacings": Kind(
        DicomSeriesError,
        "size, pixel spacing or orientation",
        _both(_series(voxels_of(3)), _series(voxels_of(3), origin=(-10, 0, 9), spacing=0.9, prefix="t")),
    ),
    "DICOM: gantry tilt": Kind(DicomSeriesError, "tilted by 9.5 degrees", _series(shear=0.5)),
    "DICOM: a slice moved within its plane": Kind(
        DicomSeriesError,
        "1 of 6 slices are shifted",
        _series(each=lambda i: {"ImagePositionPatient": [-8.0, 0.0, 6.0]} if i == 2 else {}),
    ),
    "DICOM: no orientation": Kind(DicomSeriesError, "lacks its position", _without("ImageOrientationPatient")),
    "DICOM: orientation that is none": Kind(
        DicomSeriesError, "lacks its position", _series(tags={"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]})
    ),
    "DICOM: no position": Kind(DicomSeriesError, "lacks its position", _without("ImagePositionPatient")),
    "DICOM: no pixel spacing": Kind(DicomSeriesError, "lacks its position", _without("PixelSpacing")),
    "DICOM: mosaic": Kind(
        DicomSeriesError, "mosaic", _series(tags={"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, modality="MR")
    ),
    "DICOM: in colour": Kind(DicomSeriesError, "in colour", _edited(_coloured, slice(None))),
    "DICOM: stored inverted": Kind(
        DicomSeriesError, "MONOCHROME1", _series(tags={"PhotometricInterpretation": "MONOCHROME1"})
    ),
    "DICOM: values through a look-up table": Kind(DicomSeriesError, "look-up table", _edited(_lookup, slice(None))),
    "DICOM: rescale slope of 0": Kind(DicomSeriesError, "slope is 0", _series(tags={"RescaleSlope": 0})),
    "DICOM: CT stored without its offset": Kind(ImageUnitError, "offset", _series(np.abs(voxels_of())), "ct"),
    "multi-frame: no functional groups": Kind(DicomSeriesError, "where its frames lie", _frames(_no_groups)),
    "multi-frame: a frame without its group": Kind(DicomSeriesError, "where its frames lie", _frames(_fewer_groups)),
    "multi-frame: a frame without position": Kind(
        DicomSeriesError, "lacks its position", _frames(frames=[*_heights(0, 3, 6, 9, 12), {}])
    ),
    "multi-frame: mixed orientation": Kind(
        DicomSeriesError,
        "size, pixel spacing or orientation",
        _frames(frames=_heights(0, 3, 6, 9, 12, 15, ImageOrientationPatient=_TURNED), shared={}),
    ),
    "multi-frame: missing frame": Kind(
        DicomSeriesError, "missing or uneven", _frames(frames=_heights(0, 3, 6, 12, 15, 18))
    ),
    "multi-frame: phases": Kind(
        DicomSeriesError,
        "temporal position 1",
        _frames(frames=_heights(0, 3, 6, 0, 3, 6, TemporalPositionIndex=[1, 1, 1, 2, 2, 2])),
        "ct",
    ),
    "multi-frame: pixels cut short": Kind(
        DicomSeriesError, "pixels are damaged", _frames(lambda d: setattr(d, "PixelData", d.PixelData[:-100]))
    ),
}  # fmt: skip


# --- masks in image formats -----------------------------------------------------------------------------
def a_label_map(
    size: tuple[int, int, int] = (4, 5, 6),
    spacing: tuple[float, ...] = (1.0, 1.0, 3.0),
    direction: Sequence[float] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
) -> sitk.Image:
    """Every voxel has a number of its own, so that any wrong turn shows."""
    mask = sitk.GetImageFromArray(np.arange(np.prod(size), dtype=np.uint16).reshape(size[::-1]))
    mask.SetSpacing(spacing)
    mask.SetOrigin((-120.5, 33.25, 870.125))
    mask.SetDirection(direction)
    return mask


def _masked(mask: Callable[[sitk.Image], sitk.Image], name: str = "m.nrrd") -> Callable[[Path], tuple[str, str]]:
    def make(folder: Path) -> tuple[str, str]:
        image = a_label_map()
        sitk.WriteImage(image, str(folder / "i.nrrd"))
        sitk.WriteImage(mask(image), str(folder / name))
        return "i.nrrd", name

    return make


def _header(**geometry: object) -> Callable[[Path], tuple[str, str]]:
    def changed(image: sitk.Image) -> sitk.Image:
        for name, value in geometry.items():
            getattr(image, f"Set{name}")(value)
        return image

    return _masked(changed)


def _numbered(values: Sequence[float], dtype: type) -> Callable[[Path], tuple[str, str]]:
    def mask(image: sitk.Image) -> sitk.Image:
        made = sitk.GetImageFromArray(np.resize(np.array(values, dtype), (6, 5, 4)))
        made.CopyInformation(image)
        return made

    return _masked(mask)


def _mask_bytes(name: str, content: bytes | None) -> Callable[[Path], tuple[str, str]]:
    def make(folder: Path) -> tuple[str, str]:
        sitk.WriteImage(a_label_map(), str(folder / "i.nrrd"))
        if content is not None:
            (folder / name).write_bytes(content)
        return "i.nrrd", name

    return make


def _slicer_layers(image: sitk.Image) -> sitk.Image:
    both = sitk.Compose([sitk.Cast(image > 3, sitk.sitkUInt8), sitk.Cast(image > 7, sitk.sitkUInt8)])
    for i in range(2):
        both.SetMetaData(f"Segment{i}_LabelValue", "1")
        both.SetMetaData(f"Segment{i}_Layer", str(i))
    return both


_COS, _SIN = 0.9998476951563913, 0.01745240643728351
LABEL_MAPS: dict[str, Kind] = {
    "mask: missing": Kind(MaskUnreadable, "no such file", _mask_bytes("m.nrrd", None)),
    "mask: rubbish": Kind(MaskUnreadable, "no reader", _mask_bytes("m.nii.gz", b"not a mask")),
    "mask: vector": Kind(
        MaskUnreadable, "3 numbers a voxel", _masked(lambda image: sitk.Compose([sitk.Cast(image, sitk.sitkUInt8)] * 3))
    ),
    "mask: fractions": Kind(MaskUnreadable, "fractions or NaN", _numbered([0, 0.5, 1], np.float32)),
    "mask: NaN": Kind(MaskUnreadable, "fractions or NaN", _numbered([0, np.nan], np.float64)),
    "mask: infinite": Kind(MaskUnreadable, "fractions or NaN", _numbered([0, np.inf], np.float32)),
    "mask: negative label": Kind(MaskUnreadable, "negative or too large", _numbered([0, -1], np.int16)),
    "mask: label past 65535": Kind(MaskUnreadable, "negative or too large", _numbered([0, 70000], np.int32)),
    "mask: Slicer's overlapping layers": Kind(MaskUnreadable, "several layers", _masked(_slicer_layers, "m.seg.nrrd")),
    "mask: mirrored in the header": Kind(
        GridMismatch, "up to 3 mm", _header(Direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))
    ),
    "mask: mirrored twice in the header": Kind(
        GridMismatch, "up to 5 mm", _header(Direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    ),
    "mask: one slice off": Kind(GridMismatch, "up to 3 mm", _header(Origin=(-120.5, 33.25, 873.125))),
    "mask: shifted by a hundredth of a voxel": Kind(
        GridMismatch, "up to 0.01 mm", _header(Origin=(-120.49, 33.25, 870.125))
    ),
    "mask: no header": Kind(GridMismatch, "up to 879.1 mm", _header(Origin=(0, 0, 0))),
    "mask: other voxel size": Kind(
        GridMismatch, "2.5 mm from the image's, and voxel sizes differ", _header(Spacing=(1.0, 1.0, 2.5))
    ),
    "mask: fewer slices": Kind(
        GridMismatch, "4 x 5 x 5 voxels, the image 4 x 5 x 6", _masked(lambda image: image[:, :, :5])
    ),
    "mask: resampled finer": Kind(
        GridMismatch, "8 x 10 x 12 voxels", _masked(lambda image: sitk.Expand(image, [2, 2, 2]))
    ),
    "mask: turned by one degree": Kind(
        GridMismatch, "mm from the image's", _header(Direction=(_COS, -_SIN, 0, _SIN, _COS, 0, 0, 0, 1))
    ),
    "mask: turned by 37 degrees": Kind(
        GridMismatch, "turned by 36.9 degrees", _header(Direction=(0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    ),
    "mask: turned by 45 degrees": Kind(
        GridMismatch,
        "turned by 45.0 degrees",
        _header(Direction=(0.5**0.5, 0, 0.5**0.5, 0, 1, 0, -(0.5**0.5), 0, 0.5**0.5)),
    ),
}  # fmt: skip


# --- masks in DICOM ---------------------------------------------------------------------------------------
def labels_of() -> np.ndarray:
    """Two labels on the slices of :func:`voxels_of`."""
    labels = np.zeros((6, 8, 9), np.uint8)
    labels[1:5, 1:5, 2:7] = 1
    labels[2:4, 5:7, 2:8] = 2
    return labels


def _seg(
    edit: Callable[[Dataset], None] = lambda dataset: None,
    labels: Callable[[], np.ndarray] = labels_of,
    kind: SegmentationTypeValues = SegmentationTypeValues.BINARY,
    drawn_on: dict[str, Any] | None = None,
) -> Callable[[Path], tuple[str, str]]:
    """A segmentation of the image, or of another series than the image."""

    def make(folder: Path) -> tuple[str, str]:
        write_dicom(folder / IMAGE, voxels_of())
        write_dicom(folder / "drawn_on", voxels_of(), **(drawn_on or {}))
        dataset = segmentation(source_slices(folder / "drawn_on"), labels(), kind)
        edit(dataset)
        save(dataset, folder / "m.dcm")
        return IMAGE, "m.dcm"

    return make


def _stacked(second: np.ndarray, dtype: type = np.uint8) -> np.ndarray:
    return np.stack([(labels_of() == 1).astype(dtype), second.astype(dtype)], axis=-1)


def _nameless(dataset: Dataset) -> None:
    for item in dataset.PerFrameFunctionalGroupsSequence:
        del item.SegmentIdentificationSequence


def _unplaced(dataset: Dataset) -> None:
    for item in dataset.PerFrameFunctionalGroupsSequence:
        del item.PlanePositionSequence


def _rt(
    regions: Callable[[], dict[int, list[np.ndarray]]] = lambda: {1: contours_of(labels_of(), 1)},
    edit: Callable[[Dataset], None] = lambda dataset: None,
    **options: Any,
) -> Callable[[Path], tuple[str, str]]:
    def make(folder: Path) -> tuple[str, str]:
        write_dicom(folder / IMAGE, voxels_of())
        dataset = structure_set(load_image(folder / IMAGE).image, regions(), **options)
        edit(dataset)
        save(dataset, folder / "m.dcm")
        return IMAGE, "m.dcm"

    return make


def _moved(*by: float) -> Callable[[], dict[int, list[np.ndarray]]]:
    return lambda: {1: [contour + np.array(by) for contour in contours_of(labels_of(), 1)]}


def _two_points(dataset: Dataset) -> None:
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = list(contour.ContourData)[:6]


def _no_regions(dataset: Dataset) -> None:
    del dataset.StructureSetROISequence, dataset.ROIContourSequence


def _then_cut(make: Callable[[Path], tuple[str, str]], left: int) -> Callable[[Path], tuple[str, str]]:
    def cut(folder: Path) -> tuple[str, str]:
        image, mask = make(folder)
        (folder / mask).write_bytes((folder / mask).read_bytes()[:left])
        return image, mask

    return cut


def _mask_folder(*names: str) -> Callable[[Path], tuple[str, str]]:
    def make(folder: Path) -> tuple[str, str]:
        image, mask = _seg()(folder)
        (folder / MASK).mkdir()
        for name in names:
            (folder / MASK / name).write_bytes((folder / mask).read_bytes())
        return image, MASK

    return make


def _image_as_mask(folder: Path) -> tuple[str, str]:
    return IMAGE, f"{IMAGE}/{write_dicom(folder / IMAGE, voxels_of())[0].name}"


DICOM_MASKS: dict[str, Kind] = {
    "SEG: overlapping segments": Kind(
        MaskUnreadable, "80 voxels lie in 1 and in 2", _seg(labels=lambda: _stacked(np.ones((6, 8, 9))))
    ),
    "SEG: fractional": Kind(
        MaskUnreadable,
        "segment 2 is fractional",
        _seg(labels=lambda: _stacked((labels_of() == 2) * 0.5, float), kind=SegmentationTypeValues.FRACTIONAL),
    ),
    "SEG: shifted": Kind(GridMismatch, "up to 0.2 mm", _seg(drawn_on={"origin": (-9.8, 0, 0)})),
    "SEG: between the slices": Kind(GridMismatch, "up to 1.5 mm", _seg(drawn_on={"origin": (-10, 0, 1.5)})),
    "SEG: beyond the last slice": Kind(GridMismatch, "outside the image", _seg(drawn_on={"origin": (-10, 0, 9)})),
    "SEG: other pixel spacing": Kind(GridMismatch, "mm from the image's", _seg(drawn_on={"spacing": 0.7})),
    "SEG: on a turned plane": Kind(
        GridMismatch, "turned by 36.9 degrees", _seg(drawn_on={"orientation": (0.8, 0.6, 0, -0.6, 0.8, 0)})
    ),
    "SEG: in another frame of reference": Kind(
        GridMismatch, "another frame of reference", _seg(drawn_on={"tags": {"FrameOfReferenceUID": "1.2.10"}})
    ),
    "SEG: frames without a segment": Kind(MaskUnreadable, "which segment", _seg(_nameless)),
    "SEG: frames without position": Kind(MaskUnreadable, "lacks its position", _seg(_unplaced)),
    "SEG: no type": Kind(MaskUnreadable, "of what kind it is", _seg(lambda d: delattr(d, "SegmentationType"))),
    "SEG: cut short": Kind(MaskUnreadable, "pixels are damaged", _then_cut(_seg(), -20)),
    "RTSTRUCT: contours beside the slices": Kind(
        GridMismatch, "ROI 1 lies up to 1.2 mm beside its slice", _rt(_moved(0, 0, 0.4))
    ),
    "RTSTRUCT: slanted contour": Kind(
        GridMismatch,
        "beside its slice",
        _rt(lambda: {1: [np.array([(1, 1, 2), (6, 1, 2), (6, 6, 2.3), (1, 6, 2.3)], float)]}),
    ),
    "RTSTRUCT: outside the image": Kind(GridMismatch, "ROI 1 lies outside the image", _rt(_moved(20, 0, 0))),
    "RTSTRUCT: above the last slice": Kind(GridMismatch, "ROI 1 lies", _rt(_moved(0, 0, 5))),
    "RTSTRUCT: in another frame of reference": Kind(
        GridMismatch, "another frame of reference", _rt(frame_of_reference="1.2.10")
    ),
    "RTSTRUCT: open contours": Kind(MaskUnreadable, "4 contours that are not closed", _rt(kind="OPEN_PLANAR")),
    "RTSTRUCT: a contour of two points": Kind(MaskUnreadable, "contour of 2 points", _rt(edit=_two_points)),
    "RTSTRUCT: every second slice": Kind(
        MaskUnreadable,
        "ROI 1 is drawn on every 2. slice",
        _rt(lambda: {1: [np.array([(1, 1, z), (6, 1, z), (6, 6, z)]) for z in (0, 2, 4)]}),
    ),
    "RTSTRUCT: overlapping ROIs": Kind(
        MaskUnreadable,
        "80 voxels lie in 1 and in 2",
        _rt(lambda: {1: contours_of(labels_of(), 1), 2: contours_of(np.ones((6, 8, 9)), 1)}),
    ),
    "RTSTRUCT: ROI number 0": Kind(MaskUnreadable, "number 0", _rt(lambda: {0: contours_of(labels_of(), 1)})),
    "RTSTRUCT: no ROI": Kind(MaskUnreadable, "holds no contours", _rt(edit=_no_regions)),
    "RTSTRUCT: ROIs without contours": Kind(
        MaskUnreadable, "holds no contours", _rt(edit=lambda d: delattr(d, "ROIContourSequence"))
    ),
    "RTSTRUCT: cut short": Kind(MaskUnreadable, "", _then_cut(_rt(), 700)),
    "DICOM mask: an image instead": Kind(MaskUnreadable, "neither a segmentation", _image_as_mask),
    "DICOM mask: empty folder": Kind(MaskUnreadable, "a folder with 0 DICOM files", _mask_folder()),
    "DICOM mask: folder with two": Kind(MaskUnreadable, "a folder with 2 DICOM files", _mask_folder("a.dcm", "b.dcm")),
}  # fmt: skip

WHOLE: dict[str, Callable[[Path], tuple[str, str] | None]] = {
    "classic": _series(),
    "JPEG-LS": _series(syntax=JPEGLSLossless),
    "multi-frame": _frames(),
    "SEG": _seg(),
    "RTSTRUCT": _rt(),
}
"""Nothing wrong with these: what damage is tried on."""

KINDS: dict[str, Kind] = {**FILES, **VALUES, **SERIES, **LABEL_MAPS, **DICOM_MASKS}


def _print() -> None:
    for name, kind in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            case = Path(folder) / "case"
            case.mkdir()
            error = attempt(kind, case)
        print(f"{name} -> {f'{error.code}: {error.message}' if error else 'TAKEN'}")
    print(f"{len(KINDS)} kinds")


if __name__ == "__main__":
    _print()
