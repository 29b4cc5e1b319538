"""Small DICOM series written on the spot by pydicom, whole or broken in a stated way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.filereader import dcmread
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

SPACING = (0.8, 0.8, 3.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
COMPRESSED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)
"""What pydicom itself compresses to without loss."""
_NUMBERS = iter(range(1, 10**9))

Tags = dict[str, Any]


def slice_dataset(plane: np.ndarray, tags: Tags | None = None) -> Dataset:
    """One classic slice that holds ``plane`` (row, column; int16, uint16 or uint8) as its stored numbers.

    ``tags`` are set by keyword on top of the usual ones; None leaves a tag out.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    bits = plane.dtype.itemsize * 8
    usual: Tags = {
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "StudyDate": "20240102",
        "Manufacturer": "ACME",
        "MagneticFieldStrength": 1.5,
        "PatientName": "SECRET^NAME",
        "PatientID": "SECRET-ID",
        "SeriesDescription": "SECRET series",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.3",
        "FrameOfReferenceUID": "1.2.9",
        "SOPInstanceUID": UID(f"1.2.3.{next(_NUMBERS)}"),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": plane.shape[0],
        "Columns": plane.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(plane.dtype.kind == "i"),
        "PixelSpacing": [SPACING[1], SPACING[0]],
        "SliceThickness": SPACING[2],
        "ImagePositionPatient": [-10.0, 0.0, 0.0],
        "ImageOrientationPatient": list(AXIAL),
    }
    wanted = {**usual, **(tags or {})}
    wanted.setdefault("SOPClassUID", CTImageStorage if wanted["Modality"] == "CT" else MRImageStorage)
    for keyword, value in wanted.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = np.ascontiguousarray(plane).tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    return dataset


def write_dicom(
    folder: Path,
    voxels: np.ndarray,
    *,
    series: str = "1.2.3",
    modality: str = "CT",
    positions: Sequence[float] | None = None,
    shear: float = 0.0,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-10.0, 0.0, 0.0),
    study_date: str = "20240102",
    prefix: str = "s",
    spacing: float = SPACING[0],
    distance: float = SPACING[2],
    dtype: type = np.int16,
    syntax: UID | None = None,
    tags: Tags | None = None,
    each: Callable[[int], Tags] = lambda i: {},
) -> list[Path]:
    """One file a slice of ``voxels`` (slice, row, column), positions growing along the slices' normal.

    ``positions`` are distances from ``origin`` along the normal; ``shear`` moves each slice along its columns by
    that many mm a slice; ``tags`` are for all slices and ``each(i)`` for one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(along_row, along_column)
    paths = []
    for i, plane in enumerate(voxels):
        place = np.array(origin) + (positions[i] if positions else i * distance) * normal + i * shear * along_column
        dataset = slice_dataset(
            plane.astype(dtype),
            {
                "Modality": modality,
                "StudyDate": study_date,
                "SeriesInstanceUID": series,
                "InstanceNumber": i + 1,
                "PixelSpacing": [spacing, spacing],
                "ImagePositionPatient": [decimal(value) for value in place],
                "ImageOrientationPatient": [decimal(value) for value in orientation],
                **(tags or {}),
                **each(i),
            },
        )
        path = folder / f"{prefix}{len(voxels) - i:03d}.dcm"  # names run against the positions
        save(recoded(dataset, syntax) if syntax else dataset, path)
        paths.append(path)
    return paths


def decimal(value: float) -> str:
    """A decimal string of at most 16 characters, as headers hold it."""
    return f"{value:.10f}"[:16] if abs(value) < 1e4 else f"{value:.8g}"


def save(dataset: Dataset, path: Path) -> Path:
    """Write with preamble and meta group, in the byte order of the transfer syntax."""
    dcmwrite(path, dataset, enforce_file_format=True)  # not save_as: it refuses to change the byte order
    return path


def recoded(dataset: Dataset, syntax: UID, **options: Any) -> Dataset:
    """The same slice in another transfer syntax (changed in place)."""
    if syntax == JPEGLosslessSV1:
        as_jpeg_lossless(dataset)
    elif syntax in COMPRESSED or options:
        dataset.compress(syntax, generate_instance_uid=False, **options)
    elif syntax == ExplicitVRBigEndian:
        plane = dataset.pixel_array
        dataset.PixelData = plane.astype(plane.dtype.newbyteorder(">")).tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def as_jpeg_lossless(dataset: Dataset) -> None:
    """In place, every frame. GDCM compresses, because pydicom cannot."""
    frames = []
    for plane in dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns):
        with tempfile.TemporaryDirectory() as folder:
            writer = sitk.ImageFileWriter()
            writer.SetImageIO("GDCMImageIO")
            writer.SetUseCompression(True)
            writer.SetCompressor("JPEG")
            writer.SetFileName(f"{folder}/one.dcm")
            writer.Execute(sitk.GetImageFromArray(plane[None]))
            written = dcmread(f"{folder}/one.dcm")
        assert written.file_meta.TransferSyntaxUID == JPEGLosslessSV1
        frames += generate_frames(written.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
