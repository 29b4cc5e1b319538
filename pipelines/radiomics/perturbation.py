"""Small random changes of an ROI and its image, to see which features stay what they are.

After Zwanenburg et al., "Assessing robustness of radiomic features by image perturbation" (Sci Rep 2019;9:614):
translation by part of a voxel, noise at the image's own level, growth and shrinkage of the volume, and a
randomised contour. What differs from theirs: the contour moves by a smooth random field and not by
superpixels, nothing is rotated, and the image is changed after normalisation and resampling, on its final
grid, in a block around the ROI.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from scipy.interpolate import BSpline

from feature_store.errors import ExtractionError, RoiTooSmall
from pipelines.cases.rois import MIN_ROI_DIMENSIONS, MIN_ROI_VOXELS
from pipelines.radiomics.crop import WAVELET_MARGIN, bounding_box
from pipelines.radiomics.preprocessing import UNCHANGED, Rescaling

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

REACH_MM = 5.0
"""How far a contour may move; what would have to go further is refused."""
SPLINE_MARGIN = 3
"""Voxels that cubic interpolation by less than two voxels reaches."""


class PerturbationSettings(BaseModel):
    """What is changed, and by how much at most. A part at 0 is left out.

    ``repeats``: changed versions of an ROI, beside the one as drawn. ``translation``: the image and its mask
    are put on a grid moved by up to so many voxels along each axis (a patient who lies a little elsewhere).
    ``growth``: share of its volume by which the ROI grows or shrinks. ``contour_mm``: standard deviation by
    which the contour moves out and in, alike within about ``contour_length_mm`` and differently further away
    (another hand). ``noise``: standard deviation of the noise that is added, as a multiple of the image's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repeats: int = Field(default=10, ge=1, le=1000)
    seed: int = Field(default=0, ge=0)
    translation: float = Field(default=0.5, ge=0, le=1.5)
    growth: float = Field(default=0.15, ge=0, lt=1)
    contour_mm: float = Field(default=0.5, ge=0, le=REACH_MM / 2)
    contour_length_mm: float = Field(default=5.0, gt=0)
    noise: float = Field(default=1.0, ge=0)

    @property
    def id(self) -> str:
        """First 8 hex of the settings' SHA-256."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def change(self, version: int) -> Change:
        """What version 1, 2, … does: the same to every ROI, so that versions are the raters of a two-way layout."""
        random = np.random.default_rng([self.seed, version])
        shift = random.uniform(-self.translation, self.translation, 3)
        growth = float(random.uniform(-self.growth, self.growth))
        return Change(version, (float(shift[0]), float(shift[1]), float(shift[2])), growth)


@dataclass(frozen=True)
class Change:
    """``shift`` in voxels along z, y, x; ``growth`` as a share of the volume."""

    version: int
    shift: tuple[float, float, float]
    growth: float


class RoiVersions:
    """One ROI as it was drawn and as it might have been.

    ``image`` (z, y, x) is preprocessed, ``mask`` its ROI, ``spacing`` x, y, z in mm, ``sigma`` the noise level
    of the whole image. ``name`` tells ROIs apart: each gets noise and contours of its own, the same in every
    run. ``filter_mm``: how far beyond the ROI the image filters look. ``rescale``: a z-score that ``image`` still
    lacks, as :class:`pipelines.radiomics.series.RadiomicsSeries` takes it; ``sigma`` is of the image after it.

    Everything happens in a block around the ROI that ends at the image's border, so a changed ROI never leaves
    the image. Within three voxels of that border the wavelet wraps around the block and not around the
    image; it does so in every version.
    """

    def __init__(
        self,
        image: NDArray[Any],
        mask: Bools,
        spacing: tuple[float, float, float],
        settings: PerturbationSettings,
        *,
        name: str,
        sigma: float,
        filter_mm: float = 0.0,
        rescale: Rescaling = UNCHANGED,
    ) -> None:
        self._settings = settings
        self._sigma = sigma
        self._spacing = spacing
        self._steps = np.array(spacing[::-1])
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        margin = np.ceil((REACH_MM + filter_mm) / self._steps).astype(int) + WAVELET_MARGIN + SPLINE_MARGIN
        box = tuple(
            slice(max(0, low - more), min(size, high + more))
            for (low, high), size, more in zip(bounding_box(mask), image.shape, margin, strict=True)
        )
        self._image = np.ascontiguousarray(image[box])
        if rescale != UNCHANGED:
            a, b, c = rescale
            self._image = ((self._image.astype(np.float64) + a) * b) * c
        self._mask = np.ascontiguousarray(mask[box], dtype=np.bool_)

    def original(self) -> tuple[sitk.Image, Bools]:
        """The block as it is, and the ROI in it (z, y, x)."""
        return self._as_image(self._image), self._mask

    def changed(self, version: int) -> tuple[sitk.Image, Bools]:
        """Version 1, 2, … of image and ROI; the same in every run.

        Raises RoiTooSmall where too few voxels are left, ExtractionError where the ROI has no room to grow.
        """
        change = self._settings.change(version)
        random = np.random.default_rng([self._settings.seed, version, self._key])
        mask = self._changed_mask(change, random)
        return self._as_image(self._changed_image(change, random)), mask

    def _as_image(self, voxels: NDArray[Any]) -> sitk.Image:
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(self._spacing)
        return image

    def _changed_mask(self, change: Change, random: np.random.Generator) -> Bools:
        """The voxels of smallest signed distance, as many as the grown volume has."""
        settings = self._settings
        distance = self._distance
        if any(change.shift):
            distance = moved(distance, change.shift, degree=1)
        if settings.contour_mm:
            field = smooth_field(distance.shape, settings.contour_length_mm / self._steps, random)
            distance = distance + settings.contour_mm * field
        wanted = round(int(np.count_nonzero(self._mask)) * (1 + change.growth))
        if wanted < MIN_ROI_VOXELS:
            raise RoiTooSmall(
                f"a changed version would have {wanted} voxels; {MIN_ROI_VOXELS} are needed.",
                action="Shrink by less, or leave this ROI out.",
            )
        if change.growth > 0 and wanted > np.count_nonzero(distance <= REACH_MM):
            raise ExtractionError(
                f"a changed version has no room in the image within {REACH_MM:g} mm.",
                action="Grow by less, or leave this ROI out.",
            )
        mask = np.zeros(distance.shape, np.bool_)
        mask.reshape(-1)[np.argpartition(distance, wanted - 1, axis=None)[:wanted]] = True
        if sum(high - low > 1 for low, high in bounding_box(mask)) < MIN_ROI_DIMENSIONS:
            raise RoiTooSmall("a changed version is a line of voxels.", action="Leave this ROI out.")
        return mask

    def _changed_image(self, change: Change, random: np.random.Generator) -> NDArray[Any]:
        """Interpolated (cubic), with noise, in the pixel type it had: that type decides bin edges."""
        voxels = moved(self._splines, change.shift, degree=3) if any(change.shift) else self._image.astype(np.float64)
        if self._settings.noise and self._sigma:
            voxels += random.normal(0.0, self._settings.noise * self._sigma, voxels.shape)
        kind = self._image.dtype
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            voxels = np.clip(np.rint(voxels), limits.min, limits.max)
        return voxels.astype(kind)

    @cached_property
    def _splines(self) -> Floats:
        """Coefficients of the cubic B-splines that run through the voxels, mirrored at the block's border."""
        return np.asarray(ndimage.spline_filter(self._image, order=3, output=np.float64, mode="mirror"))

    @cached_property
    def _distance(self) -> Floats:
        """Distance to the contour in mm, negative inside; the contour runs half the finest voxel off either side."""
        inside = ndimage.distance_transform_edt(self._mask, sampling=self._steps)
        outside = ndimage.distance_transform_edt(~self._mask, sampling=self._steps) if not self._mask.all() else 0.0
        half = self._steps.min() / 2
        return np.where(self._mask, half - inside, outside - half)


