"""Vendors' ways of writing one series: the same volume comes back, or a named reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import MRImageStorage

from feature_store.errors import DicomSeriesError
from pipelines.imaging.dicom_series import TILT_DEGREES, UNEVEN
from pipelines.imaging.images import LoadedImage, content_hash, load_image, read_image
from tests.pipelines.imaging.dicom_folder import AXIAL, CORONAL, SAGITTAL, slice_dataset, write_dicom


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 2000, (6, 8, 9)).astype(np.int16)


def _turned(degrees: tuple[float, float, float]) -> tuple[float, ...]:
    transform = sitk.Euler3DTransform((0, 0, 0), *np.radians(degrees))
    turn = np.array(transform.GetMatrix()).reshape(3, 3)
    return (*turn[:, 0], *turn[:, 1])


@pytest.mark.parametrize(
    "orientation",
    [AXIAL, SAGITTAL, CORONAL, _turned((7, -4, 11)), _turned((80, 3, -2)), tuple(-v for v in AXIAL[:3]) + AXIAL[3:]],
    ids=["axial", "sagittal", "coronal", "oblique", "oblique coronal", "rows to the right"],
)
@pytest.mark.parametrize("distance", [3.0, 0.6])
def test_any_orientation_is_read_as_itk_reads_it(
    tmp_path: Path, voxels: np.ndarray, orientation: tuple[float, ...], distance: float
) -> None:
    paths = write_dicom(
        tmp_path / "d", voxels, orientation=orientation, distance=distance, origin=(-120.25, 33.5, -700)
    )
    ours, itks = read_image(tmp_path / "d"), sitk.ReadImage([str(path) for path in paths])
    assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(itks))
    assert ours.GetPixelID() == itks.GetPixelID()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(ours, name)(), getattr(itks, name)(), rtol=0, atol=1e-9)


def _read(folder: Path, voxels: np.ndarray, **options: Any) -> sitk.Image:
    write_dicom(folder, voxels, **options)
    return read_image(folder)


SAME_VOLUME: dict[str, dict[str, Any]] = {
    "no SliceThickness, no SpacingBetweenSlices": {"tags": {"SliceThickness": None}},
    "a wrong SliceThickness": {"tags": {"SliceThickness": 9.0}},
    "a wrong SpacingBetweenSlices": {"tags": {"SpacingBetweenSlices": -1.0}},
    "feet first": {"tags": {"PatientPosition": "FFS"}},
    "head first prone": {"tags": {"PatientPosition": "HFP"}},
    "instance numbers run backwards": {"each": lambda i: {"InstanceNumber": 100 - i}},
    "no instance numbers": {"tags": {"InstanceNumber": None}},
    "positions rounded to a hundredth": {"positions": [0, 3.01, 6.0, 8.99, 12.0, 15.0]},
    "every slice its own acquisition": {"each": lambda i: {"AcquisitionNumber": i}},
    "a stated tilt that the positions do not have": {"tags": {"GantryDetectorTilt": 12.0}},
    "Philips' private scaling": {"each": lambda i: {"Manufacturer": "Philips Medical Systems"}},
    "no SOP class": {"tags": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}},
}


@pytest.mark.parametrize("quirk", SAME_VOLUME)
def test_quirks_that_change_nothing(tmp_path: Path, voxels: np.ndarray, quirk: str) -> None:
    plain, quirky = _read(tmp_path / "a", voxels), _read(tmp_path / "b", voxels, **SAME_VOLUME[quirk])
    assert content_hash(plain) == content_hash(quirky)


def test_philips_private_scaling_is_left_alone(tmp_path: Path, voxels: np.ndarray) -> None:
    """Only the standard rescale counts, for MR as well; GDCM would take the private one instead."""
    paths = write_dicom(tmp_path / "d", voxels, modality="MR", tags={"RescaleSlope": 2, "RescaleIntercept": 1})
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.Manufacturer = "Philips Medical Systems"
        block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", 7.5)
        dataset.save_as(path)
    assert np.array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "d")), 2 * voxels + 1)


def test_slices_in_reverse_order_of_the_normal(tmp_path: Path, voxels: np.ndarray) -> None:
    """Positions fall along the normal while file names and instance numbers grow."""
    image = _read(tmp_path / "d", voxels, positions=[-3.0 * i for i in range(6)])
    assert np.array_equal(sitk.GetArrayFromImage(image), voxels[::-1])
    assert image.GetOrigin()[2] == -15.0


# --- values -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tags", "dtype"),
    [
        ({}, np.int16),
        ({"BitsStored": 12, "HighBit": 11}, np.int16),
        ({"RescaleSlope": 1, "RescaleIntercept": -1024}, np.int32),  # 16 bits stored may reach below -32768
        ({"RescaleSlope": 1, "RescaleIntercept": -1024, "BitsStored": 12, "HighBit": 11}, np.int16),
        ({"RescaleSlope": "0.5", "RescaleIntercept": 0}, np.float64),
        ({"RescaleSlope": 1, "RescaleIntercept": "0.25"}, np.float64),
    ],
)
def test_values_and_their_type_are_itk_s(tmp_path: Path, voxels: np.ndarray, tags: dict[str, Any], dtype: type) -> None:
    stored = voxels - 1000 if not tags else voxels
    paths = write_dicom(tmp_path / "d", stored, tags=tags)
    read = sitk.GetArrayFromImage(read_image(tmp_path / "d"))
    assert read.dtype == dtype
    assert np.array_equal(read, sitk.GetArrayFromImage(sitk.ReadImage([str(path) for path in paths])))


def test_12_bits_in_16_with_overlay_bits_above(tmp_path: Path, voxels: np.ndarray) -> None:
    """Old scanners keep graphics in the unused high bits; they are no part of the value."""
    tags = {"BitsStored": 12, "HighBit": 11}
    image = _read(tmp_path / "d", voxels.astype(np.uint16) | 0x8000, dtype=np.uint16, tags=tags)
    assert np.array_equal(sitk.GetArrayFromImage(image), voxels)


def test_negative_12_bit_numbers_keep_their_sign(tmp_path: Path) -> None:
    stored = np.array([-2048, -1, 0, 2047] * 9).reshape(3, 3, 4)
    tags = {"BitsStored": 12, "HighBit": 11}
    image = _read(tmp_path / "d", stored & 0x0FFF, dtype=np.int16, tags=tags)
    assert np.array_equal(sitk.GetArrayFromImage(image), stored)


def test_padding_stays_what_it_is(tmp_path: Path, voxels: np.ndarray) -> None:
    """Outside the reconstruction circle GE stores -2000: rescaled like its neighbours, as every other reader does."""
    voxels[:, 0, 0] = -2000
    tags = {"PixelPaddingValue": -2000, "RescaleSlope": 1, "RescaleIntercept": -1024}
    read = sitk.GetArrayFromImage(_read(tmp_path / "d", voxels, tags=tags))
    assert np.array_equal(read, voxels.astype(int) - 1024)


def test_rescale_that_differs_by_slice(tmp_path: Path, voxels: np.ndarray) -> None:
    read = sitk.GetArrayFromImage(_read(tmp_path / "d", voxels, each=lambda i: {"RescaleSlope": 1 + i / 4}))
    assert np.array_equal(read, np.array([plane * (1 + i / 4) for i, plane in enumerate(voxels)]))
    assert read.dtype == np.float64


def test_a_file_without_preamble_or_meta_group(tmp_path: Path, voxels: np.ndarray) -> None:
    for i, plane in enumerate(voxels):
        dataset = slice_dataset(plane, {"ImagePositionPatient": [0, 0, 3.0 * i]})
        del dataset.file_meta
        dataset.save_as(tmp_path / f"IM{i}", implicit_vr=True, little_endian=True)
    assert np.array_equal(sitk.GetArrayFromImage(read_image(tmp_path)), voxels)


# --- several volumes in one series --------------------------------------------------------------------
def _interleaved(folder: Path, voxels: np.ndarray, of_each: tuple[dict[str, Any], dict[str, Any]], **more: Any) -> None:
    tags = {"RepetitionTime": 3000.0, "SeriesNumber": 5}
    for part, own in enumerate(of_each):
        write_dicom(folder, voxels + 100 * part, modality="MR", tags={**tags, **own}, prefix=f"p{part}", **more)


SPLIT = {
    "echo": ({"EchoTime": 20.0}, {"EchoTime": 90.0}),
    "temporal position": ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}),
    "acquisition": ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
    "kind of image": ({"ImageType": ["ORIGINAL", "PRIMARY", "M"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}),
    "b-value": ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 800.0}),
}


@pytest.mark.parametrize("by", SPLIT)
def test_two_volumes_in_a_series_are_told_apart(tmp_path: Path, voxels: np.ndarray, by: str) -> None:
    _interleaved(tmp_path / "d", voxels, SPLIT[by])
    if by == "b-value":  # the diffusion image is never taken for the scan, so one is left
        assert np.array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "d")), voxels)
        return
    with pytest.raises(DicomSeriesError) as raised:
        read_image(tmp_path / "d")
    assert f"series 5 ({by} 1)" in raised.value.message
    assert f"series 5 ({by} 2)" in raised.value.message


def test_of_two_echoes_the_one_that_the_sequence_means(tmp_path: Path, voxels: np.ndarray) -> None:
    _interleaved(tmp_path / "d", voxels, SPLIT["echo"], orientation=SAGITTAL)
    for number in (None, 5):
        image = load_image(tmp_path / "d", sequence="t2_sag", series_number=number).image
        assert np.array_equal(sitk.GetArrayFromImage(image), voxels + 100)


def test_a_split_that_leaves_a_part_unwhole_is_no_split(tmp_path: Path, voxels: np.ndarray) -> None:
    _interleaved(tmp_path / "d", voxels, SPLIT["echo"])
    (tmp_path / "d" / "p1003.dcm").unlink()
    with pytest.raises(DicomSeriesError, match="5 of 11 slices lie where another one lies"):
        read_image(tmp_path / "d")


# --- where the slices really lie ----------------------------------------------------------------------
def test_slice_positions_of_the_header_are_kept_beside_the_even_grid(tmp_path: Path, voxels: np.ndarray) -> None:
    places = [0, 3.01, 6.0, 8.99, 12.0, 15.0]
    write_dicom(tmp_path / "d", voxels, positions=places)
    loaded = load_image(tmp_path / "d")
    assert isinstance(loaded, LoadedImage)
    assert [z for _, _, z in loaded.slice_origins] == pytest.approx(places)
    assert loaded.image.GetSpacing()[2] == pytest.approx(3.0)


def test_tolerances_are_small() -> None:
    """Raising one to let a bad series through has to change this test as well."""
    assert UNEVEN <= 0.05
    assert TILT_DEGREES <= 0.5


def test_no_identifier_reaches_what_is_kept(tmp_path: Path, voxels: np.ndarray) -> None:
    write_dicom(tmp_path / "d", voxels, tags={"SOPClassUID": MRImageStorage})
    assert "SECRET" not in repr(load_image(tmp_path / "d"))
