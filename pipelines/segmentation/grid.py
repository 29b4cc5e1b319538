"""An image on a recipe's grid, and what was found there back on the image's own voxels.

There: axes are turned (nothing is interpolated), then the spacing is changed by linear interpolation for the
image and nearest neighbour for labels. Back: the probability of each class is interpolated linearly onto the
image's voxels and the greatest wins, so that boundaries are smooth and thin slices lose nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from feature_store.errors import ImageConstant
from models.segmentation.recipe import Recipe, Window


@dataclass(frozen=True)
class RecipeGrid:
    """Size in voxels, spacing in mm (x, y, z), place and direction (as SimpleITK has them) of one image's copy."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image, recipe: Recipe) -> RecipeGrid:
        """The recipe's spacing over the image's whole extent, in the middle of it where it does not divide."""
        turned = sitk.DICOMOrient(image, recipe.orientation)
        old, spacing = np.array(turned.GetSpacing()), np.array(recipe.spacing_mm)
        extent = old * turned.GetSize()
        size = np.maximum(np.ceil(extent / spacing - 1e-3), 1).astype(int)
        axes = np.array(turned.GetDirection()).reshape(3, 3)
        middle = np.array(turned.TransformContinuousIndexToPhysicalPoint((np.array(turned.GetSize()) - 1) / 2))
        origin = middle - axes @ ((size - 1) / 2 * spacing)
        return cls((int(size[0]), int(size[1]), int(size[2])), recipe.spacing_mm, tuple(origin), turned.GetDirection())

    def resampled(self, image: sitk.Image, interpolator: int) -> sitk.Image:
        """``image`` on this grid; what lies outside it has its nearest voxel's value."""
        to = sitk.ResampleImageFilter()
        to.SetSize(self.size)
        to.SetOutputSpacing(self.spacing)
        to.SetOutputOrigin(self.origin)
        to.SetOutputDirection(self.direction)
        to.SetInterpolator(interpolator)
        to.UseNearestNeighborExtrapolatorOn()
        return to.Execute(image)

    def image(self, array: np.ndarray) -> sitk.Image:
        """An array (z, y, x) at this place in space."""
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image


def net_input(image: sitk.Image, grid: RecipeGrid, recipe: Recipe) -> np.ndarray:
    """The image as the net sees it: float32 (z, y, x) on the grid, windowed or z-scored.

    Raises ImageConstant where nothing is left to tell apart.
    """
    there = grid.resampled(sitk.Cast(image, sitk.sitkFloat32), sitk.sitkLinear)
    voxels: np.ndarray = sitk.GetArrayFromImage(there)
    how = recipe.intensity
    if isinstance(how, Window):
        return ((voxels.clip(how.low, how.high) - how.low) * (2 / (how.high - how.low)) - 1).astype(np.float32)
    low, high = np.percentile(voxels, (how.low_percentile, how.high_percentile))
    voxels = voxels.clip(low, high)
    mean, sd = float(voxels.mean(dtype=np.float64)), float(voxels.std(dtype=np.float64))
    if not sd > 1e-6 * max(abs(mean), 1.0):
        raise ImageConstant("nearly every voxel has the same value.", action="Export the series again.")
    return ((voxels - mean) / sd).astype(np.float32)


def labels_on(grid: RecipeGrid, label_map: sitk.Image) -> np.ndarray:
    """A label map on the grid: uint8 (z, y, x), nearest neighbour."""
    there: np.ndarray = sitk.GetArrayFromImage(grid.resampled(label_map, sitk.sitkNearestNeighbor))
    return there.astype(np.uint8)


def likeliest(probabilities: np.ndarray, grid: RecipeGrid, image: sitk.Image) -> np.ndarray:
    """Probabilities float32 (channels, z, y, x) on the grid -> uint8 channel of each of the image's voxels.

    One channel after the other, so that memory holds two copies of the image's grid and not one a class.
    """
    best = np.full(image.GetSize()[::-1], -1.0, dtype=np.float32)
    which = np.zeros(best.shape, dtype=np.uint8)
    to = sitk.ResampleImageFilter()
    to.SetReferenceImage(image)
    to.SetInterpolator(sitk.sitkLinear)
    to.UseNearestNeighborExtrapolatorOn()
    for channel, there in enumerate(probabilities):
        resampled = to.Execute(grid.image(there))  # has a name: a view does not keep its image's memory alive
        here = sitk.GetArrayViewFromImage(resampled)
        greater = here > best
        which[greater] = channel
        np.maximum(best, here, out=best)
    return which
