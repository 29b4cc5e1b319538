"""The cut-out ROI: everything features need, nothing that another crop would change."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import pywt
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import GridMismatch, LabelEmpty, RoiTooSmall
from pipelines.radiomics.crop import RoiCrop, bounding_box, crop_roi
from pipelines.radiomics.texture.wavelet import subbands


def whole_image_subbands(voxels: np.ndarray) -> dict[str, np.ndarray]:
    """As PyRadiomics: odd sizes padded by wrapping, one level along x, y, z."""
    padded = np.pad(voxels, [(0, n % 2) for n in voxels.shape], "wrap")
    (bands,) = pywt.swtn(padded, "coif1", level=1, axes=(2, 1, 0))
    inside = tuple(slice(0, n) for n in voxels.shape)
    return {name.replace("a", "L").replace("d", "H"): band[inside] for name, band in bands.items()}


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*[st.integers(2, 13)] * 3),
    kind=st.sampled_from(["int16", "uint8", "float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_wavelet_of_the_crop_is_the_whole_images_bit_for_bit(shape: tuple[int, int, int], kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    voxels = random.integers(0, 200, shape).astype(kind)
    if random.random() < 0.2:
        voxels[...] = 7  # flat: only rounding is left, and it must be the same rounding
    low = [int(random.integers(0, n)) for n in shape]
    box = [(a, int(random.integers(a + 1, n + 1))) for a, n in zip(low, shape, strict=True)]
    if sum(b - a > 1 for a, b in box) < 2:
        return
    mask = np.zeros(shape, bool)
    inside = tuple(slice(a, b) for a, b in box)
    mask[inside] = True
    crop = crop_roi(voxels, mask, spacing=(1.0, 1.0, 1.0))
    assert crop.image.dtype == voxels.dtype
    expected = whole_image_subbands(voxels)
    found = dict(subbands(crop.image, crop.ends))
    assert set(found) == set(expected)
    for name, band in found.items():
        assert band.dtype == expected[name].dtype
        assert np.array_equal(band, expected[name][inside]), name


def test_a_margin_of_two_would_not_do() -> None:
    voxels = np.random.default_rng(0).normal(size=(12, 12, 12))
    mask = np.zeros(voxels.shape, bool)
    mask[4:8, 4:8, 4:8] = True
    crop = crop_roi(voxels, mask, spacing=(1.0, 1.0, 1.0))
    expected = whole_image_subbands(voxels)["LLL"][4:8, 4:8, 4:8]
    assert np.array_equal(dict(subbands(crop.image))["LLL"], expected)
    clipped = crop.image.copy()
    clipped[-1] = clipped[-2]
    assert not np.array_equal(dict(subbands(clipped))["LLL"], expected)


def test_geometry_and_mask() -> None:
    image = sitk.GetImageFromArray(np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8))
    image.SetSpacing((0.5, 1.5, 4.0))
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[1:3, 2:5, 3:7] = 5
    labels[1, 2, 3] = 0
    mask = sitk.GetImageFromArray(labels)
    mask.CopyInformation(image)
    crop = crop_roi(image, mask)
    assert crop.image.shape == crop.mask.shape == (2 + 6, 3 + 6, 4 + 6)
    assert crop.spacing == (0.5, 1.5, 4.0)
    assert crop.voxel_count == 2 * 3 * 4 - 1
    assert not crop.mask[:3].any()
    assert not crop.mask[:, :, -3:].any()
    core = crop.image[3:-3, 3:-3, 3:-3]
    assert np.array_equal(core, sitk.GetArrayFromImage(image)[1:3, 2:5, 3:7])
    back = pickle.loads(pickle.dumps(crop))
    assert isinstance(back, RoiCrop)
    assert np.array_equal(back.image, crop.image)
    assert back.ends == crop.ends == (False, False, False)


def test_end_of_an_even_axis_is_marked() -> None:
    mask = np.zeros((6, 7, 8), bool)
    mask[4:, 5:, 6:] = True
    crop = crop_roi(np.zeros(mask.shape), mask, spacing=(1.0, 1.0, 1.0))
    assert crop.ends == (True, False, True)  # the odd axis goes on by one padded voxel


def test_crop_owns_its_voxels() -> None:
    voxels = np.zeros((9, 9, 9))
    mask = np.zeros((9, 9, 9), bool)
    mask[3:6, 3:6, 3:6] = True
    crop = crop_roi(voxels, mask, spacing=(1.0, 1.0, 1.0))
    voxels[...] = 1
    assert not crop.image.any()


def test_bounding_box() -> None:
    mask = np.zeros((4, 5, 6), bool)
    mask[1, 2, 3] = mask[3, 2, 0] = True
    assert bounding_box(mask) == [(1, 4), (2, 3), (0, 4)]


@pytest.mark.parametrize(
    ("voxels", "error"),
    [
        ([], LabelEmpty),
        ([(1, 1, 1)], RoiTooSmall),
        ([(1, 1, 1), (1, 1, 2), (1, 1, 4)], RoiTooSmall),
    ],
)
def test_what_cannot_be_used_is_named(voxels: list[tuple[int, int, int]], error: type[Exception]) -> None:
    mask = np.zeros((5, 5, 5), bool)
    for voxel in voxels:
        mask[voxel] = True
    with pytest.raises(error):
        crop_roi(np.zeros((5, 5, 5)), mask, spacing=(1.0, 1.0, 1.0))


def test_sizes_must_agree() -> None:
    with pytest.raises(GridMismatch):
        crop_roi(np.zeros((5, 5, 5)), np.ones((5, 5, 4), bool), spacing=(1.0, 1.0, 1.0))
