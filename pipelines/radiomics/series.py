"""A series made ready once, for many ROIs to be cut from it.

Only resampling makes another image. The z-score is kept as three numbers and applied to what is cut out, which
gives the same bits and spares two 64-bit copies of the series. The Laplacian of Gaussian is computed of the whole
series, but kept only where ROIs are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from feature_store.errors import ExtractionError
from pipelines.radiomics.crop import RoiCrop, bounding_box, crop_roi
from pipelines.radiomics.feature_sets import FeatureSet, log_name
from pipelines.radiomics.preprocessing import UNCHANGED, Rescaling, preprocess, rescaling
from pipelines.radiomics.texture.laplacian import Box, laplacian_of_gaussian, smooth_enough

FIELD_BYTES = 512 * 1024**2
"""Filtered images of one series that are kept for the next ROI take no more than this."""


class RadiomicsSeries:
    """Voxels of a preprocessed series, and crops of ROIs with all that the feature set's images need."""

    def __init__(
        self,
        voxels: NDArray[Any],
        spacing: tuple[float, float, float],
        settings: FeatureSet,
        rescale: Rescaling = UNCHANGED,
    ) -> None:
        """``voxels``: z, y, x, before ``rescale``; ``spacing``: mm along x, y, z."""
        self._voxels = voxels
        self.spacing = spacing
        self._settings = settings
        self._rescale = rescale
        self._source: sitk.Image | None = None
        self._field: Box | None = None
        self._kept: dict[float, NDArray[np.float32]] = {}

    @classmethod
    def of(cls, image: sitk.Image, settings: FeatureSet) -> RadiomicsSeries:
        """A series as read, preprocessed as the settings say. ``image`` must not change while this is used."""
        rescale = UNCHANGED
        if settings.spacing is not None:
            image = preprocess(image, settings)
        elif settings.normalize:
            rescale = rescaling(image, settings.normalize_scale)
        series = cls(sitk.GetArrayViewFromImage(image), image.GetSpacing(), settings, rescale)
        series._source = image  # a view does not keep its image's memory alive
        return series

    def crop(self, mask: sitk.Image | NDArray[np.bool_], field: Box | None = None) -> RoiCrop:
        """Cut out the ROI. ``field``: a box around all ROIs that will be asked for, to filter once for them.

        Raises what :func:`pipelines.radiomics.crop.crop_roi` raises, ExtractionError where the series is too small
        for a Laplacian of Gaussian.
        """
        inside = sitk.GetArrayViewFromImage(mask) if isinstance(mask, sitk.Image) else mask
        crop = crop_roi(self._voxels, inside, spacing=self.spacing)
        if self._rescale != UNCHANGED:
            a, b, c = self._rescale
            crop = replace(crop, image=((crop.image.astype(np.float64) + a) * b) * c)
        if self._settings.log_sigma:
            low_high = bounding_box(inside)
            box: Box = (low_high[0], low_high[1], low_high[2])
            filtered = tuple((log_name(sigma), self._log(sigma, box, field)) for sigma in self._settings.log_sigma)
            crop = replace(crop, filtered=filtered)
        return crop

    def _log(self, sigma: float, box: Box, field: Box | None) -> NDArray[np.float32]:
        """Laplacian of Gaussian inside the box."""
        if not smooth_enough(self._voxels.shape, self.spacing, sigma):
            raise ExtractionError(
                f"the series is too small for a Laplacian of Gaussian of {sigma:g} mm.",
                action="Use a feature set without it, or with smaller widths.",
            )
        if field is not None and _worth_keeping(field, box, len(self._settings.log_sigma)):
            if field != self._field:
                self._field, self._kept = field, {}
            if sigma not in self._kept:
                self._kept[sigma] = self._filter(sigma, field)
            part = tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(box, field, strict=True))
            return np.ascontiguousarray(self._kept[sigma][part])
        return self._filter(sigma, box)

    def _filter(self, sigma: float, box: Box) -> NDArray[np.float32]:
        return laplacian_of_gaussian(self._voxels, self.spacing, float(sigma), box, self._rescale)


def _worth_keeping(field: Box, box: Box, images: int) -> bool:
    holds = all(a <= low and high <= b for (a, b), (low, high) in zip(field, box, strict=True))
    return holds and 4 * images * int(np.prod([high - low for low, high in field])) <= FIELD_BYTES
