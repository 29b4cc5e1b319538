"""What is done to a series once, before any ROI is looked at: z-score over the whole image, resampling.

It is done here and not by PyRadiomics, which would repeat it for every ROI and resample only a crop
around each, so that one series would have as many grids as ROIs. Each filter runs in one thread, because ITK's
sums depend on how many there are; the number set for others is left as it is.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from feature_store.errors import ImageConstant
from pipelines.radiomics.feature_sets import FeatureSet

Rescaling = tuple[float, float, float]
"""``(a, b, c)`` of ``((voxel + a) * b) * c``."""

UNCHANGED: Rescaling = (0.0, 1.0, 1.0)


def preprocess(image: sitk.Image, settings: FeatureSet) -> sitk.Image:
    """The image that features are computed on: normalised, then resampled, as the settings say.

    Without either the image comes back untouched, in its own pixel type (which decides bin edges).
    """
    if settings.normalize:
        image = normalize(image, settings.normalize_scale)
    if settings.spacing is not None:
        image = resample(image, settings.spacing, sitk.sitkBSpline)
    return image


def preprocess_mask(mask: sitk.Image, settings: FeatureSet) -> sitk.Image:
    """The label map on the preprocessed image's grid (nearest neighbour)."""
    if settings.spacing is not None:
        mask = resample(mask, settings.spacing, sitk.sitkNearestNeighbor)
    return mask


def normalize(image: sitk.Image, scale: float) -> sitk.Image:
    """Z-score over all voxels of the image, times ``scale``; 64-bit. As PyRadiomics' ``normalizeImage``.

    Raises ImageConstant, because there is no spread to divide by.
    """
    a, b, c = rescaling(image, scale)
    image = sitk.Cast(image, sitk.sitkFloat64)
    image += a
    image *= b
    image *= c
    return image


def rescaling(image: sitk.Image, scale: float) -> Rescaling:
    """What :func:`normalize` does to a voxel: ``((voxel - mean) * (1 / SD)) * scale``. Raises ImageConstant."""
    statistics = sitk.StatisticsImageFilter()
    statistics.SetNumberOfThreads(1)
    statistics.SetNumberOfWorkUnits(1)
    statistics.Execute(image)
    if not statistics.GetSigma() > 0:
        raise ImageConstant("every voxel has the same value.", action="Export the series again.")
    return -statistics.GetMean(), 1.0 / statistics.GetSigma(), float(scale)


def resample(image: sitk.Image, spacing: tuple[float, float, float], interpolator: int) -> sitk.Image:
    """The whole field of view on a grid of ``spacing`` (x, y, z in mm), its corner where it was.

    Voxels keep their pixel type. B-spline (order 3) for images, PyRadiomics' default; nearest neighbour
    for label maps. The outer corner of the first voxel stays in place, as in PyRadiomics.
    """
    old = np.array(image.GetSpacing())
    new = np.array(spacing)
    if np.allclose(old, new):
        return image
    size = np.ceil(np.array(image.GetSize()) * old / new).astype(int)
    first = 0.5 * (new - old) / old
    filter_ = sitk.ResampleImageFilter()
    filter_.SetNumberOfThreads(1)
    filter_.SetNumberOfWorkUnits(1)
    filter_.SetOutputSpacing(new.tolist())
    filter_.SetOutputDirection(image.GetDirection())
    filter_.SetOutputOrigin(image.TransformContinuousIndexToPhysicalPoint(first.tolist()))
    filter_.SetSize(size.tolist())
    filter_.SetOutputPixelType(image.GetPixelID())
    filter_.SetInterpolator(interpolator)
    return filter_.Execute(image)
