"""A sampling grid in space: size, spacing, direction, origin, and the points of its voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

FloatArray = NDArray[np.float32]

# Directions as columns: where the axes i, j, k of the voxel grid point, in LPS (left, posterior, superior).
AXIAL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
SAGITTAL = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def tilted(direction: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """The same axes turned about the left-right axis, as an oblique acquisition is."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]]) @ direction


@dataclass(frozen=True)
class Grid:
    """Sizes in voxels and spacing in mm are (i, j, k); ``direction`` has the axes as columns; LPS, mm.

    Arrays on the grid are indexed (k, j, i), as SimpleITK's array view is.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    direction: NDArray[np.float64]
    origin: NDArray[np.float64]

    @classmethod
    def centred(
        cls,
        size: tuple[int, int, int],
        spacing: tuple[float, float, float],
        direction: NDArray[np.float64],
        centre: NDArray[np.float64],
    ) -> Grid:
        """The grid whose middle lies at ``centre`` (mm, LPS)."""
        half = (np.array(size) - 1) / 2 * np.array(spacing)
        return cls(size, spacing, direction, centre - direction @ half)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.size[2], self.size[1], self.size[0])

    def points(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """x, y, z in mm (LPS) of every voxel, each of shape (k, j, i)."""
        axes = [np.arange(n) * step for n, step in zip(self.size, self.spacing, strict=True)]
        i, j, k = axes[0][None, None, :], axes[1][None, :, None], axes[2][:, None, None]
        d, o = self.direction, self.origin
        x, y, z = ((d[row, 0] * i + d[row, 1] * j + d[row, 2] * k + o[row]).astype(np.float32) for row in range(3))
        return x, y, z

    def noise(self, length_mm: float, rng: np.random.Generator) -> FloatArray:
        """Gaussian noise of unit variance, correlated over ``length_mm`` (SD of the smoothing kernel)."""
        white = rng.standard_normal(self.shape, dtype=np.float32)
        if length_mm <= 0:
            return white
        sigma = [length_mm / step for step in reversed(self.spacing)]
        field = gaussian_filter(white, sigma, mode="wrap", truncate=3.0)
        return np.asarray(field / field.std(), dtype=np.float32)

    def image(self, array: NDArray[Any]) -> sitk.Image:
        """An image of ``array`` (k, j, i) at this place in space."""
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin.tolist())
        image.SetDirection(self.direction.ravel().tolist())
        return image


def stored_flipped(image: sitk.Image, axis: int) -> sitk.Image:
    """The same voxels in space, stored in the opposite order along ``axis`` (0, 1, 2 for i, j, k)."""
    size, direction = image.GetSize(), np.array(image.GetDirection()).reshape(3, 3)
    last = [0, 0, 0]
    last[axis] = size[axis] - 1
    array = np.flip(sitk.GetArrayViewFromImage(image), axis=2 - axis)
    flipped = sitk.GetImageFromArray(np.ascontiguousarray(array))
    direction[:, axis] *= -1
    flipped.SetSpacing(image.GetSpacing())
    flipped.SetOrigin(image.TransformIndexToPhysicalPoint(last))
    flipped.SetDirection(direction.ravel().tolist())
    return flipped
