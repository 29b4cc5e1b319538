"""Masks from DICOM segmentations, structure sets and Slicer: the same label map, or a named refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from highdicom.seg import SegmentationTypeValues
from pydicom.uid import JPEG2000Lossless, RLELossless

import infra.cli
from feature_store.errors import GridMismatch, MaskUnreadable
from pipelines.cases.case import read_case
from pipelines.imaging.images import LoadedImage, load_image
from pipelines.imaging.mask_contents import mask_contents
from pipelines.imaging.masks import align_mask, read_mask
from pipelines.radiomics.table import radiomics_table
from tests.pipelines.imaging.dicom_folder import AXIAL, CORONAL, SAGITTAL, write_dicom
from tests.pipelines.imaging.mask_files import contours_of, segmentation, source_slices, structure_set

LABELS = (32, 33, 86, 87)
OBLIQUE = (0.98, 0.17, 0.10374, -0.18, 0.98, 0.0944)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> tuple[LoadedImage, np.ndarray]:
    """The real CT series and its mask, turned onto it, with the four labels only."""
    loaded = load_image(shared_data / "spine/ct_dicom/series")
    mask = align_mask(read_mask(shared_data / "spine/ct_dicom/seg.nii.gz"), loaded.image)
    voxels = sitk.GetArrayFromImage(mask)
    return loaded, np.where(np.isin(voxels, LABELS), voxels, 0)


def _mask(path: Path, loaded: LoadedImage, labels: Any = None) -> np.ndarray:
    return sitk.GetArrayFromImage(align_mask(read_mask(path, "m", loaded, labels), loaded.image, "m"))


# --- the real mask in each form ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SegmentationTypeValues.BINARY, {}),
        (SegmentationTypeValues.LABELMAP, {}),
        (SegmentationTypeValues.LABELMAP, {"transfer_syntax_uid": JPEG2000Lossless}),
    ],
    ids=["binary", "labelmap", "labelmap JPEG 2000"],
)
def test_the_real_mask_as_dicom_segmentation(
    tmp_path: Path, real: tuple[LoadedImage, np.ndarray], shared_data: Path, kind: Any, options: dict[str, Any]
) -> None:
    loaded, labels = real
    slices = source_slices(shared_data / "spine/ct_dicom/series")
    segmentation(slices, labels, kind, LABELS, **options).save_as(tmp_path / "seg.dcm")
    expected = sum((labels == old) * new for new, old in enumerate(LABELS, start=1))
    assert np.array_equal(_mask(tmp_path / "seg.dcm", loaded), expected)
    assert np.array_equal(_mask(tmp_path, loaded, [2]), np.where(expected == 2, 2, 0))  # its folder; one segment
    voxels = {one.number: one.voxels for one in mask_contents(tmp_path / "seg.dcm")}
    assert voxels == {n: int((labels == old).sum()) for n, old in enumerate(LABELS, start=1)}


def test_the_real_mask_as_structure_set(
    tmp_path: Path, real: tuple[LoadedImage, np.ndarray], shared_data: Path
) -> None:
    """Contours along pixel edges, holes and islands among them, give back every voxel."""
    loaded, labels = real
    assert loaded.header is not None
    regions = {number: contours_of(labels, number) for number in LABELS}
    dataset = structure_set(loaded.image, regions, frame_of_reference=loaded.header.frame_of_reference)
    dataset.save_as(tmp_path / "rt.dcm", enforce_file_format=True)
    assert np.array_equal(_mask(tmp_path / "rt.dcm", loaded), labels)


# --- small ones ---------------------------------------------------------------------------------------
@pytest.fixture
def labels() -> np.ndarray:
    """Two labels on 5 slices; the second ends before the last ones, so its frames there are left out as empty."""
    found = np.zeros((5, 11, 13), np.uint8)  # 143 pixels a frame: bits of a frame do not end at a byte
    found[1:5, 2:8, 3:9] = 1
    found[2:4, 4:6, 5:7] = 0  # a hole
    found[0:3, 8:10, 1:12] = 2
    return found


def _series(folder: Path, orientation: tuple[float, ...] = AXIAL, **options: Any) -> LoadedImage:
    voxels = np.random.default_rng(8).integers(-1000, 2000, (5, 11, 13))
    write_dicom(folder / "ct", voxels, orientation=orientation, origin=(12.5, -40.25, 310.125), **options)
    return load_image(folder / "ct")


def _cosines(turn: tuple[float, ...]) -> tuple[float, ...]:
    row = np.array(turn[:3]) / np.linalg.norm(turn[:3])
    column = np.array(turn[3:]) - row * (row @ np.array(turn[3:]))
    return (*row, *(column / np.linalg.norm(column)))


ORIENTATIONS = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL, "oblique": _cosines(OBLIQUE)}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", [SegmentationTypeValues.BINARY, SegmentationTypeValues.LABELMAP])
def test_a_segmentation_in_any_orientation(tmp_path: Path, labels: np.ndarray, orientation: str, kind: Any) -> None:
    loaded = _series(tmp_path, ORIENTATIONS[orientation])
    segmentation(source_slices(tmp_path / "ct"), labels, kind).save_as(tmp_path / "m.dcm")
    assert np.array_equal(_mask(tmp_path / "m.dcm", loaded), labels)


def test_a_segmentation_lies_on_the_slices_own_positions(tmp_path: Path, labels: np.ndarray) -> None:
    """Positions rounded to a hundredth: the image evens them out, the segmentation repeats them."""
    loaded = _series(tmp_path, positions=[0, 3.02, 6.0, 8.98, 12.0])
    segmentation(source_slices(tmp_path / "ct"), labels).save_as(tmp_path / "m.dcm")
    assert np.array_equal(_mask(tmp_path / "m.dcm", loaded), labels)


def test_a_segmentation_in_a_compressed_syntax(tmp_path: Path, labels: np.ndarray) -> None:
    loaded = _series(tmp_path)
    slices = source_slices(tmp_path / "ct")
    segmentation(slices, labels, SegmentationTypeValues.LABELMAP, transfer_syntax_uid=RLELossless).save_as(
        tmp_path / "m.dcm"
    )
    assert np.array_equal(_mask(tmp_path / "m.dcm", loaded), labels)


def test_a_segmentation_of_an_image_that_is_nifti_by_now(tmp_path: Path, labels: np.ndarray) -> None:
    """With axes that run otherwise: the same voxels in the world."""
    loaded = _series(tmp_path, SAGITTAL)
    segmentation(source_slices(tmp_path / "ct"), labels).save_as(tmp_path / "m.dcm")
    turned = sitk.Flip(sitk.PermuteAxes(loaded.image, (2, 0, 1)), (True, False, True))
    sitk.WriteImage(turned, str(tmp_path / "i.nrrd"))
    mask = read_mask(tmp_path / "m.dcm", "m", load_image(tmp_path / "i.nrrd"))
    label_map = sitk.GetImageFromArray(labels)
    label_map.CopyInformation(loaded.image)
    expected = sitk.Flip(sitk.PermuteAxes(label_map, (2, 0, 1)), (True, False, True))
    assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(expected))


def test_fractions_that_are_all_or_nothing_are_taken(tmp_path: Path, labels: np.ndarray) -> None:
    loaded = _series(tmp_path)
    stacked = np.stack([labels == 1, labels == 2], axis=-1).astype(float)
    segmentation(source_slices(tmp_path / "ct"), stacked, SegmentationTypeValues.FRACTIONAL).save_as(tmp_path / "m.dcm")
    assert np.array_equal(_mask(tmp_path / "m.dcm", loaded), labels)


def test_overlapping_segments_can_be_read_one_by_one(tmp_path: Path, labels: np.ndarray) -> None:
    loaded = _series(tmp_path)
    stacked = np.stack([labels == 1, labels > 0], axis=-1).astype(np.uint8)
    segmentation(source_slices(tmp_path / "ct"), stacked).save_as(tmp_path / "m.dcm")
    with pytest.raises(MaskUnreadable, match=r"overlap: \d+ voxels lie in 1 and in 2"):
        read_mask(tmp_path / "m.dcm", "m", loaded)
    assert np.array_equal(_mask(tmp_path / "m.dcm", loaded, [2]), np.where(labels > 0, 2, 0))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_structure_set_in_any_orientation(tmp_path: Path, labels: np.ndarray, orientation: str) -> None:
    loaded = _series(tmp_path, ORIENTATIONS[orientation])
    dataset = structure_set(loaded.image, {7: contours_of(labels, 1), 9: contours_of(labels, 2)})
    dataset.save_as(tmp_path / "m.dcm", enforce_file_format=True)
    expected = np.where(labels == 1, 7, np.where(labels == 2, 9, 0))
    assert np.array_equal(_mask(tmp_path / "m.dcm", loaded), expected)
    assert np.array_equal(_mask(tmp_path / "m.dcm", loaded, [9]), np.where(labels == 2, 9, 0))


def _polygon(points: list[tuple[float, float]], z: float) -> np.ndarray:
    return np.array([(x, y, z) for x, y in points])


def test_a_circle_holds_the_centres_inside_it(tmp_path: Path) -> None:
    """Not exact by construction: checked against the circle itself, away from its rim."""
    loaded = _series(tmp_path)
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    circle = [(6 + 3.3 * np.cos(a), 5 + 3.3 * np.sin(a)) for a in angles]
    structure_set(loaded.image, {1: [_polygon(circle, 2)]}).save_as(tmp_path / "m.dcm", enforce_file_format=True)
    y, x = np.mgrid[:11, :13]
    found = _mask(tmp_path / "m.dcm", loaded)
    assert np.array_equal(found[2] == 1, (x - 6) ** 2 + (y - 5) ** 2 < 3.3**2)
    assert found.sum() == found[2].sum()


def test_holes_by_a_second_contour_and_by_a_keyhole(tmp_path: Path) -> None:
    loaded = _series(tmp_path)
    outer = [(1.5, 1.5), (9.5, 1.5), (9.5, 9.5), (1.5, 9.5)]
    inner = [(3.5, 3.5), (6.5, 3.5), (6.5, 6.5), (3.5, 6.5)]
    keyhole = [*outer, outer[0], *inner, inner[0]]
    regions = {1: [_polygon(outer, 1), _polygon(inner, 1)], 2: [_polygon(keyhole, 3)]}
    structure_set(loaded.image, regions).save_as(tmp_path / "m.dcm", enforce_file_format=True)
    found = _mask(tmp_path / "m.dcm", loaded)
    expected = np.zeros((11, 13), bool)
    expected[2:10, 2:10] = True
    expected[4:7, 4:7] = False
    assert np.array_equal(found[1] == 1, expected)
    assert np.array_equal(found[3] == 2, expected)


def test_contours_through_voxel_centres_take_the_lower_side(tmp_path: Path) -> None:
    """The stated convention for ties, so that neighbouring regions never share a voxel nor leave one out."""
    loaded = _series(tmp_path)
    left = [(1, 1), (4, 1), (4, 6), (1, 6)]
    right = [(4, 1), (8, 1), (8, 6), (4, 6)]
    structure_set(loaded.image, {1: [_polygon(left, 2)], 2: [_polygon(right, 2)]}).save_as(
        tmp_path / "m.dcm", enforce_file_format=True
    )
    expected = np.zeros((11, 13), int)
    expected[1:6, 1:4] = 1
    expected[1:6, 4:8] = 2
    assert np.array_equal(_mask(tmp_path / "m.dcm", loaded)[2], expected)


def test_a_contour_a_little_beside_its_slice(tmp_path: Path, labels: np.ndarray) -> None:
    loaded = _series(tmp_path)
    near = [contour + np.array([0, 0, 0.03]) for contour in contours_of(labels, 1)]
    structure_set(loaded.image, {1: near}).save_as(tmp_path / "m.dcm", enforce_file_format=True)
    assert np.array_equal(_mask(tmp_path / "m.dcm", loaded), labels == 1)
    far = [contour + np.array([0, 0, 0.1]) for contour in contours_of(labels, 1)]
    structure_set(loaded.image, {1: far}).save_as(tmp_path / "m.dcm", enforce_file_format=True)
    with pytest.raises(GridMismatch, match=r"ROI 1 lies up to 0.3 mm beside its slice"):
        read_mask(tmp_path / "m.dcm", "m", loaded)


def test_points_are_no_region(tmp_path: Path, labels: np.ndarray) -> None:
    loaded = _series(tmp_path)
    dataset = structure_set(loaded.image, {1: contours_of(labels, 1), 2: []})
    marker = structure_set(loaded.image, {2: [np.array([[3.0, 3.0, 3.0]])]}, kind="POINT")
    dataset.ROIContourSequence[1] = marker.ROIContourSequence[0]
    dataset.save_as(tmp_path / "m.dcm", enforce_file_format=True)
    assert np.array_equal(_mask(tmp_path / "m.dcm", loaded), labels == 1)


@pytest.mark.parametrize("form", ["seg", "rt"])
def test_a_mask_cut_short_anywhere_is_refused(tmp_path: Path, labels: np.ndarray, form: str) -> None:
    loaded = _series(tmp_path)
    if form == "seg":
        dataset = segmentation(source_slices(tmp_path / "ct"), labels)
    else:
        dataset = structure_set(loaded.image, {1: contours_of(labels, 1), 2: contours_of(labels, 2)})
    path = tmp_path / "m.dcm"
    dataset.save_as(path, enforce_file_format=True)
    whole = path.read_bytes()
    for left in range(132, len(whole) - 10, len(whole) // 60):
        path.write_bytes(whole[:left])
        with pytest.raises(MaskUnreadable):
            read_mask(path, "m", loaded)


# --- Slicer and ITK-SNAP --------------------------------------------------------------------------------
def _slicer(path: Path, image: sitk.Image, meta: dict[str, str]) -> None:
    for key, value in meta.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path))


def test_slicer_s_single_layer_is_a_label_map_with_names(tmp_path: Path, labels: np.ndarray) -> None:
    meta = {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segment0_ID": "Segment_1", "Segment0_Name": "L5", "Segment0_LabelValue": "1", "Segment0_Layer": "0",
        "Segment1_ID": "Segment_2", "Segment1_Name": "L4", "Segment1_LabelValue": "2", "Segment1_Layer": "0",
        "Segment2_ID": "Segment_3", "Segment2_Name": "empty", "Segment2_LabelValue": "3", "Segment2_Layer": "0",
    }  # fmt: skip
    _slicer(tmp_path / "m.seg.nrrd", sitk.GetImageFromArray(labels), meta)
    assert np.array_equal(sitk.GetArrayFromImage(read_mask(tmp_path / "m.seg.nrrd")), labels)
    assert [(one.number, one.name, one.voxels) for one in mask_contents(tmp_path / "m.seg.nrrd")] == [
        (1, "L5", int((labels == 1).sum())), (2, "L4", int((labels == 2).sum())), (3, "empty", 0),
    ]  # fmt: skip


# --- from case.yaml, radiomics and by command -------------------------------------------------------------
def test_a_case_and_radiomics_take_dicom_masks(tmp_path: Path, labels: np.ndarray) -> None:
    """The ROIs are those of the label map, with an overlapping region beside them that is not declared."""
    loaded = _series(tmp_path)
    slices = source_slices(tmp_path / "ct")
    stacked = np.stack([labels == 1, labels == 2, np.ones_like(labels)], axis=-1).astype(np.uint8)
    segmentation(slices, stacked).save_as(tmp_path / "seg.dcm")
    regions = {1: contours_of(labels, 1), 2: contours_of(labels, 2), 3: contours_of(np.ones_like(labels), 1)}
    structure_set(loaded.image, regions).save_as(tmp_path / "rt.dcm", enforce_file_format=True)
    plain = sitk.GetImageFromArray(labels)
    plain.CopyInformation(loaded.image)
    sitk.WriteImage(plain, str(tmp_path / "m.nrrd"))
    declared = {n: {"structure": "vertebra", "level": level} for n, level in ((1, "L5"), (2, "L4"))}
    rois = {}
    for name in ("seg.dcm", "rt.dcm", "m.nrrd"):
        series = [{"sequence": "ct", "image": "ct", "mask": name, "labels": declared}]
        (tmp_path / "case.yaml").write_text(yaml.safe_dump({"patient_id": "p", "site": "s", "series": series}))
        reading = read_case(tmp_path)
        assert reading.findings == []
        rois[name] = (reading.series[0].mask_hash, reading.series[0].rois)
    assert rois["seg.dcm"] == rois["rt.dcm"] == rois["m.nrrd"]
    tables = [radiomics_table(tmp_path / "ct", tmp_path / name, [1, 2]) for name in ("seg.dcm", "m.nrrd")]
    assert tables[0].equals(tables[1])


def test_labels_are_listed_by_command(tmp_path: Path, labels: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = _series(tmp_path)
    dataset = structure_set(loaded.image, {4: contours_of(labels, 1), 5: contours_of(labels > 0, 1)})
    dataset.save_as(tmp_path / "rt.dcm", enforce_file_format=True)
    assert infra.cli.main(["labels", str(tmp_path / "rt.dcm"), "--json"]) == 0
    assert [row["voxels"] for row in json.loads(capsys.readouterr().out)] == [None, None]
    arguments = ["labels", str(tmp_path / "rt.dcm"), "--image", str(tmp_path / "ct"), "--json"]
    assert infra.cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"label": 4, "name": "ROI 4", "voxels": int((labels == 1).sum())},
        {"label": 5, "name": "ROI 5", "voxels": int((labels > 0).sum())},
    ]
    assert infra.cli.main(["labels", str(tmp_path / "nowhere.nii")]) == 1
    assert "MaskUnreadable" in capsys.readouterr().err
