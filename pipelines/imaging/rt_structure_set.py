"""RT Structure Sets as label maps: ROI numbers are the labels.

A voxel belongs to an ROI when its centre lies inside, by the even-odd rule over all of the ROI's contours on that
slice: a contour within another is a hole, and so is the inside of a keyhole. Contours along pixel edges give
back exactly the voxels they were drawn around; a contour that runs through voxel centres has the centres on its
lower-index side inside and those on its upper-index side outside. Contours must lie on the image's slices: nothing is
interpolated between them. Standard: DICOM PS3.3 A.19 and C.8.8.6.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset

from feature_store.errors import MaskUnreadable
from pipelines.imaging.dicom_file import dicom_call
from pipelines.imaging.image_grid import ImageGrid, mismatch
from pipelines.imaging.images import LoadedImage
from pipelines.imaging.label_places import LabelPlaces

OFF_PLANE = 0.05
"""How far a contour may lie beside its slice, as a share of the slice distance. Planning systems round positions to
0.01 or 0.1 mm; which slice is meant stays certain far beyond this."""
_ROUNDED = 6
"""Decimals of a voxel to which points are rounded, so that the noise of a rotation does not decide ties."""
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_DAMAGED = "the structure set is damaged or cut short"
_AGAIN = "Export the structure set again, or send it as a NIfTI or NRRD label map."


@dataclass(frozen=True)
class Region:
    """One ROI: its closed contours as points (n, 3) in mm, and what kinds of other contours it has."""

    number: int
    name: str
    frame_of_reference: str
    contours: tuple[np.ndarray, ...]
    others: tuple[str, ...]


def read_regions(dataset: Dataset, file: str) -> list[Region]:
    """The ROIs that a structure set has, with or without contours. Raises MaskUnreadable where it is damaged."""
    return dicom_call(lambda: _regions(dataset, file), MaskUnreadable, _DAMAGED, file, _AGAIN)


def read_structure_set(
    dataset: Dataset, loaded: LoadedImage, file: str, labels: Collection[int] | None = None
) -> sitk.Image:
    """The ROIs (those of ``labels``, or all) on the image's own grid, unsigned 16 bit.

    An ROI that only marks points has no voxels. Raises MaskUnreadable for open contours, overlapping ROIs and
    contours that skip slices; GridMismatch for another frame of reference and contours beside the slices.
    """
    grid = ImageGrid(loaded)
    places = LabelPlaces(tuple(grid.size), file)
    for region in read_regions(dataset, file):
        if labels is not None and region.number not in labels:
            continue
        if wrong := [kind for kind in region.others if kind != "POINT"]:
            raise MaskUnreadable(
                f"ROI {region.number} has {len(wrong)} contours that are not closed.", action=_AGAIN, file=file
            )
        if region.contours:
            grid.check_frame_of_reference(region.frame_of_reference, file)
            places.add(region.number, rasterise(region, grid, file))
    return grid.label_map(places.voxels(), loaded.image)


def rasterise(region: Region, grid: ImageGrid, file: str) -> np.ndarray:
    """Indices (n, 3) of the voxels inside the region's contours."""
    contours = [np.round(grid.index(points), _ROUNDED) for points in region.contours]
    axis = _axis(contours, grid)
    across = [one for one in range(3) if one != axis]
    slices: dict[int, list[np.ndarray]] = {}
    for index in contours:
        height = float(index[:, axis].mean())
        off = float(np.abs(index[:, axis] - np.rint(height)).max())
        if off > OFF_PLANE:
            raise mismatch(
                f"a contour of ROI {region.number} lies up to {off * grid.spacing[axis]:.4g} mm beside its slice", file
            )
        beyond = index[:, across]
        outside = not 0 <= round(height) < grid.size[axis]
        if outside or (beyond < -0.5 - OFF_PLANE).any() or (beyond > grid.size[across] - 0.5 + OFF_PLANE).any():
            raise mismatch(f"a contour of ROI {region.number} lies outside the image", file)
        slices.setdefault(round(height), []).append(beyond)
    _check_every_slice(region, sorted(slices), file)
    found = []
    for height, polygons in slices.items():
        first, second = np.nonzero(_inside(polygons, int(grid.size[across[0]]), int(grid.size[across[1]])))
        index = np.empty((len(first), 3), dtype=int)
        index[:, across[0]], index[:, across[1]], index[:, axis] = first, second, height
        found.append(index)
    return np.concatenate(found)


def _axis(contours: list[np.ndarray], grid: ImageGrid) -> int:
    """The axis of the image that the contours stand across: along it each of them spreads least."""
    spreads = np.array([np.ptp(index, axis=0) * grid.spacing for index in contours])
    return int(spreads.sum(axis=0).argmin())


def _check_every_slice(region: Region, heights: list[int], file: str) -> None:
    steps = np.diff(heights)
    if len(steps) >= 2 and steps.min() > 1:
        raise MaskUnreadable(
            f"ROI {region.number} is drawn on every {int(steps.min())}. slice only.",
            action="Interpolate its contours to every slice where it was drawn.",
            file=file,
        )


def _inside(polygons: list[np.ndarray], width: int, height: int) -> np.ndarray:
    """Even-odd rule at voxel centres over closed polygons (n, 2): a mask (width, height).

    For each column of centres, every edge that crosses it flips all centres from the crossing on.
    """
    flips = np.zeros((width, height + 1), dtype=np.int64)
    for points in polygons:
        for (x, y), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
            low, high = (x, x2) if x < x2 else (x2, x)
            columns = np.arange(max(int(np.ceil(low)), 0), min(int(np.ceil(high)), width))  # low <= centre < high
            if len(columns):
                crossings = y + (columns - x) * ((y2 - y) / (x2 - x))
                np.add.at(flips, (columns, np.clip(np.ceil(np.round(crossings, _ROUNDED)), 0, height).astype(int)), 1)
    return np.cumsum(flips, axis=1)[:, :height] % 2 == 1


def _regions(dataset: Dataset, file: str) -> list[Region]:
    described = {int(item.ROINumber): item for item in dataset.get("StructureSetROISequence") or []}
    drawn = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or []}
    if not drawn:
        raise MaskUnreadable("the structure set holds no contours, or is cut short.", action=_AGAIN, file=file)
    regions = []
    for number in sorted({*described, *drawn}):
        about = described.get(number, Dataset())
        contours, others = [], []
        for contour in drawn[number].get("ContourSequence") or [] if number in drawn else []:
            kind = str(contour.get("ContourGeometricType") or "")
            if kind not in _CLOSED:
                others.append(kind)
                continue
            points = np.array([float(value) for value in contour.ContourData], dtype=float).reshape(-1, 3)
            if len(points) < 3 or not np.isfinite(points).all():
                raise MaskUnreadable(f"ROI {number} has a contour of {len(points)} points.", action=_AGAIN, file=file)
            contours.append(points)
        frame = str(about.get("ReferencedFrameOfReferenceUID") or dataset.get("FrameOfReferenceUID") or "")
        regions.append(Region(number, str(about.get("ROIName") or ""), frame, tuple(contours), tuple(others)))
    return regions
