"""The slices of one DICOM series as one volume, or a named reason why they are not one.

Slices are grouped and ordered by their positions, so that a missing or doubled slice, a second acquisition or a
tilted gantry is refused instead of being stacked. SpacingBetweenSlices and SliceThickness are not asked (vendors
leave out the one and round the other), nor is the patient's position (positions are in the patient's own
coordinates, head first or feet first). PixelPaddingValue stays what it is, rescaled as its neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from feature_store.errors import DicomSeriesError
from pipelines.imaging.dicom_file import WHOLE
from pipelines.imaging.dicom_frame import SPLITS, Frame, geometry_missing
from pipelines.imaging.dicom_pixels import read_values
from pipelines.imaging.integrity import MAX_VOXELS

SAME_POSITION_MM = 0.01
UNEVEN = 0.05
"""Largest departure of a slice distance from the series' median, as a share of it (header rounding is ~2 %)."""
TILT_DEGREES = 0.5
ASTRAY = 0.1
"""How far a slice may lie beside the line through the first and the last, as a share of a pixel."""


@dataclass(frozen=True)
class Volume:
    """Slices of one acquisition. ``part`` tells volumes of one series apart (``echo 2``); '' where there is one.

    ``fault`` says why they do not form a volume; then they stand in no order.
    """

    frames: tuple[Frame, ...]
    part: str = ""
    fault: DicomSeriesError | None = None

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Between columns, rows and slices in mm; None without a fault-free geometry."""
        first, last = self.frames[0].plane, self.frames[-1].plane
        if self.fault or first is None or last is None:
            return None
        distance = float(np.linalg.norm(last.position - first.position)) / (len(self.frames) - 1)
        return (first.spacing[1], first.spacing[0], distance)

    @property
    def usual_distance(self) -> float | None:
        """The median distance of neighbouring slices in mm, whether they form a volume or not; None where unknown."""
        planes = [frame.plane for frame in self.frames if frame.plane is not None]
        if not planes:
            return None
        gaps = np.diff(np.sort([float(planes[0].normal @ plane.position) for plane in planes]))
        gaps = gaps[gaps > SAME_POSITION_MM]
        return float(np.median(gaps)) if gaps.size else None

    @property
    def origins(self) -> tuple[tuple[float, float, float], ...]:
        """Where each slice's first voxel really lies, in mm: the image's grid evens out what headers round."""
        places = [frame.plane.position.tolist() for frame in self.frames if frame.plane is not None]
        return tuple((x, y, z) for x, y, z in places)


def volumes(frames: Sequence[Frame], file: str) -> list[Volume]:
    """The volumes of one series: one, or several that share their positions (echoes, phases, acquisitions).

    A series that is no volume as a whole is split by the first of SPLITS under which every part is one; where none
    does it, the series is one volume with the fault of the whole.
    """
    try:
        return [Volume(tuple(_in_order(frames, file)))]
    except DicomSeriesError as fault:
        whole = fault
    for place, name in enumerate(SPLITS):
        groups: dict[str, list[Frame]] = {}
        for frame in frames:
            groups.setdefault(frame.splits[place], []).append(frame)
        if len(groups) < 2:
            continue
        try:
            parts = [_in_order(group, file) for _, group in sorted(groups.items(), key=lambda item: _natural(item[0]))]
        except DicomSeriesError:
            continue
        return [Volume(tuple(part), f"{name} {number}") for number, part in enumerate(parts, start=1)]
    return [Volume(tuple(frames), fault=whole)]


def read_volume(volume: Volume, file: str) -> sitk.Image:
    """Decoded voxels with their geometry. Raises the volume's fault, or DicomSeriesError where decoding fails."""
    if volume.fault is not None:
        raise volume.fault
    first, spacing = volume.frames[0].plane, volume.spacing
    assert first is not None
    assert spacing is not None
    if len(volume.frames) * first.rows * first.columns > MAX_VOXELS:
        raise DicomSeriesError("its header announces an absurd size.", action=WHOLE, file=file)
    image = sitk.GetImageFromArray(read_values(volume.frames, file))
    image.SetSpacing(spacing)
    image.SetOrigin(first.position.tolist())
    image.SetDirection(first.axes.ravel().tolist())
    return image


def _natural(text: str) -> tuple[float, str]:
    try:
        return (float(text), "")
    except ValueError:
        return (float("inf"), text)


def _in_order(frames: Sequence[Frame], file: str) -> list[Frame]:
    """The slices along their normal. Raises DicomSeriesError for whatever keeps them from being one volume."""
    if faults := sorted({frame.pixels.fault for frame in frames if frame.pixels.fault}):
        raise DicomSeriesError(
            f"{faults[0]}.", action="Export the original slices, or convert them to NIfTI or NRRD.", file=file
        )
    placed = [(frame, frame.plane) for frame in frames if frame.plane is not None]
    if len(placed) < len(frames):
        raise geometry_missing(file)
    if len(frames) < 2:
        raise DicomSeriesError("the folder holds a single slice.", action=WHOLE, file=file)
    first = placed[0][1]
    for _, plane in placed:
        same_plane = np.allclose(plane.along_row, first.along_row, rtol=0, atol=1e-3) and np.allclose(
            plane.along_column, first.along_column, rtol=0, atol=1e-3
        )
        same_spacing = np.allclose(plane.spacing, first.spacing, rtol=1e-4)
        if not same_plane or not same_spacing or (plane.rows, plane.columns) != (first.rows, first.columns):
            raise DicomSeriesError(
                "the slices differ in size, pixel spacing or orientation (a localizer among them?).",
                action="Leave only the slices of one acquisition in the folder.",
                file=file,
            )
    normal = first.normal
    placed.sort(key=lambda item: float(normal @ item[1].position))
    positions = np.array([plane.position for _, plane in placed])
    gaps = np.diff(positions @ normal)
    doubled = int(np.count_nonzero(gaps < SAME_POSITION_MM))
    if doubled:
        raise DicomSeriesError(
            f"{doubled} of {len(frames)} slices lie where another one lies.",
            action="Leave one acquisition (one phase, one echo) in the folder.",
            file=file,
        )
    _check_even(gaps, file)
    along = positions[-1] - positions[0]
    tilt = float(np.degrees(np.arccos(min(1.0, abs(float(normal @ along)) / float(np.linalg.norm(along))))))
    if tilt > TILT_DEGREES:
        raise DicomSeriesError(
            f"the gantry is tilted by {tilt:.1f} degrees, so the slices do not form a box of voxels.",
            action="Resample the series to an untilted grid before sending it.",
            file=file,
        )
    line = positions[0] + np.outer((positions - positions[0]) @ along / float(along @ along), along)
    astray = np.linalg.norm(positions - line, axis=1) > ASTRAY * min(first.spacing)
    if astray.any():
        raise DicomSeriesError(
            f"{int(astray.sum())} of {len(frames)} slices are shifted against the others within their plane.",
            action=WHOLE,
            file=file,
        )
    return [frame for frame, _ in placed]


def _check_even(gaps: np.ndarray, file: str) -> None:
    usual = float(np.median(gaps))
    odd = np.abs(gaps - usual) > UNEVEN * usual
    if odd.any():
        sizes = ", ".join(f"{gap:.2f}" for gap, _ in Counter(np.round(gaps[odd], 2).tolist()).most_common(3))
        raise DicomSeriesError(
            f"slices are missing or uneven: {int(odd.sum())} of {len(gaps)} distances are not the usual "
            f"{usual:.2f} mm ({sizes} mm).",
            action=WHOLE,
            file=file,
        )
