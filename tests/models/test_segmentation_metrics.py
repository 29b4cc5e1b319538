from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from models.segmentation.metrics import agreement, mean_dice, summary


def _reference(found: np.ndarray, drawn: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """Mean symmetric surface distance and Hausdorff 95 by distance transforms, from their definitions."""

    def surface(mask: np.ndarray) -> np.ndarray:
        return mask & ~ndimage.binary_erosion(mask)

    ours, theirs = surface(found), surface(drawn)
    to_theirs = ndimage.distance_transform_edt(~theirs, sampling=spacing)[ours]
    to_ours = ndimage.distance_transform_edt(~ours, sampling=spacing)[theirs]
    mean = np.concatenate([to_theirs, to_ours]).mean()
    return float(mean), max(float(np.percentile(to_theirs, 95)), float(np.percentile(to_ours, 95)))


def test_figures_follow_their_definitions_in_millimetres():
    spacing = (3.0, 0.8, 1.1)
    rng = np.random.default_rng(0)
    drawn = ndimage.gaussian_filter(rng.normal(size=(20, 30, 26)), 4) > 0.01
    found = ndimage.binary_dilation(np.roll(drawn, 2, axis=0)) & (rng.random(drawn.shape) > 0.02)
    drawn[:2], found[:2] = False, False
    one = agreement(found.astype(np.uint8), drawn.astype(np.uint8), spacing, 1)[0]
    assert one.dice == pytest.approx(2 * (found & drawn).sum() / (found.sum() + drawn.sum()), rel=1e-6)
    assert (one.surface_mm, one.hausdorff95_mm) == pytest.approx(_reference(found, drawn, spacing), rel=1e-5)
    assert mean_dice(found.astype(np.uint8), drawn.astype(np.uint8), 1) == pytest.approx(one.dice, rel=1e-6)


def test_a_region_cut_off_by_the_images_border_has_a_surface_there():
    drawn, found = np.zeros((8, 8, 8), np.uint8), np.zeros((8, 8, 8), np.uint8)
    drawn[:4], found[:6] = 1, 1
    one = agreement(found, drawn, (2.0, 1.0, 1.0), 1)[0]
    # the two lower faces coincide; the upper ones lie two slices of 2 mm apart
    assert one.hausdorff95_mm == pytest.approx(4.0)
    assert 0 < one.surface_mm < 4.0


def test_absent_missed_and_unexpected_classes():
    drawn, found = np.zeros((6, 6, 6), np.uint8), np.zeros((6, 6, 6), np.uint8)
    drawn[1:3], drawn[4] = 1, 2
    found[1:3], found[5] = 1, 3
    right, missed, unexpected, absent = agreement(found, drawn, (1.0, 1.0, 1.0), 4)
    assert (right.dice, right.surface_mm, right.hausdorff95_mm) == (1.0, 0.0, 0.0)
    assert (missed.dice, missed.drawn, missed.found) == (0.0, True, False)
    assert math.isnan(missed.surface_mm)
    assert math.isnan(unexpected.dice)
    assert unexpected.found
    assert math.isnan(absent.dice)
    assert mean_dice(found, drawn, 4) == 0.5
    one = summary([[right, missed, unexpected, absent]] * 2, ["a", "b", "c", "d"])
    assert [one["classes"][name]["images"] for name in "abcd"] == [2, 2, 0, 0]
    assert [one["classes"][name]["missed"] for name in "abcd"] == [0, 2, 0, 0]
    assert [one["classes"][name]["unexpected"] for name in "abcd"] == [0, 0, 2, 0]
    assert [one["classes"][name]["dice"] for name in "abcd"] == [1.0, 0.0, None, None]
    assert (one["dice"], one["surface_mm"]) == (0.5, 0.0)
    assert [image["dice"] for image in one["by_image"]] == [0.5, 0.5]


def test_label_maps_of_different_grids_are_not_compared():
    with pytest.raises(ValueError, match="compared"):
        agreement(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8), (1.0, 1.0, 1.0), 1)
