"""Whatever a DICOM file is compressed with: the same voxels as uncompressed, or a named refusal."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from feature_store.errors import DicomSeriesError
from pipelines.imaging.dicom_pixels import stored_frames
from pipelines.imaging.images import content_hash, read_image
from tests.pipelines.imaging.dicom_folder import recoded, save, write_dicom

SLICES = 3
LOSSLESS = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}


@pytest.fixture(scope="module")
def real_slices(shared_data: Path) -> list[Dataset]:
    """The last slices of the real CT series, decompressed: unsigned 12 bit in 16, rescaled by -1024."""
    slices = [pydicom.dcmread(path) for path in sorted((shared_data / "spine/ct_dicom/series").iterdir())[-SLICES:]]
    for one in slices:
        one.decompress(generate_instance_uid=False)
    assert {(one.BitsStored, one.PixelRepresentation, one.RescaleIntercept) for one in slices} == {(12, 0, -1024)}
    return slices


def _copy(dataset: Dataset) -> Dataset:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def _write(folder: Path, slices: list[Dataset], syntax: UID, **options: object) -> Path:
    folder.mkdir()
    for i, one in enumerate(slices):
        save(recoded(_copy(one), syntax, **options), folder / f"{i}.dcm")
    assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in folder.iterdir()} == {syntax}
    return folder


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_real_series_is_the_same_in_every_lossless_syntax(
    tmp_path: Path, real_slices: list[Dataset], name: str, shared_data: Path
) -> None:
    """The reference is what ITK reads from the original files (JPEG 2000), voxels, type and geometry."""
    originals = sorted((shared_data / "spine/ct_dicom/series").iterdir())[-SLICES:]
    by_height = sorted(originals, key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))
    reference = sitk.ReadImage([str(path) for path in by_height])
    read = read_image(_write(tmp_path / "d", real_slices, LOSSLESS[name]))
    assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(reference))
    assert content_hash(read) == content_hash(reference)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name in LOSSLESS
        for dtype in (np.int16, np.uint16, np.uint8)
        if (name, dtype) != ("JPEG lossless", np.uint8)  # nothing here writes it
    ],
)
def test_signed_unsigned_and_8_bit(tmp_path: Path, name: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    kind = np.iinfo(dtype)
    voxels = rng.integers(kind.min, kind.max, (3, 33, 47), endpoint=True).astype(dtype)
    write_dicom(tmp_path / "d", voxels, dtype=dtype, syntax=LOSSLESS[name], modality="MR")
    read = sitk.GetArrayFromImage(read_image(tmp_path / "d"))
    assert read.dtype == dtype
    assert np.array_equal(read, voxels)


def test_lossy_jpeg_2000_and_jpeg_ls_are_read_as_they_were_left(tmp_path: Path, real_slices: list[Dataset]) -> None:
    """Within the loss that the encoder was allowed: nothing can be exact here."""
    exact = sitk.GetArrayFromImage(read_image(_write(tmp_path / "a", real_slices, ExplicitVRLittleEndian)))
    near = sitk.GetArrayFromImage(read_image(_write(tmp_path / "b", real_slices, JPEGLSNearLossless, jls_error=2)))
    assert 0 < np.abs(near.astype(int) - exact).max() <= 2
    lossy = sitk.GetArrayFromImage(read_image(_write(tmp_path / "c", real_slices, JPEG2000, j2k_psnr=[80])))
    assert 0 < np.abs(lossy.astype(int) - exact).mean() < 5


def test_8_bit_jpeg_is_read_as_its_decoder_gives_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    voxels = rng.integers(0, 255, (3, 16, 16)).astype(np.uint8)
    decoded = []
    for i, path in enumerate(write_dicom(tmp_path / "d", voxels, dtype=np.uint8, modality="MR")):
        buffer = io.BytesIO()
        Image.fromarray(voxels[i]).save(buffer, "JPEG", quality=95)
        decoded.append(np.array(Image.open(io.BytesIO(buffer.getvalue()))))
        dataset = pydicom.dcmread(path)
        dataset.PixelData = encapsulate([buffer.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        save(dataset, path)
    assert np.array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "d")), np.array(decoded))


VENDORS_FILES = (
    "MR_small_RLE", "MR_small_bigendian", "MR_small_expb", "MR_small_implicit", "MR_small_jp2klossless",
    "MR_small_jpeg_ls_lossless", "MR_small_padded",
)  # fmt: skip


@pytest.mark.parametrize("name", VENDORS_FILES)
def test_files_of_other_writers_decode_alike(name: str) -> None:
    """One MR slice that pydicom ships in several syntaxes, written by GDCM, DCMTK and others."""
    one, other = (pydicom.dcmread(str(get_testdata_file(f"{n}.dcm"))) for n in ("MR_small", name))
    (plain,), (decoded,) = stored_frames(one, [0], "a"), stored_frames(other, [0], "b")
    assert np.array_equal(plain, decoded)


@pytest.mark.parametrize("name", ["JPEG-lossy", "JPGExtended"])
def test_12_bit_jpeg_is_decoded_by_gdcm(name: str) -> None:
    """Files that pillow cannot decode; the range is that of 12 bit, which an 8 bit decoder would not reach."""
    path = str(get_testdata_file(f"{name}.dcm"))
    (stored,) = stored_frames(pydicom.dcmread(path), [0], "a")
    assert stored.shape == (1024, 256)
    assert 255 < stored.max() < 4096
    assert np.array_equal(stored, sitk.GetArrayFromImage(sitk.ReadImage(path))[0])


def test_an_unsupported_syntax_is_named(tmp_path: Path) -> None:
    for path in write_dicom(tmp_path / "d", np.zeros((3, 8, 8))):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = encapsulate([b"\x00" * 64])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.103")  # MPEG-4
        save(dataset, path)
    with pytest.raises(DicomSeriesError, match=r"MPEG-4.*is not supported"):
        read_image(tmp_path / "d")


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_file_cut_short_is_never_filled_up(tmp_path: Path, name: str, share: float) -> None:
    paths = write_dicom(tmp_path / "d", np.random.default_rng(3).integers(0, 999, (3, 40, 40)), syntax=LOSSLESS[name])
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DicomSeriesError):
        read_image(tmp_path / "d")
