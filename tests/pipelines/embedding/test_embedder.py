from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from feature_store.errors import ExtractionError, LabelEmpty
from models.checkpoints import random_weights
from models.encoders import EncoderSettings
from pipelines.embedding.embedder import Embedder, roi_cube

SETTINGS = EncoderSettings()
NO_MARGIN = EncoderSettings(margin_mm=0.0)


def _image(shape=(20, 24, 28), spacing=(1.0, 1.0, 1.0), seed=0) -> sitk.Image:
    voxels = np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    return image


def _box_mask(shape, z, y, x) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[z, y, x] = True
    return mask


def _reference(box: np.ndarray) -> np.ndarray:
    """Linear interpolation at voxel centres, by another library; z-scored."""
    grid = np.meshgrid(*((np.arange(128) + 0.5) * n / 128 - 0.5 for n in box.shape), indexing="ij")
    cube = map_coordinates(box.astype(np.float64), grid, order=1, mode="nearest")
    return (cube - cube.mean()) / cube.std()


def test_cube_is_the_box_resized_linearly_and_z_scored():
    image = _image()
    mask = _box_mask((20, 24, 28), slice(4, 12), slice(5, 15), slice(6, 26))
    cube = roi_cube(image, mask, NO_MARGIN)
    assert cube.shape == (128, 128, 128)
    assert cube.dtype == np.float32
    voxels = sitk.GetArrayFromImage(image)
    np.testing.assert_allclose(cube, _reference(voxels[4:12, 5:15, 6:26]), atol=2e-5)
    assert cube.mean(dtype=np.float64) == pytest.approx(0, abs=1e-5)
    assert cube.std(dtype=np.float64) == pytest.approx(1, abs=1e-5)


def test_margin_is_in_millimetres_and_clipped_at_the_border():
    image = _image(spacing=(2.0, 1.0, 3.0))  # x, y, z
    mask = _box_mask((20, 24, 28), slice(8, 12), slice(5, 15), slice(1, 26))
    voxels = sitk.GetArrayFromImage(image)
    # 5 mm: 3 voxels along x (clipped to 1 and 2), 5 along y, 2 along z
    expected = _reference(voxels[6:14, 0:20, 0:28])
    np.testing.assert_allclose(roi_cube(image, mask, SETTINGS), expected, atol=2e-5)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["LPS", "RAS", "ASL", "PIR", "SLA", "LAI", "IPR"]), st.integers(0, 3))
def test_cube_does_not_depend_on_how_the_image_is_stored(orientation, seed):
    image = _image((9, 12, 15), (0.9, 0.8, 2.0), seed)
    mask = sitk.GetImageFromArray(_box_mask((9, 12, 15), slice(2, 6), slice(3, 8), slice(4, 12)).astype(np.uint8))
    mask.CopyInformation(image)
    turned, turned_mask = sitk.DICOMOrient(image, orientation), sitk.DICOMOrient(mask, orientation)
    np.testing.assert_array_equal(
        roi_cube(image, sitk.GetArrayFromImage(mask) != 0, SETTINGS),
        roi_cube(turned, sitk.GetArrayFromImage(turned_mask) != 0, SETTINGS),
    )


def test_cube_keeps_what_lies_around_the_roi():
    image = _image()
    solid = _box_mask((20, 24, 28), slice(4, 12), slice(5, 15), slice(6, 26))
    hollow = solid.copy()
    hollow[6:10, 7:13, 8:24] = False
    np.testing.assert_array_equal(roi_cube(image, solid, SETTINGS), roi_cube(image, hollow, SETTINGS))


def test_affine_intensities_give_the_same_cube():
    image = _image()
    mask = _box_mask((20, 24, 28), slice(4, 12), slice(5, 15), slice(6, 26))
    np.testing.assert_allclose(
        roi_cube(image * 3.0 + 1000.0, mask, SETTINGS), roi_cube(image, mask, SETTINGS), atol=1e-3
    )


def test_integer_image_and_one_slice_roi():
    image = sitk.Cast(_image(), sitk.sitkInt16)
    mask = _box_mask((20, 24, 28), slice(4, 5), slice(5, 15), slice(6, 26))
    cube = roi_cube(image, mask, NO_MARGIN)
    np.testing.assert_allclose(cube[0], cube[127], atol=1e-6)
    assert np.isfinite(cube).all()


def test_constant_box_and_empty_mask_are_named():
    image = sitk.GetImageFromArray(np.full((10, 10, 10), 7.3, dtype=np.float32))
    with pytest.raises(ExtractionError, match="constant"):
        roi_cube(image, np.ones((10, 10, 10), dtype=bool), SETTINGS)
    with pytest.raises(LabelEmpty):
        roi_cube(image, np.zeros((10, 10, 10), dtype=bool), SETTINGS)


def test_embedder_gives_a_cube_the_same_numbers_in_any_company():
    image = _image((24, 24, 24))
    masks = [_box_mask((24, 24, 24), slice(a, a + 10), slice(a, a + 12), slice(a, a + 9)) for a in (2, 5, 9)]
    cubes = np.stack([roi_cube(image, mask, SETTINGS) for mask in masks])
    embedder = Embedder(SETTINGS, random_weights("vit_small", 0))
    together = embedder.embed(cubes)
    assert together.shape == (3, 384)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(embedder.embed(cubes[1:2])[0], together[1])
    assert np.abs(together[0] - together[1]).max() > 1e-3
    assert embedder.embed(cubes[:0]).shape == (0, 384)
