"""Reading images: what comes back exactly, and what is refused by which name."""

from __future__ import annotations

import gzip
import os
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
    ImageConstant,
    ImageNotFinite,
    ImageUnitError,
    ImageUnreadable,
)
from pipelines.imaging.images import check_image, content_hash, load_image, read_canonical, read_image, write_canonical
from tests.pipelines.imaging.dicom_folder import SAGITTAL, SPACING, write_dicom


def an_image(seed: int = 0, dtype: type = np.int16) -> sitk.Image:
    rng = np.random.default_rng(seed)
    image = sitk.GetImageFromArray(rng.integers(-1000, 2000, (5, 6, 7)).astype(dtype))
    image.SetSpacing((0.7, 0.8, 3.3))
    image.SetOrigin((-12.3, 45.6, 7.8))
    return image


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


# --- files that cannot be read --------------------------------------------------------------------
def _nifti(folder: Path) -> bytes:
    sitk.WriteImage(an_image(), str(folder / "whole.nii"))
    return (folder / "whole.nii").read_bytes()


def _cut_nifti(path: Path) -> None:
    path.write_bytes(_nifti(path.parent)[:-100])


def _cut_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(_nifti(path.parent))[:-50])


def _cut_inside_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(_nifti(path.parent)[:-100]))


def _flipped_gzip(path: Path) -> None:
    data = bytearray(gzip.compress(_nifti(path.parent)))
    data[-6] ^= 0xFF  # the checksum
    path.write_bytes(data)


def _huge_nifti(path: Path) -> None:
    data = bytearray(_nifti(path.parent))
    data[42:48] = struct.pack("<3h", 30000, 30000, 30000)
    path.write_bytes(data)


def _sheared_nifti(path: Path) -> None:
    data = bytearray(_nifti(path.parent))
    data[252:256] = struct.pack("<2h", 0, 1)
    data[280:296] = struct.pack("<4f", 1, 0.5, 0.3, 0)
    path.write_bytes(data)


def _cut(writer_suffix: str, compress: bool = False):  # type: ignore[no-untyped-def]
    def make(path: Path) -> None:
        whole = path.with_name("whole" + writer_suffix)
        sitk.WriteImage(an_image(), str(whole), compress)
        path.write_bytes(whole.read_bytes()[:-100])

    return make


def _elsewhere_mhd(path: Path) -> None:
    (path.parent.parent / "secret.raw").write_bytes(bytes(1000))
    path.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 5 5 5\nElementType = MET_SHORT\nElementDataFile = ../secret.raw\n"
    )


def _elsewhere_nrrd(path: Path) -> None:
    (path.parent.parent / "secret.raw").write_bytes(bytes(1000))
    path.write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 5 5\nendian: little\nencoding: raw\n"
        f"data file: {path.parent.parent / 'secret.raw'}\n\n"
    )


def _written(image: sitk.Image):  # type: ignore[no-untyped-def]
    return lambda path: sitk.WriteImage(image, str(path))


