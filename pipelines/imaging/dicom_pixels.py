"""Stored numbers of DICOM slices, whatever they are compressed with, and the values they stand for.

pydicom and its plugins decode uncompressed, deflated, big-endian, RLE, JPEG-LS, JPEG 2000 (also HTJ2K) and 8 bit
JPEG; lossless and 12 bit JPEG, for which it has no plugin here, go frame by frame to GDCM (through SimpleITK).
Lossy syntaxes are read as the decoder gives them: nothing can undo the loss.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
)

from feature_store.errors import DicomSeriesError, InputError
from pipelines.imaging.dicom_file import WHOLE, dicom_call, read_dataset
from pipelines.imaging.dicom_frame import Frame, Pixels
from pipelines.imaging.itk_calls import itk_call

BY_GDCM = frozenset({JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit})
_UNDECODED = "its pixels are damaged or cut short"
_PIXEL_MODULE = (
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip


def read_values(frames: Sequence[Frame], file: str) -> np.ndarray:
    """Values of the slices in their order: an array (slice, row, column) of :func:`value_type`.

    Raises DicomSeriesError where a file is damaged, cut short, or compressed in a way that nothing here decodes.
    """
    first = frames[0].plane
    assert first is not None
    kind = value_type(frames)
    values = np.empty((len(frames), first.rows, first.columns), kind)
    places: dict[Path, dict[int, int]] = {}
    for place, frame in enumerate(frames):
        places.setdefault(frame.path, {})[frame.index] = place
    for path, wanted in places.items():
        dataset = read_dataset(path, file)
        for index, stored in zip(wanted, stored_frames(dataset, list(wanted), file), strict=True):
            place = wanted[index]
            if stored.shape != values.shape[1:]:
                raise DicomSeriesError(
                    "a slice's pixels have another size than its header says.", action=WHOLE, file=file
                )
            values[place] = _rescaled(stored, frames[place].pixels, kind, file)
    return values


def stored_frames(
    dataset: Dataset, indices: Sequence[int], file: str, error: type[InputError] = DicomSeriesError
) -> list[np.ndarray]:
    """Those frames' stored numbers, each (row, column). Raises ``error`` where they cannot be decoded."""
    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta else None
    if syntax in BY_GDCM:
        return _by_gdcm(dataset, indices, file, error)
    if dataset.get("BitsAllocated") == 1 and not getattr(syntax, "is_compressed", False):
        return dicom_call(lambda: _single_bits(dataset, indices), error, _UNDECODED, file)
    if syntax is None and meta is not None:  # files without a meta group are implicit or explicit, as they were read
        little = dataset.original_encoding[1] is not False
        meta.TransferSyntaxUID = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    elif not _is_decodable(syntax):
        raise error(
            f"its compression ({getattr(syntax, 'name', 'of no name')[:64]}) is not supported.",
            action="Export it uncompressed, or convert it to NIfTI or NRRD.",
            file=file,
        )
    # `raw`: no change of colour space; single numbers only come this far
    return dicom_call(lambda: list(iter_pixels(dataset, indices=list(indices), raw=True)), error, _UNDECODED, file)


def _is_decodable(syntax: UID | None) -> bool:
    try:
        return syntax is None or get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _single_bits(dataset: Dataset, indices: Sequence[int]) -> list[np.ndarray]:
    """Packed bits, where a frame need not begin at a byte (pydicom alone decodes only those that do)."""
    shape = (int(dataset.Rows), int(dataset.Columns))
    size = shape[0] * shape[1]
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    frames = []
    for index in indices:
        first, last = index * size, (index + 1) * size
        bits = np.unpackbits(packed[first // 8 : -(-last // 8)], bitorder="little")
        frames.append(bits[first % 8 : first % 8 + size].reshape(shape))
    return frames


def value_type(frames: Sequence[Frame]) -> np.dtype:
    """The smallest type that holds every value the headers allow, so that it does not depend on the voxels.

    Stored type where nothing is rescaled; float64 for fractions; else the smallest integer type over the range of
    the stored bits, unsigned where nothing is negative. The same rule as GDCM's, so that a series has the hash it
    has in every other ITK program.
    """
    pixels = {frame.pixels for frame in frames}
    if all(p.slope == 1 and p.intercept == 0 for p in pixels):
        kinds = {np.dtype(f"{'i' if p.signed else 'u'}{p.allocated // 8}") for p in pixels}
        return np.result_type(*kinds)
    if any(p.slope != int(p.slope) or p.intercept != int(p.intercept) for p in pixels):
        return np.dtype(np.float64)
    ends = []
    for p in pixels:
        low, high = (-(2 ** (p.stored - 1)), 2 ** (p.stored - 1) - 1) if p.signed else (0, 2**p.stored - 1)
        ends += [low * p.slope + p.intercept, high * p.slope + p.intercept]
    kinds_in_order = (np.uint8, np.uint16, np.uint32) if min(ends) >= 0 else (np.int8, np.int16, np.int32)
    for kind in kinds_in_order:
        if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float64)


def _rescaled(stored: np.ndarray, pixels: Pixels, kind: np.dtype, file: str) -> np.ndarray:
    if stored.dtype == kind and pixels.slope == 1 and pixels.intercept == 0:
        return stored
    if kind.kind == "f":
        return stored * pixels.slope + pixels.intercept
    values = stored.astype(np.int64) * int(pixels.slope) + int(pixels.intercept)
    if values.min() < np.iinfo(kind).min or values.max() > np.iinfo(kind).max:
        raise DicomSeriesError(
            "a slice's compressed pixels hold larger numbers than the bits its header states.", action=WHOLE, file=file
        )
    return values.astype(kind)


def _by_gdcm(dataset: Dataset, indices: Sequence[int], file: str, error: type[InputError]) -> list[np.ndarray]:
    """Each frame as a file of its own without rescale tags, so that GDCM gives the stored numbers."""

    def cut() -> list[bytes]:
        count = int(dataset.get("NumberOfFrames") or 1)
        encoded = list(generate_frames(dataset.PixelData, number_of_frames=count))
        return [encoded[index] for index in indices]

    found = []
    with tempfile.TemporaryDirectory(prefix="asdeg-") as folder:
        path = Path(folder) / "frame.dcm"
        for data in dicom_call(cut, error, _UNDECODED, file):
            dicom_call(partial(_write_frame, dataset, data, path), error, _UNDECODED, file)
            reader = sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(str(path))
            image = itk_call(reader.Execute, error, _UNDECODED, file)
            found.append(sitk.GetArrayFromImage(image)[0])
    return found


def _write_frame(dataset: Dataset, data: bytes, path: Path) -> None:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = UID("2.25.1")
    for keyword in _PIXEL_MODULE:
        if keyword in dataset:
            setattr(one, keyword, dataset[keyword].value)
    one.PixelData = encapsulate([data])
    one["PixelData"].VR = "OB"
    one["PixelData"].is_undefined_length = True
    one.save_as(path, enforce_file_format=True)
