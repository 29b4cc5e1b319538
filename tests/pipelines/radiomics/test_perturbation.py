"""Changed versions of an ROI: the same in every run, inside the image, as large as asked, and near what was drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage

from feature_store.errors import ExtractionError, RoiTooSmall
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_sets import PYRADIOMICS_DEFAULT
from pipelines.radiomics.noise import noise_level
from pipelines.radiomics.perturbation import PerturbationSettings, RoiVersions, moved, smooth_field

SPACING = (0.8, 0.8, 3.0)
NOTHING = {"translation": 0.0, "growth": 0.0, "contour_mm": 0.0, "noise": 0.0}


def ellipsoid(shape: tuple[int, ...] = (30, 60, 60), centre: tuple[float, ...] | None = None) -> NDArray[np.bool_]:
    centre = centre or tuple(n / 2 for n in shape)
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return np.asarray(sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, (5, 12, 15), strict=True)) < 1)


def texture(shape: tuple[int, ...] = (30, 60, 60), kind: Any = np.float32) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    return (300 * ndimage.gaussian_filter(rng.normal(size=shape), 2) + rng.normal(0, 8, shape)).astype(kind)


def versions(mask: NDArray[np.bool_] | None = None, kind: Any = np.float32, **changes: Any) -> RoiVersions:
    mask = ellipsoid() if mask is None else mask
    chosen = PerturbationSettings(**changes)
    return RoiVersions(texture(mask.shape, kind), mask, SPACING, chosen, name="a", sigma=8.0)


def voxels(image: sitk.Image) -> NDArray[Any]:
    return sitk.GetArrayFromImage(image)


def test_a_version_is_the_same_in_every_run_and_differs_from_the_others() -> None:
    image, mask = versions().changed(3)
    again, mask_again = versions(repeats=50).changed(3)
    assert (voxels(image) == voxels(again)).all()
    assert (mask == mask_again).all()
    assert (mask != versions().changed(4)[1]).any()
    assert (mask != versions(seed=1).changed(3)[1]).any()
    other = RoiVersions(texture(), ellipsoid(), SPACING, PerturbationSettings(), name="b", sigma=8.0).changed(3)
    assert (mask != other[1]).any()  # its own noise and contour
    assert mask.sum() == other[1].sum()  # of the same growth: versions are the same raters for everybody


def test_nothing_changed_is_the_roi_as_it_was_drawn() -> None:
    drawn, changed = versions(**NOTHING).original(), versions(**NOTHING).changed(1)
    assert (voxels(drawn[0]) == voxels(changed[0])).all()
    assert (drawn[1] == changed[1]).all()
    assert drawn[1].sum() == ellipsoid().sum()


def test_the_block_gives_the_features_of_the_whole_image() -> None:
    extractor = RadiomicsExtractor(PYRADIOMICS_DEFAULT)
    whole = sitk.GetImageFromArray(texture())
    whole.SetSpacing(SPACING)
    np.testing.assert_allclose(
        extractor.extract(*versions().original()), extractor.extract(whole, ellipsoid()), rtol=1e-12
    )


def test_versions_are_as_large_as_said_and_near_the_contour() -> None:
    chosen = PerturbationSettings()
    of = versions()
    _, drawn = of.original()
    dice = []
    for version in range(1, 21):
        change = chosen.change(version)
        assert max(map(abs, change.shift)) <= 0.5
        assert abs(change.growth) <= 0.15
        _, mask = of.changed(version)
        assert mask.sum() == round(int(drawn.sum()) * (1 + change.growth))
        assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1
        dice.append(2 * (mask & drawn).sum() / (mask.sum() + drawn.sum()))
    assert min(dice) > 0.8
    assert max(dice) < 1
    growths = [chosen.change(version).growth for version in range(1, 200)]
    assert min(growths) < -0.12 < 0.12 < max(growths)


def test_each_part_can_be_had_alone() -> None:
    drawn_image, drawn = versions().original()
    noisy, mask = versions(**{**NOTHING, "noise": 2.0}).changed(1)
    assert (mask == drawn).all()
    assert (voxels(noisy) - voxels(drawn_image)).std() == pytest.approx(16, rel=0.02)
    grown, mask = versions(**{**NOTHING, "growth": 0.3}).changed(1)
    assert (voxels(grown) == voxels(drawn_image)).all()
    growth = PerturbationSettings(**{**NOTHING, "growth": 0.3}).change(1).growth
    assert mask.sum() == round(int(drawn.sum()) * (1 + growth))
    assert (mask & drawn).sum() == min(mask.sum(), drawn.sum())  # all of it inside the other
    _, mask = versions(**{**NOTHING, "contour_mm": 0.5}).changed(1)
    assert mask.sum() == drawn.sum()
    assert (mask != drawn).any()


def test_an_image_and_its_mask_are_moved_together() -> None:
    whole = versions(**{**NOTHING, "translation": 1.5}, seed=4)
    shift = PerturbationSettings(**{**NOTHING, "translation": 1.5}, seed=4).change(1).shift
    image, mask = whole.changed(1)
    drawn_image, drawn = whole.original()
    expected = ndimage.shift(voxels(drawn_image).astype(float), shift, order=3, mode="mirror")
    np.testing.assert_allclose(voxels(image), expected, atol=1e-3)
    centre = np.array(ndimage.center_of_mass(mask)) - np.array(ndimage.center_of_mass(drawn))
    np.testing.assert_allclose(centre, shift, atol=0.25)


def test_whole_numbers_stay_whole_and_in_range() -> None:
    image, _ = versions(kind=np.int16).changed(2)
    assert voxels(image).dtype == np.int16
    low = np.full((20, 40, 40), 0, np.uint8)
    mask = ellipsoid(low.shape)
    low[mask] = 255
    image = RoiVersions(low, mask, SPACING, PerturbationSettings(), name="a", sigma=20.0).changed(1)[0]
    assert voxels(image).dtype == np.uint8


def test_an_roi_at_the_border_stays_in_the_image() -> None:
    mask = ellipsoid(centre=(0.0, 59.0, 30.0))
    of = versions(mask)
    for version in range(1, 6):
        image, changed = of.changed(version)
        assert changed.shape == voxels(image).shape
        assert changed.sum() == round(int(mask.sum()) * (1 + PerturbationSettings().change(version).growth))
        RadiomicsExtractor(PYRADIOMICS_DEFAULT).extract(image, changed)


def test_what_cannot_be_is_refused() -> None:
    full = np.ones((6, 6, 6), np.bool_)
    for version in range(1, 10):
        if PerturbationSettings().change(version).growth > 0.01:
            with pytest.raises(ExtractionError, match="no room"):
                versions(full).changed(version)
        elif PerturbationSettings().change(version).growth < -0.01:
            assert versions(full).changed(version)[1].sum() < full.sum()
    tiny = np.zeros((20, 20, 20), np.bool_)
    tiny[10, 10:12, 10:14] = True
    shrinking = next(v for v in range(1, 50) if PerturbationSettings(growth=0.5).change(v).growth < -0.1)
    with pytest.raises(RoiTooSmall, match="8 are needed"):
        versions(tiny, growth=0.5).changed(shrinking)


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_any_mask_gives_valid_versions_or_a_named_refusal(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    mask = rng.random(shape) < data.draw(st.floats(0.05, 1.0))
    if not mask.any():
        mask[0, 0, 0] = True
    spacing = data.draw(st.tuples(*[st.floats(0.3, 6.0)] * 3))
    chosen = PerturbationSettings(growth=0.4, translation=1.5, contour_mm=1.0)
    of = RoiVersions(rng.normal(size=shape), mask, spacing, chosen, name="x", sigma=0.1)
    for version in (1, 2):
        try:
            image, changed = of.changed(version)
        except (RoiTooSmall, ExtractionError):
            continue
        assert changed.shape == voxels(image).shape == mask.shape
        assert changed.sum() == round(int(mask.sum()) * (1 + chosen.change(version).growth)) >= 8
        assert np.isfinite(voxels(image)).all()


def test_settings_are_frozen_and_hashed() -> None:
    assert PerturbationSettings().id == PerturbationSettings().id != PerturbationSettings(noise=0.5).id
    with pytest.raises(ValidationError):
        PerturbationSettings(rotation=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        PerturbationSettings(growth=1.0)


@pytest.mark.parametrize("shift", [(0.3, -0.2, 0.1), (1.4, -1.5, 0.0), (1.0, 0.0, -1.0)])
@pytest.mark.parametrize("degree", [1, 3])
def test_moving_is_the_interpolation_of_scipy(shift: tuple[float, float, float], degree: int) -> None:
    image = texture((12, 15, 18), np.float64)
    coefficients = ndimage.spline_filter(image, order=3, mode="mirror") if degree == 3 else image
    expected = ndimage.shift(image, shift, order=degree, mode="mirror")
    np.testing.assert_allclose(moved(coefficients, shift, degree), expected, atol=1e-9)


def test_a_smooth_field_has_unit_variance_and_the_length_asked_for() -> None:
    fields = np.array([smooth_field((12, 30, 30), np.array([2.0, 6, 6]), np.random.default_rng(i)) for i in range(400)])
    np.testing.assert_allclose(fields.std(axis=0), 1.0, atol=0.2)
    assert abs(fields.mean()) < 0.05
    near = np.corrcoef(fields[:, 6, 15, 15], fields[:, 6, 15, 17])[0, 1]
    far = np.corrcoef(fields[:, 6, 15, 3], fields[:, 6, 15, 28])[0, 1]
    assert near > 0.8
    assert abs(far) < 0.15


def test_the_noise_of_an_image_is_found_beneath_its_structure() -> None:
    rng = np.random.default_rng(0)
    smooth = 2000 * ndimage.gaussian_filter(rng.normal(size=(12, 160, 160)), 4)
    for sigma in (2.0, 25.0):
        assert noise_level(smooth + rng.normal(0, sigma, smooth.shape), SPACING) == pytest.approx(sigma, rel=0.03)
    padded = np.full((12, 400, 400), -1000.0)
    padded[:, 120:280, 120:280] = smooth + rng.normal(0, 25, smooth.shape)
    assert noise_level(padded, SPACING) == pytest.approx(25, rel=0.1)
    assert noise_level(np.full((5, 40, 40), 7.0), SPACING) == 0
    assert noise_level(np.zeros((5, 3, 3)), SPACING) == 0
    sagittal = np.moveaxis(smooth + rng.normal(0, 25, smooth.shape), 0, 2)
    assert noise_level(sagittal, (3.0, 0.8, 0.8)) == pytest.approx(25, rel=0.03)