UNREADABLE = {
    "missing": ("i.nii", lambda path: None),
    "empty": ("i.nii.gz", lambda path: path.write_bytes(b"")),
    "rubbish": ("i.nii.gz", lambda path: path.write_bytes(b"\x07\x01rubbish" * 300)),
    "text": ("i.nrrd", lambda path: path.write_text("see the other folder")),
    "nifti cut short": ("i.nii", _cut_nifti),
    "nifti header only": ("i.nii", lambda path: path.write_bytes(_nifti(path.parent)[:60])),
    "gzip cut short": ("i.nii.gz", _cut_gzip),
    "gzip whole, nifti inside cut short": ("i.nii.gz", _cut_inside_gzip),
    "gzip checksum": ("i.nii.gz", _flipped_gzip),
    "absurd size": ("i.nii", _huge_nifti),
    "sheared": ("i.nii", _sheared_nifti),
    "nrrd cut short": ("i.nrrd", _cut(".nrrd")),
    "compressed nrrd cut short": ("i.nrrd", _cut(".nrrd", True)),
    "mha cut short": ("i.mha", _cut(".mha")),
    "compressed mha cut short": ("i.mha", _cut(".mha", True)),
    "mhd pointing elsewhere": ("i.mhd", _elsewhere_mhd),
    "nrrd pointing elsewhere": ("i.nhdr", _elsewhere_nrrd),
    "two volumes": ("i.nii.gz", _written(sitk.JoinSeries([an_image(), an_image(1)]))),
    "vector": ("i.nii.gz", _written(sitk.Compose([an_image(), an_image(1)]))),
    "two dimensions": ("i.nii.gz", _written(an_image()[:, :, 2])),
    "one slice": ("i.nrrd", _written(an_image()[:, :, 2:3])),
    "complex": ("i.nrrd", _written(sitk.RealAndImaginaryToComplex(*[sitk.Cast(an_image(), sitk.sitkFloat32)] * 2))),
    "a picture": ("i.png", _written(sitk.Cast(an_image()[:, :, 2], sitk.sitkUInt8))),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_files_are_named_and_silent(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    name, make = UNREADABLE[kind]
    folder = tmp_path / "case"
    folder.mkdir()
    make(folder / name)
    capfd.readouterr()
    with pytest.raises(ImageUnreadable) as raised:
        read_image(folder / name, f"sub/{name}")
    assert raised.value.file == f"sub/{name}"
    assert raised.value.action
    assert str(tmp_path) not in raised.value.line()
    assert capfd.readouterr() == ("", "")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "i.nii")
    with pytest.raises(ImageUnreadable):
        read_image(tmp_path / "i.nii")


# --- voxel values ---------------------------------------------------------------------------------
def _filled(values: list[float], dtype: type = np.float32) -> sitk.Image:
    return sitk.GetImageFromArray(np.resize(np.array(values, dtype), (3, 4, 5)))


@pytest.mark.parametrize(
    ("sequence", "image", "error"),
    [
        ("t2_sag", _filled([1.0, np.nan]), ImageNotFinite),
        ("t2_sag", _filled([1.0, -np.inf]), ImageNotFinite),
        ("t2_sag", _filled([np.nan]), ImageNotFinite),
        ("t2_sag", _filled([4.0]), ImageConstant),
        ("ct", _filled([-1000.0]), ImageConstant),
        ("ct", _filled([0, 1024, 2900], np.uint16), ImageUnitError),  # offset left out
        ("ct", _filled([0, 255], np.uint8), ImageUnitError),  # a windowed picture
        ("ct", _filled([-2.1, 6.4]), ImageUnitError),  # z-scored
        ("ct", _filled([-1000, 80]), ImageUnitError),  # no bone left
        ("ct", _filled([-1e5, 1e5]), ImageUnitError),  # scaled by a hundred
    ],
)
def test_impossible_values_are_named(sequence: str, image: sitk.Image, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        check_image(image, sequence, "i.nii.gz")
    assert raised.value.file == "i.nii.gz"  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("spacing", [(0.0007, 0.0007, 0.003), (700.0, 700.0, 3000.0)])
def test_spacing_in_another_unit_is_named(spacing: tuple[float, ...]) -> None:
    image = an_image()
    image.SetSpacing(spacing)
    with pytest.raises(ImageUnitError, match="voxel size"):
        check_image(image, "t2_sag")


@pytest.mark.parametrize(
    ("sequence", "values"),
    [("ct", [-1207, 3382]), ("ct", [-150, 900]), ("ct", [-32768, 3071]), ("t1_sag", [0, 883]), ("mr_ax", [-47, 833])],
)
def test_possible_values_pass(sequence: str, values: list[float]) -> None:
    check_image(_filled(values), sequence)


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


def _two_series(folder: Path, v: np.ndarray) -> None:
    write_dicom(folder, v)
    write_dicom(folder, v, series="1.2.4", prefix="t")


def _cut_file(folder: Path, v: np.ndarray) -> None:
    path = write_dicom(folder, v)[-1]  # an end slice: positions alone would not show that it is gone
    path.write_bytes(path.read_bytes()[:200])


def _missing(folder: Path, v: np.ndarray) -> None:
    write_dicom(folder, v)[2].unlink()


def _doubled(folder: Path, v: np.ndarray) -> None:
    write_dicom(folder, v)
    write_dicom(folder, v[:2], prefix="again")


def _localizer(folder: Path, v: np.ndarray) -> None:
    write_dicom(folder, v)
    write_dicom(folder, v[:1], orientation=SAGITTAL, prefix="loc")


BROKEN_SERIES = {
    "empty folder": (lambda folder, v: folder.mkdir(), "no DICOM image"),
    "no DICOM": (lambda folder, v: (folder.mkdir(), (folder / "a.txt").write_text("x")), "no DICOM image"),
    "two series": (_two_series, r"2 series \(12 files\)"),
    "damaged file": (_cut_file, "damaged"),
    "missing slice": (_missing, r"1 of 4 distances are not the usual 3.00 mm \(6.00 mm\)"),
    "uneven slices": (lambda f, v: write_dicom(f, v, positions=[0, 3, 6, 9.4, 12, 15]), "2 of 5 distances"),
    "doubled slices": (_doubled, "2 of 8 slices"),
    "every slice doubled": (lambda f, v: write_dicom(f, v, positions=[0, 0, 3, 3, 6, 6]), "3 of 6 slices"),
    "single slice": (lambda f, v: write_dicom(f, v[:1]), "single slice"),
    "localizer among them": (_localizer, "size, pixel spacing or orientation"),
    "other pixel spacing": (
        lambda f, v: (write_dicom(f, v[:3]), write_dicom(f, v[3:], spacing=0.9, prefix="t")),
        "size, pixel spacing or orientation",
    ),
    "gantry tilt": (lambda f, v: write_dicom(f, v, shear=0.5), "tilted by 9.5 degrees"),
}


@pytest.mark.parametrize("kind", BROKEN_SERIES)
def test_broken_series_are_named_and_silent(
    tmp_path: Path, voxels: np.ndarray, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, message = BROKEN_SERIES[kind]
    make(tmp_path / "d", voxels)
    capfd.readouterr()
    with pytest.raises(DicomSeriesError, match=message) as raised:
        read_image(tmp_path / "d", "ct")
    assert raised.value.file == "ct"
    assert raised.value.action
    assert capfd.readouterr() == ("", "")


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
