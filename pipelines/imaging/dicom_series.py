"""A DICOM folder as one volume, or a named reason why it is not one.

Slices are found, grouped and ordered here by their headers, so that a missing or doubled slice, a second
series or a tilted gantry is refused instead of being stacked; GDCM (through SimpleITK) decodes the pixels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from feature_store.errors import DicomSeriesError
from pipelines.imaging.itk_calls import itk_call

SAME_POSITION_MM = 0.01
UNEVEN = 0.05
"""Largest departure of a slice distance from the series' median, as a share of it (header rounding is ~2 %)."""
TILT_DEGREES = 0.5
_WHOLE = "Export the whole series again, one series a folder."


@dataclass(frozen=True)
class SeriesHeader:
    """What a DICOM header says that a case keeps. ``study_date`` is turned into an offset at the door."""

    modality: str = ""
    study_date: date | None = None
    vendor: str | None = None
    model: str | None = None
    field_strength_t: float | None = None


@dataclass(frozen=True)
class _Slice:
    path: Path
    series: str
    rows_columns: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: np.ndarray
    position: np.ndarray
    rescale: tuple[str, str]
    header: SeriesHeader


def read_dicom_folder(folder: Path, file: str) -> tuple[sitk.Image, SeriesHeader]:
    """The folder's one series, slices in order along their normal.

    Raises DicomSeriesError: no DICOM file, damaged files, several series, mixed geometry, duplicated or
    missing slices, gantry tilt, multi-frame files.
    """
    slices = [s for path in sorted(folder.iterdir()) if (s := _read_header(path, file)) is not None]
    if not slices:
        raise DicomSeriesError("the folder holds no DICOM image.", action=_WHOLE, file=file)
    series = {s.series for s in slices}
    if len(series) > 1:
        raise DicomSeriesError(
            f"the folder holds {len(series)} series ({len(slices)} files).",
            action="Give each series a folder of its own and name the right one in case.yaml.",
            file=file,
        )
    ordered = _in_order(slices, file)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(s.path) for s in ordered])
    if len({s.rescale for s in ordered}) > 1:
        reader.SetOutputPixelType(sitk.sitkFloat64)  # else the first slice's pixel type cuts the others' fractions
    image = itk_call(reader.Execute, DicomSeriesError, "its pixels cannot be decoded", file)
    return image, ordered[0].header


def _read_header(path: Path, file: str) -> _Slice | None:
    """One file's header; None for what is no DICOM image (DICOMDIR, notes, checksums, hidden files)."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        itk_call(reader.ReadImageInformation, DicomSeriesError, "", file)
    except DicomSeriesError:
        with path.open("rb") as stream:
            marked = stream.read(132)[128:] == b"DICM"
        if not marked and path.suffix.lower() not in (".dcm", ".ima"):
            return None
        raise DicomSeriesError(
            "a DICOM file in the folder is damaged, cut short, or holds no image.", action=_WHOLE, file=file
        ) from None
    keys = set(reader.GetMetaDataKeys())

    def text(tag: str) -> str:
        return reader.GetMetaData(tag).strip() if tag in keys else ""

    frames = text("0028|0008")
    if frames.isdigit() and int(frames) > 1:
        raise DicomSeriesError(
            "the series is an (enhanced) multi-frame file, which is not read yet.",
            action="Convert it to NIfTI or NRRD, or export it as one file a slice.",
            file=file,
        )
    position, orientation = _numbers(text("0020|0032"), 3), _numbers(text("0020|0037"), 6)
    if position is None or orientation is None:
        raise DicomSeriesError("a slice lacks its position or orientation.", action=_WHOLE, file=file)
    return _Slice(
        path=path,
        series=text("0020|000e"),
        rows_columns=tuple(reader.GetSize()[:2]),
        spacing=tuple(reader.GetSpacing()[:2]),
        orientation=orientation,
        position=position,
        rescale=(text("0028|1053"), text("0028|1052")),
        header=SeriesHeader(
            modality=text("0008|0060"),
            study_date=_date(text("0008|0020") or text("0008|0021") or text("0008|0022")),
            vendor=text("0008|0070")[:64] or None,
            model=text("0008|1090")[:64] or None,
            field_strength_t=_field_strength(text("0018|0087")),
        ),
    )


def _in_order(slices: list[_Slice], file: str) -> list[_Slice]:
    first = slices[0]
    if len(slices) < 2:
        raise DicomSeriesError("the folder holds a single slice.", action=_WHOLE, file=file)
    for s in slices:
        same_plane = np.allclose(s.orientation, first.orientation, rtol=0, atol=1e-3)
        same_spacing = np.allclose(s.spacing, first.spacing, rtol=1e-4)
        if not same_plane or not same_spacing or s.rows_columns != first.rows_columns:
            raise DicomSeriesError(
                "the slices differ in size, pixel spacing or orientation (a localizer among them?).",
                action="Leave only the slices of one acquisition in the folder.",
                file=file,
            )
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    ordered = sorted(slices, key=lambda s: float(normal @ s.position))
    places = np.array([float(normal @ s.position) for s in ordered])
    gaps = np.diff(places)
    doubled = int(np.count_nonzero(gaps < SAME_POSITION_MM))
    if doubled:
        raise DicomSeriesError(
            f"{doubled} of {len(slices)} slices lie where another one lies.",
            action="Leave one acquisition (one phase, one echo) in the folder.",
            file=file,
        )
    usual = float(np.median(gaps))
    odd = np.abs(gaps - usual) > UNEVEN * usual
    if odd.any():
        sizes = ", ".join(f"{gap:.2f}" for gap, _ in Counter(np.round(gaps[odd], 2).tolist()).most_common(3))
        raise DicomSeriesError(
            f"slices are missing or uneven: {int(odd.sum())} of {len(gaps)} distances are not the usual "
            f"{usual:.2f} mm ({sizes} mm).",
            action=_WHOLE,
            file=file,
        )
    along = ordered[-1].position - ordered[0].position
    tilt = float(np.degrees(np.arccos(min(1.0, abs(float(normal @ along)) / float(np.linalg.norm(along))))))
    if tilt > TILT_DEGREES:
        raise DicomSeriesError(
            f"the gantry is tilted by {tilt:.1f} degrees, so the slices do not form a box of voxels.",
            action="Resample the series to an untilted grid before sending it.",
            file=file,
        )
    return ordered


def _numbers(text: str, count: int) -> np.ndarray | None:
    try:
        values = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return values if values.size == count and np.isfinite(values).all() else None


def _date(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


def _field_strength(text: str) -> float | None:
    value = _numbers(text, 1)
    if value is None or value[0] <= 0:
        return None
    tesla = float(value[0])
    return tesla / 10_000 if tesla > 100 else tesla  # some vendors write gauss
