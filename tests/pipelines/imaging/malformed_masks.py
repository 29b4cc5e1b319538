"""Masks that are no label map, or do not lie on their image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from highdicom.seg import SegmentationTypeValues
from pydicom.dataset import Dataset

from feature_store.errors import (
    GridMismatch,
    MaskUnreadable,
)
from pipelines.imaging.images import load_image
from tests.pipelines.imaging.dicom_folder import save, write_dicom
from tests.pipelines.imaging.malformed_kind import IMAGE, MASK, Kind
from tests.pipelines.imaging.malformed_series import voxels_of
from tests.pipelines.imaging.mask_files import contours_of, segmentation, source_slices, structure_set


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
    "mask: mirrored in the header": Kind(GridMismatch, "up to 3 mm", _header(Direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))),
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
}


# --- masks in DICOM ---------------------------------------------------------------------------------------
def labels_of() -> np.ndarray:
    """Two labels on the slices of :func:`voxels_of`."""
    labels = np.zeros((6, 8, 9), np.uint8)
    labels[1:5, 1:5, 2:7] = 1
    labels[2:4, 5:7, 2:8] = 2
    return labels


def a_seg(
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


def a_structure_set(
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
        image, mask = a_seg()(folder)
        (folder / MASK).mkdir()
        for name in names:
            (folder / MASK / name).write_bytes((folder / mask).read_bytes())
        return image, MASK

    return make


def _image_as_mask(folder: Path) -> tuple[str, str]:
    return IMAGE, f"{IMAGE}/{write_dicom(folder / IMAGE, voxels_of())[0].name}"


DICOM_MASKS: dict[str, Kind] = {
    "SEG: overlapping segments": Kind(
        MaskUnreadable, "80 voxels lie in 1 and in 2", a_seg(labels=lambda: _stacked(np.ones((6, 8, 9))))
    ),
    "SEG: fractional": Kind(
        MaskUnreadable,
        "segment 2 is fractional",
        a_seg(labels=lambda: _stacked((labels_of() == 2) * 0.5, float), kind=SegmentationTypeValues.FRACTIONAL),
    ),
    "SEG: shifted": Kind(GridMismatch, "up to 0.2 mm", a_seg(drawn_on={"origin": (-9.8, 0, 0)})),
    "SEG: between the slices": Kind(GridMismatch, "up to 1.5 mm", a_seg(drawn_on={"origin": (-10, 0, 1.5)})),
    "SEG: beyond the last slice": Kind(GridMismatch, "outside the image", a_seg(drawn_on={"origin": (-10, 0, 9)})),
    "SEG: other pixel spacing": Kind(GridMismatch, "mm from the image's", a_seg(drawn_on={"spacing": 0.7})),
    "SEG: on a turned plane": Kind(
        GridMismatch, "turned by 36.9 degrees", a_seg(drawn_on={"orientation": (0.8, 0.6, 0, -0.6, 0.8, 0)})
    ),
    "SEG: in another frame of reference": Kind(
        GridMismatch, "another frame of reference", a_seg(drawn_on={"tags": {"FrameOfReferenceUID": "1.2.10"}})
    ),
    "SEG: frames without a segment": Kind(MaskUnreadable, "which segment", a_seg(_nameless)),
    "SEG: frames without position": Kind(MaskUnreadable, "lacks its position", a_seg(_unplaced)),
    "SEG: no type": Kind(MaskUnreadable, "of what kind it is", a_seg(lambda d: delattr(d, "SegmentationType"))),
    "SEG: cut short": Kind(MaskUnreadable, "pixels are damaged", _then_cut(a_seg(), -20)),
    "RTSTRUCT: contours beside the slices": Kind(
        GridMismatch, "ROI 1 lies up to 1.2 mm beside its slice", a_structure_set(_moved(0, 0, 0.4))
    ),
    "RTSTRUCT: slanted contour": Kind(
        GridMismatch,
        "beside its slice",
        a_structure_set(lambda: {1: [np.array([(1, 1, 2), (6, 1, 2), (6, 6, 2.3), (1, 6, 2.3)], float)]}),
    ),
    "RTSTRUCT: outside the image": Kind(
        GridMismatch, "ROI 1 lies outside the image", a_structure_set(_moved(20, 0, 0))
    ),
    "RTSTRUCT: above the last slice": Kind(GridMismatch, "ROI 1 lies", a_structure_set(_moved(0, 0, 5))),
    "RTSTRUCT: in another frame of reference": Kind(
        GridMismatch, "another frame of reference", a_structure_set(frame_of_reference="1.2.10")
    ),
    "RTSTRUCT: open contours": Kind(
        MaskUnreadable, "4 contours that are not closed", a_structure_set(kind="OPEN_PLANAR")
    ),
    "RTSTRUCT: a contour of two points": Kind(MaskUnreadable, "contour of 2 points", a_structure_set(edit=_two_points)),
    "RTSTRUCT: every second slice": Kind(
        MaskUnreadable,
        "ROI 1 is drawn on every 2. slice",
        a_structure_set(lambda: {1: [np.array([(1, 1, z), (6, 1, z), (6, 6, z)]) for z in (0, 2, 4)]}),
    ),
    "RTSTRUCT: overlapping ROIs": Kind(
        MaskUnreadable,
        "80 voxels lie in 1 and in 2",
        a_structure_set(lambda: {1: contours_of(labels_of(), 1), 2: contours_of(np.ones((6, 8, 9)), 1)}),
    ),
    "RTSTRUCT: ROI number 0": Kind(
        MaskUnreadable, "number 0", a_structure_set(lambda: {0: contours_of(labels_of(), 1)})
    ),
    "RTSTRUCT: no ROI": Kind(MaskUnreadable, "holds no contours", a_structure_set(edit=_no_regions)),
    "RTSTRUCT: ROIs without contours": Kind(
        MaskUnreadable, "holds no contours", a_structure_set(edit=lambda d: delattr(d, "ROIContourSequence"))
    ),
    "RTSTRUCT: cut short": Kind(MaskUnreadable, "", _then_cut(a_structure_set(), 700)),
    "DICOM mask: an image instead": Kind(MaskUnreadable, "neither a segmentation", _image_as_mask),
    "DICOM mask: empty folder": Kind(MaskUnreadable, "a folder with 0 DICOM files", _mask_folder()),
    "DICOM mask: folder with two": Kind(MaskUnreadable, "a folder with 2 DICOM files", _mask_folder("a.dcm", "b.dcm")),
}
