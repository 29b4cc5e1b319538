"""Stock PyRadiomics on the whole image: what every value of ours is held against."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_sets import FeatureSet

TOLERANCE = 1e-9
STOCK_IMAGE_TYPES = {"original": "Original", "wavelet": "Wavelet", "log": "LoG"}


def stock_values(image: sitk.Image, mask: NDArray[np.bool_], settings: FeatureSet) -> NDArray[np.float64]:
    """``RadiomicsFeatureExtractor.execute`` on a preprocessed image, in the order of the settings' names."""
    from radiomics import featureextractor

    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"binWidth": settings.bin_width, "voxelArrayShift": settings.voxel_array_shift}
    if settings.bin_count is not None:
        options["binCount"] = settings.bin_count
    extractor = featureextractor.RadiomicsFeatureExtractor(additionalInfo=False, **options)
    extractor.disableAllImageTypes()
    for image_type in settings.image_types:
        sigmas = {"sigma": list(settings.log_sigma)} if image_type == "log" else {}
        extractor.enableImageTypeByName(STOCK_IMAGE_TYPES[image_type], customArgs=sigmas)
    roi = sitk.GetImageFromArray(mask.astype(np.uint8))
    roi.CopyInformation(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = extractor.execute(image, roi)
    return np.array([float(found[name]) for name in settings.feature_names])


def deviations(
    ours: NDArray[np.float64], stock: NDArray[np.float64], settings: FeatureSet, tolerance: float = TOLERANCE
) -> dict[str, tuple[float, float]]:
    """Name to (ours, stock) of every value off by more than the tolerance; NaN equals NaN."""
    with np.errstate(all="ignore"):
        near = (
            (ours == stock) | (np.isnan(ours) & np.isnan(stock)) | (np.abs(ours - stock) <= tolerance * np.abs(stock))
        )
    return {settings.feature_names[k]: (float(ours[k]), float(stock[k])) for k in np.flatnonzero(~near)}


def assert_as_stock(image: sitk.Image, mask: NDArray[np.bool_], settings: FeatureSet) -> int:
    """Every value equals stock's on the whole image. Returns how many are equal to the last bit."""
    ours, stock = RadiomicsExtractor(settings).extract(image, mask), stock_values(image, mask, settings)
    assert len(ours) == len(stock) == len(settings.feature_names)
    assert not deviations(ours, stock, settings)
    return int(((ours == stock) | (np.isnan(ours) & np.isnan(stock))).sum())
