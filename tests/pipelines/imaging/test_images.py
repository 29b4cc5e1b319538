"""Reading images: what comes back exactly, and what is refused by which name."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from feature_store.errors import (
    BlobCorrupt,
    DicomSeriesError,
    ImageNotFinite,
    ImageUnreadable,
)
from pipelines.imaging.images import check_image, content_hash, load_image, read_canonical, read_image, write_canonical
from tests.pipelines.imaging.dicom_folder import SPACING, write_dicom
from tests.pipelines.imaging.malformed_files import an_image


# --- formats ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["i.nii", "i.nii.gz", "i.nrrd", "i.nhdr", "i.mha", "i.mhd", "i.hdr"])
def test_formats_give_the_same_voxels_and_no_metadata(tmp_path: Path, name: str) -> None:
    image = an_image()
    image.SetMetaData("patient", "SECRET")
    sitk.WriteImage(image, str(tmp_path / name))
    read = read_image(tmp_path / name)
    assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(read.GetSpacing(), image.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(read.GetOrigin(), image.GetOrigin(), rtol=1e-6)
    assert read.GetMetaDataKeys() == ()


def test_a_fourth_dimension_of_one_is_no_dimension(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.JoinSeries([an_image()]), str(tmp_path / "i.nrrd"))
    assert read_image(tmp_path / "i.nrrd").GetSize() == (7, 6, 5)


# --- canonical form -----------------------------------------------------------------------------
@st.composite
def images(draw: st.DrawFn) -> sitk.Image:
    dtype = draw(st.sampled_from([np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64]))
    voxels = draw(hnp.arrays(dtype, (2, 3, 4)))
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(draw(st.tuples(*[st.floats(0.05, 30)] * 3)))
    image.SetOrigin(draw(st.tuples(*[st.floats(-1e4, 1e4)] * 3)))
    square = np.random.default_rng(draw(st.integers(0, 10**6))).normal(size=(3, 3))
    image.SetDirection(np.linalg.qr(square)[0].ravel().tolist())
    return image


@settings(max_examples=60, deadline=None)
@given(image=images())
def test_canonical_form_keeps_every_bit(image: sitk.Image, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("c") / "i.nrrd"
    write_canonical(image, path)
    read = read_canonical(path, content_hash(image))
    assert read.GetPixelID() == image.GetPixelID()
    assert read.GetSpacing() == image.GetSpacing()
    assert read.GetOrigin() == image.GetOrigin()
    assert read.GetDirection() == image.GetDirection()
    # bytes, so that NaN equals itself
    assert sitk.GetArrayFromImage(read).tobytes() == sitk.GetArrayFromImage(image).tobytes()


def test_plain_nrrd_would_lose_bits(tmp_path: Path) -> None:
    """Why the canonical form writes its geometry twice."""
    image = an_image()
    square = np.random.default_rng(1).normal(size=(3, 3))
    image.SetDirection(np.linalg.qr(square)[0].ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "i.nrrd"))
    assert content_hash(read_image(tmp_path / "i.nrrd")) != content_hash(image)


def test_canonical_file_holds_nothing_of_the_patient(tmp_path: Path) -> None:
    image = an_image()
    image.SetMetaData("0010|0010", "SECRET^NAME")
    write_canonical(image, tmp_path / "i.nrrd")
    assert b"SECRET" not in (tmp_path / "i.nrrd").read_bytes()
    assert image.GetMetaDataKeys() == ("0010|0010",)  # the caller's image is left alone


def test_hash_sees_voxels_type_and_geometry_only() -> None:
    image = an_image()
    digest = content_hash(image)
    tagged = sitk.Image(image)
    tagged.SetMetaData("a", "b")
    assert content_hash(tagged) == digest
    others = [sitk.Image(image) for _ in range(5)]
    others[0][0, 0, 0] = 7
    others[1].SetSpacing((0.7, 0.8, 3.3000001))
    others[2].SetOrigin((0, 0, 0))
    others[3].SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    others[4] = sitk.Cast(image, sitk.sitkInt32)
    assert len({digest, *(content_hash(other) for other in others)}) == 6
    minus_zero = sitk.Image(image)
    minus_zero.SetDirection((1, -0.0, 0, 0, 1, 0, 0, 0, 1))
    assert content_hash(minus_zero) == digest


def test_a_damaged_blob_is_named(tmp_path: Path) -> None:
    image, path = an_image(), tmp_path / "i.nrrd"
    sitk.WriteImage(image, str(path))
    with pytest.raises(BlobCorrupt):
        read_canonical(path)  # NRRD, but not one of ours
    write_canonical(image, path)
    with pytest.raises(BlobCorrupt):
        read_canonical(path, "0" * 64)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BlobCorrupt):
        read_canonical(path)


# --- voxel values ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["i.nii", "i.nii.gz", "i.hdr", "i.nrrd", "i.mha"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_format_hides_nan(tmp_path: Path, name: str, dtype: type, value: float) -> None:
    """The NIfTI reader alone would return zeros in their place."""
    image = an_image(dtype=dtype)
    image[6, 5, 4] = value  # the last voxel
    sitk.WriteImage(image, str(tmp_path / name))
    with pytest.raises(ImageNotFinite):
        check_image(read_image(tmp_path / name), "t2_sag")


def test_nifti_of_the_other_byte_order_and_version(tmp_path: Path) -> None:
    """Handmade headers: big-endian NIfTI-1 is read; cut short or with NaN it is refused."""
    voxels = np.arange(60, dtype=">f4")
    header = bytearray(352)
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, 40, 3, 3, 4, 5, 1, 1, 1, 1)
    struct.pack_into(">2h", header, 70, 16, 32)
    struct.pack_into(">8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into(">2f", header, 108, 352, 1)
    header[344:348] = b"n+1\0"
    path = tmp_path / "i.nii"
    path.write_bytes(header + voxels.tobytes())
    assert np.array_equal(sitk.GetArrayFromImage(read_image(path)).ravel(), np.arange(60))
    path.write_bytes(header + voxels.tobytes()[:-1])
    with pytest.raises(ImageUnreadable, match="cut short"):
        read_image(path)
    voxels[17] = np.nan
    path.write_bytes(header + voxels.tobytes())
    with pytest.raises(ImageNotFinite):
        read_image(path)


@pytest.mark.parametrize(
    ("sequence", "values"),
    [("ct", [-1207, 3382]), ("ct", [-150, 900]), ("ct", [-32768, 3071]), ("t1_sag", [0, 883]), ("mr_ax", [-47, 833])],
)
def test_possible_values_pass(sequence: str, values: list[float]) -> None:
    check_image(sitk.GetImageFromArray(np.resize(np.array(values, np.float32), (3, 4, 5))), sequence)


# --- DICOM ----------------------------------------------------------------------------------------
@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(3).integers(-1000, 2000, (6, 8, 9))


def test_dicom_slices_are_ordered_by_position(tmp_path: Path, voxels: np.ndarray) -> None:
    write_dicom(tmp_path / "d", voxels)
    (tmp_path / "d" / "README.txt").write_text("exported by us")
    (tmp_path / "d" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    loaded = load_image(tmp_path / "d")
    assert np.array_equal(sitk.GetArrayFromImage(loaded.image), voxels)
    np.testing.assert_allclose(loaded.image.GetSpacing(), SPACING)
    assert loaded.image.GetOrigin() == (-10.0, 0.0, 0.0)
    assert loaded.image.GetMetaDataKeys() == ()
    assert loaded.header is not None
    assert (loaded.header.modality, loaded.header.vendor, loaded.header.field_strength_t) == ("CT", "ACME", 1.5)
    assert str(loaded.header.study_date) == "2024-01-02"


def test_real_dicom_equals_gdcm_s_own_order(shared_data: Path) -> None:
    folder = shared_data / "spine/ct_dicom/series"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    assert len(names) == 20
    assert content_hash(read_image(folder)) == content_hash(sitk.ReadImage(names))


def test_real_dicom_with_a_slice_left_out(shared_data: Path, tmp_path: Path) -> None:
    for i, path in enumerate(sorted((shared_data / "spine/ct_dicom/series").iterdir())):
        if i != 7:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DicomSeriesError, match="missing"):
        read_image(tmp_path)
