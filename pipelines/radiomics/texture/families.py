"""All features of one image inside the ROI, family by family; what the kernels leave goes to PyRadiomics.

The kernels take every ordinary ROI. A flat region, a direction without a single pair of voxels and
intensities that cannot be binned are PyRadiomics' own special cases: its classes are asked for them, so
that its answer, whatever it is, stays its answer.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.feature_names import CLASSES
from pipelines.radiomics.feature_sets import FeatureSet
from pipelines.radiomics.texture.dependence import gldm, glszm
from pipelines.radiomics.texture.discretise import bin_edges, grey_levels
from pipelines.radiomics.texture.firstorder import firstorder
from pipelines.radiomics.texture.glcm import glcm
from pipelines.radiomics.texture.glrlm import glrlm
from pipelines.radiomics.texture.neighbourhood import Grid, count, make_grid
from pipelines.radiomics.texture.ngtdm import ngtdm

INTENSITY_FAMILIES = tuple(family for family in CLASSES if family != "shape")


@dataclass(frozen=True)
class Region:
    """The ROI's geometry, shared by all its images. ``mask``: the bounding box, axes z, y, x."""

    mask: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    inside: NDArray[np.intp]
    grid: Grid

    @classmethod
    def of(cls, mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> Region:
        return cls(mask, spacing, np.flatnonzero(mask), make_grid(mask))


def image_features(image: NDArray[Any], region: Region, settings: FeatureSet) -> dict[str, dict[str, float]]:
    """Features by family of one image (the bounding box, contiguous, in its own type)."""
    wanted = [family for family in INTENSITY_FAMILIES if family in settings.classes]
    values = image.reshape(-1)[region.inside]
    exact = values.astype(np.float64)
    levels = _levels(values, exact, settings)
    if levels is None:
        return {family: stock_family(family, image, region, settings) for family in wanted}
    counts = count(levels, region.grid)
    plain = len(counts.greys) > 1 and bool(counts.cooccurrences.any(axis=(1, 2)).all())
    found: dict[str, dict[str, float]] = {}
    for family in wanted:
        if family == "firstorder":
            volume = float(np.multiply.reduce(region.spacing))
            found[family] = firstorder(exact, counts.voxels, volume, settings.voxel_array_shift)
        elif not plain:
            found[family] = stock_family(family, image, region, settings)
        elif family == "glcm":
            found[family] = glcm(counts.cooccurrences, counts.greys)
        elif family == "glrlm":
            found[family] = glrlm(counts.runs, counts.greys)
        elif family == "glszm":
            found[family] = glszm(counts.zones, counts.greys)
        elif family == "gldm":
            found[family] = gldm(counts.dependences, counts.greys, 4 * len(region.grid.steps) + 1)
        elif family == "ngtdm":
            found[family] = ngtdm(counts.greys, counts.voxels, counts.differences)
    return found


def _levels(values: NDArray[Any], exact: NDArray[np.float64], settings: FeatureSet) -> NDArray[np.int32] | None:
    """Grey levels from 1 on; None where PyRadiomics' edges do not hold the values.

    Edges are computed in the image's own type; ``exact`` are the same values in 64 bits, to compare.
    """
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    with np.errstate(all="ignore"):
        edges = bin_edges(low, high, values.dtype, settings.bin_width, settings.bin_count)
    if len(edges) < 2 or not (edges[0] <= low and np.all(np.diff(edges) > 0)):
        return None
    return grey_levels(exact, edges)


def stock_family(family: str, image: NDArray[Any], region: Region, settings: FeatureSet) -> dict[str, float]:
    """One family by PyRadiomics' own class."""
    import SimpleITK as sitk
    from radiomics import getFeatureClasses

    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    kwargs: dict[str, Any] = {"binWidth": settings.bin_width, "voxelArrayShift": settings.voxel_array_shift}
    if settings.bin_count is not None:
        kwargs["binCount"] = settings.bin_count
    part = sitk.GetImageFromArray(image)
    mask = sitk.GetImageFromArray(region.mask.astype(np.uint32))
    for grid in (part, mask):
        grid.SetSpacing(region.spacing)
    with np.errstate(all="ignore"):
        features = getFeatureClasses()[family](part, mask, **kwargs).execute()
    return {name: float(value) for name, value in features.items()}
