"""PyRadiomics' features of one ROI, with the values that stock PyRadiomics gives on the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from feature_store.errors import ExtractionError
from pipelines.crop import RoiCrop, crop_roi
from pipelines.feature_sets import FeatureSet


class RadiomicsExtractor:
    """Computes one feature set. Holds no state between ROIs."""

    def __init__(self, feature_set: FeatureSet) -> None:
        self.feature_set = feature_set

    def extract(self, image: sitk.Image, mask: sitk.Image | NDArray[np.bool_]) -> NDArray[np.float64]:
        """Values of one ROI in the order of ``feature_set.feature_names``.

        ``image`` is preprocessed; ``mask`` has its size, non-zero inside the ROI (array: z, y, x).
        NaN where stock PyRadiomics has NaN. Raises LabelEmpty, RoiTooSmall, ExtractionError.
        """
        return self.extract_from_crop(crop_roi(image, mask))

    def extract_from_crop(self, crop: RoiCrop) -> NDArray[np.float64]:
        """As :meth:`extract`, of an ROI already cut out by :func:`pipelines.crop.crop_roi`."""
        try:
            values = _stock_values(self.feature_set, crop)
        except Exception as error:
            raise ExtractionError(
                f"features could not be computed ({type(error).__name__}: {error}).",
                action="Look at the image and mask around this ROI.",
            ) from error
        return np.array([values[name] for name in self.feature_set.feature_names], dtype=np.float64)


def _stock_values(settings: FeatureSet, crop: RoiCrop) -> dict[str, Any]:
    """PyRadiomics' own feature classes on the crop."""
    from radiomics import getFeatureClasses, imageoperations

    keep = [slice(crop.margin, -crop.margin or None)] * 3
    padding = [(0, size % 2) for size in crop.image.shape]
    padded = sitk.GetImageFromArray(np.pad(crop.image, padding, mode="edge"))
    padded.SetSpacing(crop.spacing)
    roi = crop.mask[tuple(keep)]
    mask = sitk.GetImageFromArray(roi.astype(np.uint32))
    mask.SetSpacing(crop.spacing)
    kwargs: dict[str, Any] = {"binWidth": settings.bin_width, "voxelArrayShift": settings.voxel_array_shift}
    if settings.bin_count is not None:
        kwargs["binCount"] = settings.bin_count
    classes = getFeatureClasses()
    values: dict[str, Any] = {}
    images = []
    if "original" in settings.image_types:
        images += list(imageoperations.getOriginalImage(padded, None, **kwargs))
    if "wavelet" in settings.image_types:
        images += list(imageoperations.getWaveletImage(padded, None, wavelet=settings.wavelet, **kwargs))
    low, size = [crop.margin] * 3, list(roi.shape[::-1])
    for image, name, _ in images:
        part = sitk.RegionOfInterest(image, size, low)
        for family in settings.classes:
            if family == "shape":
                continue
            features = classes[family](part, mask, **kwargs).execute()
            values.update({f"{name}_{family}_{feature}": value for feature, value in features.items()})
    if "shape" in settings.classes:
        features = classes["shape"](mask, mask, **kwargs).execute()
        values.update({f"original_shape_{feature}": value for feature, value in features.items()})
    return values
