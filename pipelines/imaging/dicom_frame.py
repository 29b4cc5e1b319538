"""One slice of a DICOM series: a classic file, or one frame of an (enhanced) multi-frame file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from feature_store.errors import DicomSeriesError
from pipelines.imaging.acquisition import Acquisition
from pipelines.imaging.dicom_file import WHOLE, dicom_call, image_files
from pipelines.imaging.functional_groups import FrameHeader, frame_headers
from pipelines.imaging.series_header import SeriesHeader

SPLITS = ("stack", "echo", "temporal position", "acquisition", "kind of image", "b-value")
"""By what a series may hold several volumes, in the order it is tried."""


@dataclass(frozen=True)
class Plane:
    """Where a slice's voxels lie, in mm of the patient's coordinates (DICOM PS3.3 C.7.6.2.1).

    ``along_row`` points where the column index grows, ``along_column`` where the row index grows; ``position`` is
    the centre of the first voxel; ``spacing`` is between rows, between columns.
    """

    rows: int
    columns: int
    spacing: tuple[float, float]
    along_row: np.ndarray
    along_column: np.ndarray
    position: np.ndarray

    @classmethod
    def of(cls, header: FrameHeader) -> Plane | None:
        """None where position, orientation, size or pixel spacing is missing or impossible."""
        rows, columns = header.number("Rows"), header.number("Columns")
        spacing, cosines = header.numbers(2, "PixelSpacing"), header.numbers(6, "ImageOrientationPatient")
        position = header.numbers(3, "ImagePositionPatient")
        if not rows or not columns or spacing is None or cosines is None or position is None or min(spacing) <= 0:
            return None
        row, column = np.array(cosines[:3]), np.array(cosines[3:])
        lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
        if not np.allclose(lengths, 1, atol=1e-2) or abs(float(row @ column)) > 1e-2:
            return None
        return cls(int(rows), int(columns), (spacing[0], spacing[1]), row, column, np.array(position))

    @property
    def normal(self) -> np.ndarray:
        normal = np.cross(self.along_row, self.along_column)
        return np.asarray(normal / np.linalg.norm(normal))

    @property
    def axes(self) -> np.ndarray:
        """Columns along row, column and normal, of unit length at right angles: header cosines are rounded.

        The same order of products as ITK's, so that the last bits agree.
        """
        normal = self.normal
        row = np.cross(self.along_column, normal)
        row /= np.linalg.norm(row)
        return np.stack([row, np.cross(normal, row), normal], axis=1)

    @property
    def name(self) -> str:
        """``axial``, ``sagittal`` or ``coronal`` by the body's nearest axis; ``oblique`` past 45 degrees of all."""
        away = np.abs(self.normal)
        axis = int(np.argmax(away))
        return ("sagittal", "coronal", "axial")[axis] if away[axis] > np.sqrt(0.5) else "oblique"


@dataclass(frozen=True)
class Pixels:
    """How stored numbers become voxel values: ``stored * slope + intercept`` (the Modality LUT module)."""

    slope: float
    intercept: float
    allocated: int
    stored: int
    signed: bool
    fault: str = ""
    """Why they cannot become values at all."""

    @classmethod
    def of(cls, header: FrameHeader) -> Pixels:
        """Philips' private scaling and real-world value maps are left alone: the standard rescale is what counts."""
        allocated = int(header.number("BitsAllocated") or 0)
        slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
        fault = ""
        if not header.number("Rows") or not header.number("Columns"):
            fault = "a DICOM file is damaged, cut short, or holds no image"
        elif "MOSAIC" in header.texts("ImageType"):
            fault = "each file is a mosaic of many slices"
        elif (header.number("SamplesPerPixel") or 1) != 1:
            fault = "the slices are in colour"
        elif header.text("PhotometricInterpretation").upper() == "MONOCHROME1":
            fault = "the slices are stored inverted (MONOCHROME1)"
        elif header.text("PhotometricInterpretation").upper() == "PALETTE COLOR":
            fault = "the slices are in colour (a palette)"
        elif header.get("ModalityLUTSequence"):
            fault = "its values go through a look-up table and no slope"
        elif allocated not in (8, 16, 32):
            fault = f"its voxels have {allocated} bits"
        elif slope == 0:
            fault = "its rescale slope is 0"
        return cls(
            slope=1.0 if slope is None else slope,
            intercept=0.0 if intercept is None else intercept,
            allocated=allocated,
            stored=int(header.number("BitsStored") or allocated),
            signed=header.number("PixelRepresentation") == 1,
            fault=fault,
        )


@dataclass(frozen=True)
class Frame:
    """A slice and everything its header says that matters. ``index`` counts the frames of its file from 0."""

    path: Path
    index: int
    series: tuple[str, ...]
    plane: Plane | None
    pixels: Pixels
    made: Acquisition
    header: SeriesHeader
    splits: tuple[str, ...] = field(default=("",) * len(SPLITS))


def read_frames(folder: Path, file: str) -> list[Frame]:
    """Every slice of every image in a folder, or of one file; headers only. Raises DicomSeriesError."""
    frames: list[Frame] = []
    for path, dataset in image_files(folder, file):
        frames += dicom_call(partial(frames_of, dataset, path), DicomSeriesError, _DAMAGED, file)
    return frames


_DAMAGED = "a DICOM file's header cannot be understood"


def frames_of(dataset: Dataset, path: Path) -> list[Frame]:
    """The slices of one file; a multi-frame file that does not say where its frames lie is one with that fault."""
    headers = frame_headers(dataset)
    if not headers:
        (whole,) = _frames((FrameHeader(dataset, {}, {}),), path)
        fault = "a multi-frame file does not say where its frames lie"
        return [replace(whole, plane=None, pixels=replace(whole.pixels, fault=fault))]
    return _frames(headers, path)


def _frames(headers: Sequence[FrameHeader], path: Path) -> list[Frame]:
    series = _series_header(headers[0])
    key = tuple(headers[0].text(name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber"))
    return [
        Frame(path, index, key, Plane.of(header), Pixels.of(header), Acquisition.of(header), series, _splits(header))
        for index, header in enumerate(headers)
    ]


def _splits(header: FrameHeader) -> tuple[str, ...]:
    return (
        header.text("StackID"),
        header.text("EffectiveEchoTime", "EchoTime", "EchoNumbers"),
        header.text("TemporalPositionIndex", "TemporalPositionIdentifier"),
        header.text("FrameAcquisitionNumber", "AcquisitionNumber"),
        "\\".join(header.texts("FrameType", "ImageType")),
        header.text("DiffusionBValue"),
    )


def _series_header(header: FrameHeader) -> SeriesHeader:
    number = header.number("SeriesNumber")
    return SeriesHeader(
        modality=header.text("Modality")[:16],
        study_date=_date(header.text("StudyDate", "SeriesDate", "AcquisitionDate")),
        vendor=header.text("Manufacturer")[:64] or None,
        model=header.text("ManufacturerModelName")[:64] or None,
        field_strength_t=_tesla(header.number("MagneticFieldStrength")),
        series_number=None if number is None else int(number),
        frame_of_reference=header.text("FrameOfReferenceUID"),
    )


def _date(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


def _tesla(value: float | None) -> float | None:
    if value is None or value <= 0:
        return None
    return value / 10_000 if value > 100 else value  # some vendors write gauss


def geometry_missing(file: str) -> DicomSeriesError:
    """For a slice without position, orientation or pixel spacing."""
    return DicomSeriesError("a slice lacks its position, orientation or pixel spacing.", action=WHOLE, file=file)
