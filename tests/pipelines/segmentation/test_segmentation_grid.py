from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from feature_store.errors import ImageConstant
from models.segmentation.recipe import Recipe, SegmentClass, default_recipe
from pipelines.segmentation.grid import RecipeGrid, labels_on, likeliest, net_input
from pipelines.segmentation.pieces import clean

LEVELS = [SegmentClass(structure="vertebral_body", level=level) for level in ("L1", "L2")]
UNION = SegmentClass(structure="vertebral_body", level="all")


def recipe_of(spacing: tuple[float, float, float], **changes: object) -> Recipe:
    return default_recipe("t2_sag", LEVELS, spacing_mm=list(spacing), patch=[64, 64, 64], **changes)


def oblique(spacing: tuple[float, float, float], orientation: str = "PIR") -> tuple[sitk.Image, sitk.Image]:
    """An image of 48 × 60 × 64 mm, tilted by 12°, stored along other axes, and two balls drawn in it."""
    size = [round(extent / step) for extent, step in zip((48, 60, 64), spacing, strict=True)]
    c, s = np.cos(0.21), np.sin(0.21)
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing(spacing)
    grid.SetOrigin((-20.0, 31.0, 12.0))
    grid.SetDirection((1, 0, 0, 0, c, -s, 0, s, c))
    z, y, x = np.indices(size[::-1])
    at = np.stack([x * spacing[0], y * spacing[1], z * spacing[2]])
    labels = np.zeros(size[::-1], np.uint8)
    for label, middle in ((1, (24, 30, 44)), (2, (24, 28, 20))):
        labels[((at - np.array(middle)[:, None, None, None]) ** 2).sum(axis=0) < 11**2] = label
    drawn = sitk.GetImageFromArray(labels)
    drawn.CopyInformation(grid)
    voxels = np.random.default_rng(0).normal(100 * labels, 20).astype(np.float32)
    image = sitk.GetImageFromArray(voxels)
    image.CopyInformation(grid)
    return sitk.DICOMOrient(image, orientation), sitk.DICOMOrient(drawn, orientation)


def dice(one: np.ndarray, other: np.ndarray, label: int) -> float:
    a, b = one == label, other == label
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.stack([labels == label for label in range(3)]).astype(np.float32)


@pytest.mark.parametrize(
    ("voxels", "recipe", "least"),
    [
        ((2.0, 2.0, 2.0), (2.0, 2.0, 2.0), 1.0),  # the same voxels: nothing may move
        ((1.0, 1.0, 4.0), (2.0, 2.0, 2.0), 0.9),  # thick slices
        ((1.5, 1.5, 1.5), (2.0, 2.0, 2.0), 0.91),
        ((3.0, 3.0, 3.0), (1.5, 1.5, 1.5), 0.97),  # a coarse image on a fine grid
    ],
)
def test_what_goes_to_the_recipes_grid_comes_back_in_its_place(voxels, recipe, least):
    image, drawn = oblique(voxels)
    grid = RecipeGrid.of(image, recipe_of(recipe))
    back = likeliest(one_hot(labels_on(grid, drawn)), grid, image)
    assert back.shape == image.GetSize()[::-1]
    there = sitk.GetArrayFromImage(drawn)
    assert min(dice(back, there, label) for label in (1, 2)) >= least


def test_the_grid_covers_the_image_and_runs_along_the_body():
    image, _ = oblique((1.3, 1.1, 3.7))
    grid = RecipeGrid.of(image, recipe_of((2.0, 2.5, 3.0)))
    axes = np.array(grid.direction).reshape(3, 3)
    assert (np.diag(axes) > 0.9).all()  # left, posterior, superior, as far as the tilt lets them
    copy = grid.image(np.zeros(grid.size[::-1], np.float32))
    corners = np.array([image.TransformIndexToPhysicalPoint(i) for i in np.ndindex(2, 2, 2)])
    inside = [copy.TransformPhysicalPointToContinuousIndex(tuple(corner)) for corner in corners]
    assert (np.array(inside) > -0.5).all()
    assert (np.array(inside) < np.array(grid.size) - 0.5).all()


def test_the_net_sees_the_same_however_the_image_is_stored():
    recipe = recipe_of((2.0, 2.0, 3.0))
    seen = []
    for orientation in ("LPS", "PIR", "SAL"):
        image, _ = oblique((1.0, 1.0, 2.0), orientation)
        seen.append(net_input(image, RecipeGrid.of(image, recipe), recipe))
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-4)
    np.testing.assert_allclose(seen[2], seen[0], atol=1e-4)
    assert seen[0].mean() == pytest.approx(0, abs=1e-4)
    assert seen[0].std() == pytest.approx(1, abs=1e-3)


def test_hounsfield_units_are_windowed():
    voxels = np.linspace(-1000, 2000, 4 * 4 * 4).reshape(4, 4, 4).astype(np.float32)
    image = sitk.GetImageFromArray(voxels)
    recipe = default_recipe("ct", LEVELS, spacing_mm=[1.0, 1.0, 1.0], patch=[64, 64, 64])
    seen = net_input(image, RecipeGrid.of(image, recipe), recipe)
    np.testing.assert_allclose(seen, (voxels.clip(-250, 1250) + 250) / 750 - 1, atol=1e-5)


def test_an_image_without_contrast_is_refused():
    image = sitk.GetImageFromArray(np.full((8, 8, 8), 7, np.float32))
    recipe = recipe_of((1.0, 1.0, 1.0))
    with pytest.raises(ImageConstant):
        net_input(image, RecipeGrid.of(image, recipe), recipe)


def test_islands_go_and_one_piece_stays_where_there_is_one():
    labels = np.zeros((20, 10, 10), np.uint8)
    labels[2:7, 2:8, 2:8], labels[15:18, 2:6, 2:6], labels[0, 9, 9] = 1, 1, 1
    labels[9:12, 2:8, 2:8], labels[13, 9, 9] = 2, 2
    kept = clean(labels, recipe_of((1.0, 1.0, 1.0), smallest_mm3=10.0), voxel_mm3=1.0)
    assert [(kept == label).sum() for label in (1, 2)] == [180, 108]
    every = clean(labels, recipe_of((1.0, 1.0, 1.0), smallest_mm3=10.0, largest_piece=False), voxel_mm3=1.0)
    assert [(every == label).sum() for label in (1, 2)] == [228, 108]
    union = default_recipe("ct", [UNION], smallest_mm3=10.0)
    assert (clean((labels == 1).astype(np.uint8), union, voxel_mm3=1.0) == 1).sum() == 228
    assert (clean((labels == 1).astype(np.uint8), union, voxel_mm3=0.01) == 1).sum() == 0
