"""Cut an ROI with a margin out of a series, so that filters on the cut equal those on the whole image.

The stationary wavelet of the whole image is periodic: PyRadiomics pads odd sizes to even ones by wrapping
and the filter wraps around that padded size. A crop that stops at the image's border would therefore be
wrong there; this one takes its voxels modulo the padded size, as the whole image's wavelet does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from feature_store.errors import GridMismatch, LabelEmpty, RoiTooSmall

WAVELET_MARGIN = 3
"""Voxels on each side that one level of coif1 (six taps, three to each side) reaches beyond the ROI."""


@dataclass(frozen=True)
class RoiCrop:
    """One ROI, cut out: small, picklable, enough for every feature.

    ``image``: the ROI's bounding box and ``margin`` voxels on each side, axes z, y, x, in the pixel type
    of the preprocessed image (it decides bin edges and the wavelet's precision). ``mask``: same shape,
    True inside the ROI, False throughout the margin. ``spacing``: mm along x, y, z. Direction and
    origin are absent because no feature depends on them. ``ends``: for z, y, x, whether the ROI reaches
    the last voxel of an axis of even size, where the whole image's wavelet sums in another order.
    ``filtered``: names and images (the bounding box alone) of filters that look further than the margin.
    """

    image: NDArray[Any]
    mask: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    margin: int = WAVELET_MARGIN
    ends: tuple[bool, bool, bool] = (False, False, False)
    filtered: tuple[tuple[str, NDArray[Any]], ...] = ()

    @property
    def voxel_count(self) -> int:
        return int(np.count_nonzero(self.mask))


def crop_roi(
    image: sitk.Image | NDArray[Any],
    mask: sitk.Image | NDArray[np.bool_],
    margin: int = WAVELET_MARGIN,
    spacing: tuple[float, float, float] | None = None,
) -> RoiCrop:
    """Cut the ROI and ``margin`` voxels around it out of the preprocessed image.

    ``mask`` has the image's size; every non-zero voxel is in the ROI. An array has axes z, y, x; an image
    given as an array needs ``spacing``. A caller with many ROIs of one series passes arrays, so that the
    series is copied out of SimpleITK once.

    Raises LabelEmpty without a voxel, RoiTooSmall for a single voxel or a single line of voxels (texture
    and shape need two dimensions; PyRadiomics refuses them as well), GridMismatch on different sizes.
    """
    if isinstance(image, sitk.Image):
        spacing = tuple(image.GetSpacing())
        image = sitk.GetArrayViewFromImage(image)
    if spacing is None:
        raise ValueError("an image given as an array needs its spacing")
    inside = sitk.GetArrayViewFromImage(mask) if isinstance(mask, sitk.Image) else np.asarray(mask)
    if inside.shape != image.shape:
        raise GridMismatch(
            f"mask has size {inside.shape[::-1]}, image {image.shape[::-1]}.", action="Draw the mask on this image."
        )
    box = bounding_box(inside)
    if sum(high - low > 1 for low, high in box) < 2:
        raise RoiTooSmall(
            "the ROI is a single voxel or a single line of voxels.", action="Check the label, or leave it out."
        )
    grid = [
        np.arange(low - margin, high + margin) % (size + size % 2)
        for (low, high), size in zip(box, image.shape, strict=True)
    ]
    # the voxel that pads an odd size to an even one is the axis' first
    grid = [np.where(index >= size, 0, index) for index, size in zip(grid, image.shape, strict=True)]
    roi = np.zeros([len(index) for index in grid], dtype=np.bool_)
    core = tuple(slice(margin, margin + high - low) for low, high in box)
    roi[core] = inside[tuple(slice(low, high) for low, high in box)] != 0
    last = [high == size and size % 2 == 0 for (_, high), size in zip(box, image.shape, strict=True)]
    return RoiCrop(_take(image, grid), roi, spacing, margin, (last[0], last[1], last[2]))


def bounding_box(mask: NDArray[Any]) -> list[tuple[int, int]]:
    """Half-open ranges of the ROI along z, y, x. Raises LabelEmpty when the mask is empty."""
    box: list[tuple[int, int]] = []
    for axis in range(mask.ndim):
        part = mask[tuple(slice(low, high) for low, high in box)]
        others = tuple(i for i in range(mask.ndim) if i != axis)
        hit = np.flatnonzero(part.any(axis=others))
        if hit.size == 0:
            raise LabelEmpty("the ROI has no voxel.", action="Check the mask, or do not declare this label.")
        box.append((int(hit[0]), int(hit[-1]) + 1))
    return box


def _take(image: NDArray[Any], grid: list[NDArray[np.intp]]) -> NDArray[Any]:
    """The voxels at the grid's indices; a plain slice where the crop does not wrap."""
    if all(index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all() for index in grid):
        return np.array(image[tuple(slice(index[0], index[-1] + 1) for index in grid)], order="C")
    return np.ascontiguousarray(image[np.ix_(*grid)])
