"""DICOM Segmentation objects as label maps: segment numbers are the labels.

BINARY and LABELMAP segmentations are read; a FRACTIONAL one only where every value is 0 or its maximum, so that
no threshold is made up here. Frames that were left out because they are empty are background. Segments that
share a voxel are no label map and are refused. Standard: DICOM PS3.3 A.51 and C.8.20.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset

from feature_store.errors import MaskUnreadable
from pipelines.imaging.dicom_file import dicom_call
from pipelines.imaging.dicom_frame import Plane
from pipelines.imaging.dicom_pixels import stored_frames
from pipelines.imaging.functional_groups import FrameHeader, frame_headers
from pipelines.imaging.image_grid import ImageGrid, mismatch
from pipelines.imaging.images import LoadedImage
from pipelines.imaging.label_places import LabelPlaces

_DAMAGED = "the segmentation is damaged or cut short"
_AGAIN = "Export the segmentation again, or send it as a NIfTI or NRRD label map."


def segment_names(dataset: Dataset) -> dict[int, str]:
    """What the object calls its segments, by number."""
    items = dataset.get("SegmentSequence") or []
    return {int(item.SegmentNumber): str(item.get("SegmentLabel") or "") for item in items}


def segment_voxels(dataset: Dataset, file: str) -> dict[int, int]:
    """How many voxels each segment has, on whatever grid it was drawn. Raises as :func:`read_seg`."""
    counts = dict.fromkeys(sorted(number for number in segment_names(dataset) if number), 0)
    headers = _headers(dataset, file)
    for header, stored in zip(headers, _frames(dataset, range(len(headers)), file), strict=True):
        for number, there in _regions(dataset, header, stored, file):
            counts[number] = counts.get(number, 0) + int(np.count_nonzero(there))
    return counts


def read_seg(dataset: Dataset, loaded: LoadedImage, file: str, labels: Collection[int] | None = None) -> sitk.Image:
    """The segments (those of ``labels``, or all) on the image's own grid, unsigned 16 bit.

    Raises MaskUnreadable for fractions, overlapping or repeated segments and damaged files; GridMismatch, with the
    distance, where a frame's voxels are not the image's.
    """
    grid = ImageGrid(loaded)
    grid.check_frame_of_reference(str(dataset.get("FrameOfReferenceUID") or ""), file)
    places = LabelPlaces(tuple(grid.size), file)
    headers = _headers(dataset, file)
    wanted = [i for i, header in enumerate(headers) if _is_wanted(header, labels)]
    for i, stored in zip(wanted, _frames(dataset, wanted, file), strict=True):
        first, along_column, along_row = _place(headers[i], grid, file)
        for number, there in _regions(dataset, headers[i], stored, file):
            if labels is not None and number not in labels:
                continue
            rows, columns = np.nonzero(there)
            index = first + rows[:, None] * along_column + columns[:, None] * along_row
            outside = int(np.count_nonzero(~grid.holds(index)))
            if outside:
                raise mismatch(f"{outside} voxels of segment {number} lie outside the image", file)
            if len(index):
                places.add(number, index)
    return grid.label_map(places.voxels(), loaded.image)


def _headers(dataset: Dataset, file: str) -> list[FrameHeader]:
    headers = dicom_call(lambda: frame_headers(dataset), MaskUnreadable, _DAMAGED, file, _AGAIN)
    kind = str(dataset.get("SegmentationType") or "")
    if not headers or kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise MaskUnreadable(
            "the segmentation does not say where its frames lie, or of what kind it is.", action=_AGAIN, file=file
        )
    return headers


def _frames(dataset: Dataset, wanted: Collection[int], file: str) -> list[np.ndarray]:
    return stored_frames(dataset, list(wanted), file, MaskUnreadable) if wanted else []


def _is_wanted(header: FrameHeader, labels: Collection[int] | None) -> bool:
    number = header.number("ReferencedSegmentNumber")
    return labels is None or number is None or int(number) in labels


def _regions(dataset: Dataset, header: FrameHeader, stored: np.ndarray, file: str) -> list[tuple[int, np.ndarray]]:
    """The segments of one frame with their voxels."""
    kind = str(dataset.SegmentationType)
    if kind == "LABELMAP":
        background = {0, int(header.number("PixelPaddingValue") or 0)}
        return [(int(number), stored == number) for number in np.unique(stored) if int(number) not in background]
    number = header.number("ReferencedSegmentNumber")
    if not number:
        raise MaskUnreadable("a frame does not say which segment it shows.", action=_AGAIN, file=file)
    whole = int(dataset.get("MaximumFractionalValue") or 1) if kind == "FRACTIONAL" else 1
    if not np.isin(stored, (0, whole)).all():
        raise MaskUnreadable(
            f"segment {int(number)} is fractional: its voxels hold more than nothing and everything.",
            action="Choose a threshold where it was drawn, and export it as a binary segmentation.",
            file=file,
        )
    return [(int(number), stored == whole)]


def _place(header: FrameHeader, grid: ImageGrid, file: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index of the frame's first voxel, and steps of one row and one column. Raises GridMismatch, MaskUnreadable."""
    plane = Plane.of(header)
    if plane is None:
        raise MaskUnreadable("a frame lacks its position, orientation or pixel spacing.", action=_AGAIN, file=file)
    axes = plane.axes
    turn = grid.direction.T @ axes[:, :2]
    steps = np.rint(turn).astype(int)
    if not (np.abs(steps).sum(axis=0) == 1).all():
        angle = float(np.degrees(np.arccos(np.clip(np.abs(turn).max(axis=0).min(), -1.0, 1.0))))
        raise mismatch(f"its axes are turned by {angle:.1f} degrees against the image's", file)
    along_row, along_column = steps[:, 0], steps[:, 1]
    corners = np.array([(r, c) for r in (0, plane.rows - 1) for c in (0, plane.columns - 1)])
    points = (
        plane.position + corners[:, :1] * plane.spacing[0] * axes[:, 1] + corners[:, 1:] * plane.spacing[1] * axes[:, 0]
    )
    index = grid.index(points)
    first = np.rint(index[0]).astype(int)
    there = first + corners[:, :1] * along_column + corners[:, 1:] * along_row
    distance = float(np.linalg.norm((index - there) * grid.spacing, axis=1).max())
    if distance > grid.tolerance_mm:
        raise mismatch(f"its voxels lie up to {distance:.4g} mm from the image's", file)
    return first, along_column, along_row