def moved(coefficients: Floats, shift: tuple[float, float, float], degree: int) -> Floats:
    """An image given by its B-spline coefficients, moved by ``shift`` voxels; mirrored at its border.

    Along one axis after another, since the shift is the same everywhere. Of ``degree`` 1 an image is its own
    coefficients.
    """
    reach = (degree + 1) // 2
    spline = BSpline.basis_element(np.arange(degree + 2) - (degree + 1) / 2, extrapolate=False)
    for axis, by in enumerate(shift):
        radius = reach + int(np.ceil(abs(by)))
        taps = np.nan_to_num(spline(by + np.arange(-radius, radius + 1)))
        coefficients = ndimage.correlate1d(coefficients, taps, axis=axis, mode="mirror")
    return coefficients


def smooth_field(shape: tuple[int, ...], length: Floats, random: np.random.Generator) -> Floats:
    """A random field (mean 0, variance 1 at every voxel) that changes over about ``length`` voxels along each axis.

    Normal numbers on a coarse lattice, blended by cubic B-splines.
    """
    weights = [_blend(size, step) for size, step in zip(shape, length, strict=True)]
    field = random.standard_normal([w.shape[1] for w in weights])
    for w in weights:  # each turn takes the first axis away and puts the blended one last
        field = np.tensordot(field, w / np.sqrt((w**2).sum(axis=1, keepdims=True)), axes=(0, 1))
    return np.asarray(field, dtype=np.float64)


def _blend(size: int, length: float) -> Floats:
    """Weights (size, knots) of cubic B-splines ``length`` voxels apart."""
    at = np.arange(size) / length
    knots = np.arange(-3, int(at[-1]) + 5, dtype=np.float64)
    return np.asarray(BSpline.design_matrix(at, knots, 3).toarray(), dtype=np.float64)
