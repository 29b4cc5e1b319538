"""Masks on their image's grid: turned without loss, or refused with the distance."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from feature_store.errors import GridMismatch
from pipelines.imaging.images import read_image
from pipelines.imaging.masks import GRID_TOLERANCE, align_mask, read_mask
from tests.pipelines.imaging.malformed_masks import a_label_map

TURNS = [(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]


def a_rotation(seed: int) -> list[float]:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0].ravel().tolist()


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(*[st.integers(2, 6)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    direction=st.one_of(st.just([1.0, 0, 0, 0, 1, 0, 0, 0, 1]), st.integers(0, 10**6).map(a_rotation)),
    turn=st.sampled_from(TURNS),
)
def test_a_mask_turned_any_way_comes_back(size, spacing, direction, turn) -> None:  # type: ignore[no-untyped-def]
    image = a_label_map(size, spacing, direction)
    axes, flips = turn
    # ITK's own filters turn voxels and header together, so the voxels stay where they are in the world
    turned = sitk.Flip(sitk.PermuteAxes(image, axes), flips)
    aligned = align_mask(turned, image)
    assert np.array_equal(sitk.GetArrayFromImage(aligned), sitk.GetArrayFromImage(image))
    assert aligned.GetSize() == image.GetSize()
    assert aligned.GetSpacing() == image.GetSpacing()
    assert aligned.GetOrigin() == image.GetOrigin()
    assert aligned.GetDirection() == image.GetDirection()


@settings(max_examples=100, deadline=None)
@given(
    turn=st.sampled_from(TURNS),
    shift=st.tuples(*[st.floats(-1, 1)] * 3),
    direction=st.integers(0, 10**6).map(a_rotation),
)
def test_a_shift_is_refused_with_its_distance(turn, shift, direction) -> None:  # type: ignore[no-untyped-def]
    image = a_label_map((4, 5, 6), (0.5, 0.8, 3.0), direction)
    distance = float(np.linalg.norm(shift))
    assume(distance > 0.01 * 0.5)  # a hundredth of a voxel
    mask = sitk.Flip(sitk.PermuteAxes(image, turn[0]), turn[1])
    mask.SetOrigin([o + d for o, d in zip(mask.GetOrigin(), shift, strict=True)])
    with pytest.raises(GridMismatch) as raised:
        align_mask(mask, image)
    told = float(raised.value.message.split("up to ")[1].split(" mm")[0])
    assert told == pytest.approx(distance, rel=1e-3)


def test_the_noise_of_float32_headers_is_not_a_shift(tmp_path: Path) -> None:
    image = a_label_map((60, 50, 40), (0.4882813, 0.48828125, 0.7), a_rotation(4))
    image.SetOrigin((-512.3333333, 487.7777777, -1204.1111111))
    sitk.WriteImage(image, str(tmp_path / "m.nii.gz"))
    mask = read_mask(tmp_path / "m.nii.gz")
    assert mask.GetOrigin() != image.GetOrigin()
    assert np.array_equal(sitk.GetArrayFromImage(align_mask(mask, image)), sitk.GetArrayFromImage(image))


def test_tolerance_is_a_small_share_of_a_voxel() -> None:
    """Raising it to let a bad mask through has to change this test as well."""
    assert GRID_TOLERANCE <= 1e-3


# --- label maps -----------------------------------------------------------------------------------
def _map_of(values: list[float], dtype: type) -> sitk.Image:
    return sitk.GetImageFromArray(np.resize(np.array(values, dtype), (2, 3, 4)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_labels(dtype: type, tmp_path: Path) -> None:
    sitk.WriteImage(_map_of([0, 27, 89], dtype), str(tmp_path / "m.nrrd"))
    mask = read_mask(tmp_path / "m.nrrd")
    assert mask.GetPixelID() == sitk.sitkUInt16
    assert np.array_equal(np.unique(sitk.GetArrayViewFromImage(mask)), [0, 27, 89])


# --- real -----------------------------------------------------------------------------------------
def test_the_real_flipped_mask_is_turned(shared_data: Path) -> None:
    """Stored with the y axis flipped: the same voxels in the world, refused by stock PyRadiomics."""
    image = read_image(shared_data / "spine/ct_dicom/series")
    mask = read_mask(shared_data / "spine/ct_dicom/seg.nii.gz")
    assert mask.GetDirection() != image.GetDirection()
    aligned = align_mask(mask, image)
    expected = sitk.GetArrayFromImage(mask)[:, ::-1, :]
    assert np.array_equal(sitk.GetArrayFromImage(aligned), expected)
    # and the anatomy agrees: vertebrae are brighter than muscle, in Hounsfield units
    voxels, labels = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(aligned)
    assert voxels[labels == 32].mean() > voxels[labels == 86].mean() + 50
    # resampling by world coordinates says the same
    same = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    assert np.array_equal(sitk.GetArrayFromImage(same), labels)
