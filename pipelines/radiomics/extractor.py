"""PyRadiomics' features of one ROI, with the values that stock PyRadiomics gives on the whole image."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from feature_store.errors import ExtractionError
from pipelines.radiomics.crop import RoiCrop
from pipelines.radiomics.feature_sets import REGISTRY, FeatureSet
from pipelines.radiomics.series import RadiomicsSeries
from pipelines.radiomics.texture.families import Region, image_features
from pipelines.radiomics.texture.shape import shape
from pipelines.radiomics.texture.wavelet import subbands


class RadiomicsExtractor:
    """Computes one feature set. Holds no state between ROIs."""

    def __init__(self, feature_set: FeatureSet) -> None:
        self.feature_set = feature_set

    def extract(self, image: sitk.Image, mask: sitk.Image | NDArray[np.bool_]) -> NDArray[np.float64]:
        """Values of one ROI in the order of ``feature_set.feature_names``.

        ``image`` is preprocessed; ``mask`` has its size, non-zero inside the ROI (array: z, y, x).
        NaN where stock PyRadiomics has NaN. Raises LabelEmpty, RoiTooSmall, GridMismatch, ExtractionError.
        """
        series = RadiomicsSeries(sitk.GetArrayViewFromImage(image), image.GetSpacing(), self.feature_set)
        return self.extract_from_crop(series.crop(mask))

    def extract_from_crop(self, crop: RoiCrop) -> NDArray[np.float64]:
        """As :meth:`extract`, of an ROI already cut out by :class:`pipelines.radiomics.series.RadiomicsSeries`.

        :func:`pipelines.radiomics.crop.crop_roi` is enough for feature sets without Laplacians of Gaussian.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # NaN is an answer here
                values = self._values(crop)
        except MemoryError as error:
            raise ExtractionError(
                "ran out of memory.",
                action="Use wider bins (co-occurrences grow with the square of the grey levels) or a smaller ROI.",
            ) from error
        except Exception as error:
            raise ExtractionError(
                f"features could not be computed: stopped by {type(error).__name__}.",
                action="Look at the image and mask around this ROI.",
            ) from error
        return np.array([values[name] for name in self.feature_set.feature_names], dtype=np.float64)

    def _values(self, crop: RoiCrop) -> dict[str, float]:
        settings = self.feature_set
        core = tuple(slice(crop.margin, size - crop.margin) for size in crop.image.shape)
        region = Region.of(np.ascontiguousarray(crop.mask[core]), crop.spacing)
        values: dict[str, float] = {}
        if "shape" in settings.classes:
            values.update({f"original_shape_{name}": v for name, v in shape(region.mask, crop.spacing).items()})
        for image_name, image in self._images(crop, core):
            for family, features in image_features(image, region, settings).items():
                values.update({f"{image_name}_{family}_{name}": value for name, value in features.items()})
        return values

    def _images(self, crop: RoiCrop, core: tuple[slice, ...]) -> Iterator[tuple[str, NDArray[Any]]]:
        """The images features are computed on, cut to the ROI's bounding box."""
        if "original" in self.feature_set.image_types:
            yield "original", np.ascontiguousarray(crop.image[core])
        if "wavelet" in self.feature_set.image_types:
            for band, image in subbands(crop.image, crop.ends, self.feature_set.wavelet):
                yield f"wavelet-{band}", image
        if "log" in self.feature_set.image_types:
            yield from crop.filtered


def warm_up() -> None:
    """Compile every kernel into Numba's cache, so that workers only load them (seconds, once a machine).

    Does nothing noticeable when they are compiled already. Meant to be called before workers start:
    several that start at once would each compile for themselves.
    """
    random = np.random.default_rng(0)
    image = random.normal(0, 200, (24, 24, 24))
    mask = np.zeros(image.shape, np.bool_)
    mask[4:20, 4:20, 4:20] = True
    settings = REGISTRY["study-ct-log"]
    for kind in (np.float64, np.float32, np.int16):
        series = RadiomicsSeries.of(sitk.GetImageFromArray(image.astype(kind)), settings)
        RadiomicsExtractor(settings).extract_from_crop(series.crop(mask))
