"""Enhanced multi-frame files: geometry and rescale frame by frame, and the right volume of several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from feature_store.errors import DicomSeriesError
from pipelines.imaging.images import content_hash, load_image, read_image
from tests.pipelines.imaging.dicom_folder import SAGITTAL, as_jpeg_lossless
from tests.pipelines.imaging.multi_frame_file import multi_frame, write_multi_frame


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(5).integers(-1000, 2000, (6, 36, 40)).astype(np.int16)


def _placed(heights: list[float], **more: list[object]) -> list[dict[str, object]]:
    return [
        {"ImagePositionPatient": [-10.0, 0.0, z], **{key: values[i] for key, values in more.items()}}
        for i, z in enumerate(heights)
    ]


def test_the_real_series_converted_by_highdicom_is_the_same_image(tmp_path: Path, shared_data: Path) -> None:
    """Legacy converted enhanced CT: slices in any order, rescale and positions in functional groups."""
    folder = shared_data / "spine/ct_dicom/series"
    classic = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    study, series = generate_uid(), generate_uid()
    for one in classic:  # the data set was emptied of its identifiers; the standard wants them
        one.StudyInstanceUID, one.SeriesInstanceUID = study, series
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID
        one.SeriesNumber, one.AccessionNumber = 1, "1"
    enhanced = LegacyConvertedEnhancedCTImage(
        classic[::-1], generate_uid(), 2, generate_uid(), 1, transfer_syntax_uid=JPEG2000Lossless
    )
    assert enhanced.NumberOfFrames == 20
    path = tmp_path / "study" / "enhanced.dcm"
    path.parent.mkdir()
    enhanced.save_as(path)
    reference = read_image(folder)
    loaded = load_image(path.parent)
    assert content_hash(loaded.image) == content_hash(reference)
    assert loaded.header is not None
    assert (loaded.header.modality, loaded.header.vendor) == ("CT", "SIEMENS")
    assert content_hash(read_image(path)) == content_hash(reference)  # the file instead of its folder


def test_frames_are_ordered_by_position_and_rescaled_one_by_one(tmp_path: Path, voxels: np.ndarray) -> None:
    heights, slopes, intercepts = [15.0, 0.0, 9.0, 3.0, 12.0, 6.0], [1, 2, 0.5, 1, 3, 1], [0, 5, -3, 0.25, 1, 2]
    frames = _placed(heights, RescaleSlope=slopes, RescaleIntercept=intercepts)
    write_multi_frame(tmp_path / "d" / "a.dcm", multi_frame(voxels, frames))
    image = read_image(tmp_path / "d")
    order = np.argsort(heights)
    expected = [voxels[i] * float(slopes[i]) + intercepts[i] for i in order]
    assert np.array_equal(sitk.GetArrayFromImage(image), np.array(expected))
    assert image.GetSpacing() == pytest.approx((0.8, 0.8, 3.0))
    assert image.GetOrigin() == (-10.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1], ids=lambda uid: uid.name
)
def test_compressed_frames(tmp_path: Path, voxels: np.ndarray, syntax: UID) -> None:
    dataset = multi_frame(voxels, _placed([15.0, 0.0, 9.0, 3.0, 12.0, 6.0]))
    if syntax == JPEGLosslessSV1:
        as_jpeg_lossless(dataset)
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    write_multi_frame(tmp_path / "d" / "a.dcm", dataset)
    expected = voxels[np.argsort([15.0, 0.0, 9.0, 3.0, 12.0, 6.0])]
    assert np.array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "d")), expected)


def test_two_echoes_in_one_file_are_told_apart_by_the_sequence(tmp_path: Path, voxels: np.ndarray) -> None:
    """Proton density and T2 of one acquisition: t2_sag means the long echo."""
    frames = [
        {"ImagePositionPatient": [i // 2 * 4.0, 0.0, 0.0], "EffectiveEchoTime": (20.0, 90.0)[i % 2]} for i in range(6)
    ]
    shared = {"ImageOrientationPatient": list(SAGITTAL), "RepetitionTime": 3000.0}
    write_multi_frame(tmp_path / "d" / "a.dcm", multi_frame(voxels, frames, shared=shared, modality="MR"))
    image = load_image(tmp_path / "d", sequence="t2_sag").image
    assert image.GetSize() == (40, 36, 3)
    # SAGITTAL's normal points to the right: slices run against x
    assert np.array_equal(sitk.GetArrayFromImage(image), voxels[[5, 3, 1]])
    with pytest.raises(DicomSeriesError, match=r"echo 1\): sagittal, pd, 3 slices of 4.0 mm; .*echo 2\)"):
        load_image(tmp_path / "d")
    with pytest.raises(DicomSeriesError, match="none fits for t1_sag"):
        load_image(tmp_path / "d", sequence="t1_sag")


def test_phases_are_a_tie_and_named(tmp_path: Path, voxels: np.ndarray) -> None:
    frames = _placed([0.0, 0.0, 3.0, 3.0, 6.0, 6.0], TemporalPositionIndex=[1, 2] * 3)
    write_multi_frame(tmp_path / "d" / "a.dcm", multi_frame(voxels, frames))
    with pytest.raises(DicomSeriesError, match=r"temporal position 1\).*temporal position 2\)"):
        load_image(tmp_path / "d", sequence="ct")


def test_stacks_of_several_planes_are_told_apart(tmp_path: Path, voxels: np.ndarray) -> None:
    frames = [
        {
            "ImagePositionPatient": [4.0 * (i % 3), 0.0, 0.0] if i < 3 else [0.0, 0.0, 4.0 * (i % 3)],
            "ImageOrientationPatient": list(SAGITTAL) if i < 3 else [1.0, 0, 0, 0, 1.0, 0],
            "StackID": "1" if i < 3 else "2",
        }
        for i in range(6)
    ]
    shared = {"EffectiveEchoTime": 90.0, "RepetitionTime": 3000.0}
    write_multi_frame(tmp_path / "d" / "a.dcm", multi_frame(voxels, frames, shared=shared, modality="MR"))
    axial = load_image(tmp_path / "d", sequence="t2_ax").image
    assert np.array_equal(sitk.GetArrayFromImage(axial), voxels[3:])


def test_contrast_stated_by_an_enhanced_mr_goes_before_its_times(tmp_path: Path, voxels: np.ndarray) -> None:
    shared = {"EffectiveEchoTime": 90.0, "RepetitionTime": 3000.0, "AcquisitionContrast": "STIR"}
    write_multi_frame(tmp_path / "d" / "a.dcm", multi_frame(voxels, shared=shared, modality="MR"))
    with pytest.raises(DicomSeriesError, match="no t2_ax: its echo and repetition times say stir"):
        load_image(tmp_path / "d", sequence="t2_ax")
