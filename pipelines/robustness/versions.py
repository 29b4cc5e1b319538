"""Features of every version of the ROIs of one series: as drawn first, then changed a little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from feature_store.errors import AsdegError, ExtractionError
from pipelines.cases.rois import roi_mask
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_sets import FeatureSet
from pipelines.radiomics.noise import noise_level
from pipelines.radiomics.perturbation import PerturbationSettings, RoiVersions
from pipelines.radiomics.preprocessing import UNCHANGED, preprocess, preprocess_mask, rescaling

LOG_REACH = 4.0
"""Widths that a Laplacian of Gaussian looks beyond an ROI; further out it weighs less than 0.1 %."""


@dataclass(frozen=True)
class RoiToVary:
    """``region``: what a subject's ROI is compared with in other subjects (`t2_sag.intervertebral_disc.all`).

    ``subject``: the patient; ``labels``: the ROI's numbers in its mask. Both names together draw its noise.
    """

    region: str
    subject: str
    labels: tuple[int, ...]


@dataclass
class RoiValues:
    """``values`` (1 + repeats, features) of one ROI: row 0 as drawn; NaN rows for refused versions, which
    ``refused`` counts by error code. ``error``: why there is nothing at all."""

    region: str
    subject: str
    feature_set: FeatureSet
    values: NDArray[np.float64]
    refused: Counter[str] = field(default_factory=Counter)
    error: str = ""


def vary_rois(
    image: sitk.Image,
    mask: sitk.Image,
    rois: Iterable[RoiToVary],
    feature_set: FeatureSet,
    settings: PerturbationSettings,
) -> Iterator[RoiValues]:
    """Every version's features, ROI by ROI. What goes wrong stays with its version or ROI; nothing is raised for it.

    ``image`` as read, ``mask`` on its grid. The image is preprocessed once (its z-score is that of the unchanged
    image), its noise level taken from all of it.
    """
    extractor = RadiomicsExtractor(feature_set)
    rescale = UNCHANGED
    if feature_set.spacing is not None:
        image, mask = preprocess(image, feature_set), preprocess_mask(mask, feature_set)
    elif feature_set.normalize:  # as three numbers, applied where they are needed: no second copy of the series
        rescale = rescaling(image, feature_set.normalize_scale)
    voxels, spacing = sitk.GetArrayViewFromImage(image), image.GetSpacing()
    sigma = noise_level(voxels, spacing) * rescale[1] * rescale[2] if settings.noise else 0.0
    filter_mm = LOG_REACH * max(feature_set.log_sigma, default=0.0)
    for roi in rois:
        found = RoiValues(roi.region, roi.subject, feature_set, _nothing(feature_set, settings))
        try:
            versions = RoiVersions(
                voxels,
                roi_mask(mask, roi.labels),
                spacing,
                settings,
                name=f"{roi.subject}\n{roi.region}",
                sigma=sigma,
                filter_mm=filter_mm,
                rescale=rescale,
            )
            found.values[0] = extractor.extract(*versions.original())
        except Exception as error:
            found.error = code(error)
            yield found
            continue
        for version in range(1, settings.repeats + 1):
            try:
                found.values[version] = extractor.extract(*versions.changed(version))
            except Exception as error:
                found.refused[code(error)] += 1
        yield found


def code(error: Exception) -> str:
    """The error's stable name; one that is not ours is an ExtractionError, as it is in extraction."""
    return error.code if isinstance(error, AsdegError) else ExtractionError.__name__


def failed(roi: RoiToVary, feature_set: FeatureSet, settings: PerturbationSettings, error: str) -> RoiValues:
    """An ROI that nothing is known of, and why."""
    return RoiValues(roi.region, roi.subject, feature_set, _nothing(feature_set, settings), error=error)


def _nothing(feature_set: FeatureSet, settings: PerturbationSettings) -> NDArray[np.float64]:
    return np.full((1 + settings.repeats, len(feature_set.feature_names)), np.nan)
