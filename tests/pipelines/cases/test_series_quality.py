"""Quality control of a series: geometry against what its sequence needs, intensities against what a scanner makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydantic import ValidationError

from pipelines.cases.quality.series import judge_series
from pipelines.cases.quality.settings import DEFAULT, QualitySettings
from pipelines.cases.quality.verdict import Verdict
from tests.pipelines.cases.quality_images import SAGITTAL, codes, noise_image, spine

USUAL = {
    # size and spacing as stored, direction, sequence
    "sagittal stack": ((256, 256, 15), (1.0, 1.0, 4.4), SAGITTAL, "t2_sag"),
    "axial stack": ((200, 200, 26), (1.0, 1.0, 4.4), None, "t2_ax"),
    "volume cut axially": ((120, 120, 160), (1.0, 1.0, 1.0), None, "t2_sag"),
    "a site's own sequence": ((120, 120, 60), (1.0, 1.0, 1.0), None, "dixon_water"),
}


@pytest.mark.parametrize("name", USUAL)
def test_usual_series_pass(name: str) -> None:
    size, spacing, direction, sequence = USUAL[name]
    quality, _ = judge_series(noise_image(size, spacing, *([direction] if direction else [])), sequence)
    assert quality.lines() == []
    assert quality.verdict is Verdict.PASS


LIMITED: dict[str, tuple[Any, ...]] = {
    "short axial slab": ((120, 120, 20), (1.5, 1.5, 3.0), None, "t2_ax", ["FieldOfViewShort:warn"]),
    "narrow axial slab": ((100, 200, 26), (1.0, 1.0, 4.0), None, "t2_ax", ["FieldOfViewNarrow:warn"]),
    "half a sagittal stack": ((256, 120, 15), (1.0, 1.0, 4.4), SAGITTAL, "t1_sag", ["FieldOfViewShort:warn"]),
    "thick slices": ((256, 256, 9), (1.0, 1.0, 7.0), SAGITTAL, "t1_sag", ["SlicesThick:warn"]),
    "coarse pixels": ((120, 120, 15), (2.0, 2.0, 4.4), SAGITTAL, "t1_sag", ["PixelsCoarse:warn"]),
    "few slices": ((200, 200, 7), (1.0, 1.0, 5.0), None, "dixon_water", ["SlicesFew:warn"]),
    "needles": ((256, 256, 15), (0.3, 0.3, 4.5), None, "dixon_water", ["Anisotropic:warn"]),
    "sagittal called axial": (
        (256, 256, 40), (1.0, 1.0, 4.4), SAGITTAL, "t2_ax", ["PlaneDiffers:fail"],
    ),
    "a slightly thick reformat": ((160, 160, 110), (1.0, 1.0, 1.6), None, "t2_sag", ["PlaneDiffers:warn"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITED)
def test_limited_series_say_why(name: str) -> None:
    size, spacing, direction, sequence, expected = LIMITED[name]
    quality, _ = judge_series(noise_image(size, spacing, *([direction] if direction else [])), sequence)
    assert codes(quality) == expected


def test_a_sentence_has_the_number_and_its_bound() -> None:
    quality, _ = judge_series(noise_image((120, 120, 20), (1.5, 1.5, 3.0)), "t2_ax")
    (line,) = quality.lines()
    assert line == "FieldOfViewShort: it covers 60 mm from head to foot; three lumbar levels need 90 mm."
    assert quality.measured["head_foot_mm"] == 60.0


def test_directions_are_those_of_the_world() -> None:
    """The same sagittal stack stored flipped and with permuted axes has the same extents and plane."""
    image = noise_image((256, 200, 15), (1.0, 1.0, 4.4), SAGITTAL)
    turned = sitk.PermuteAxes(sitk.Flip(image, (True, False, True)), (2, 0, 1))
    one, _ = judge_series(image, "t2_sag")
    other, _ = judge_series(turned, "t2_sag")
    for name in ("plane", "slices", "head_foot_mm", "front_back_mm", "left_right_mm"):
        assert one.measured[name] == other.measured[name]
    assert one.measured["plane"] == "sagittal"
    assert (one.measured["head_foot_mm"], one.measured["left_right_mm"]) == (200.0, 66.0)


def _ct(change: Callable[[np.ndarray], np.ndarray]) -> sitk.Image:
    made = spine()
    made.image = change(made.image.astype(np.float64)).astype(np.int32)
    return made.stored()[0]


def _with_screw(voxels: np.ndarray) -> np.ndarray:
    voxels[40:50, 20:24, 10:30] = 2900 + np.arange(20)
    return voxels


INTENSITIES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], list[str]]] = {
    "sound": (lambda v: v, []),
    "offset missing": (lambda v: np.where(v < -900, -2000, v + 1024), ["HounsfieldImplausible:fail"]),
    "half the offset": (lambda v: np.where(v < -900, v, v + 400), ["HounsfieldImplausible:warn"]),
    "windowed for a screen": (
        lambda v: np.clip(np.round((v + 160) / 8), 0, 30) * 8 - 160,
        ["CutOffAtMaximum:warn", "GreyLevelsFew:warn"],
    ),
    "a label map": (lambda v: np.where(v > 150, 200, 0) - 100 * (v < -900), ["GreyLevelsFew:fail"]),
    "padded": (lambda v: np.where(np.arange(v.shape[0])[:, None, None] < 110, -1024, v), ["MostlyBackground:warn"]),
    "an implant": (_with_screw, ["MetalInImage:warn"]),
}


@pytest.mark.parametrize("name", INTENSITIES)
def test_intensities_of_a_ct(name: str) -> None:
    change, expected = INTENSITIES[name]
    quality, _ = judge_series(_ct(change), "ct")
    assert codes(quality) == expected


def test_noise_is_estimated_from_the_image() -> None:
    """Immerkær's estimate of white noise of SD 12 on a ramp, within five percent; information, never a verdict."""
    ramp = np.linspace(200.0, 400.0, 160)[None, None, :] + np.zeros((15, 160, 160))
    voxels = ramp + np.random.default_rng(1).normal(0.0, 12.0, ramp.shape)
    image = sitk.GetImageFromArray(voxels.astype(np.float32))
    image.SetSpacing((1.0, 1.0, 4.4))
    quality, _ = judge_series(image, "mr")
    assert float(quality.measured["noise"]) == pytest.approx(12.0, rel=0.05)
    assert float(quality.measured["snr"]) == pytest.approx(300.0 / 12.0, rel=0.1)


def test_a_large_series_is_judged_on_a_subgrid() -> None:
    """Six million voxels: shares are those of a third of them, and the plane's numbers are exact."""
    image = noise_image((200, 200, 150), (1.0, 1.0, 1.2))
    quality, intensities = judge_series(image, "mr")
    voxels = sitk.GetArrayViewFromImage(image)
    assert intensities.p99 == pytest.approx(float(np.percentile(voxels, 99)), abs=2.0)
    assert quality.measured["head_foot_mm"] == pytest.approx(180.0)


def test_settings_are_strict_and_their_id_follows_their_values() -> None:
    assert DEFAULT.id == QualitySettings().id
    assert DEFAULT.id.startswith("quality-")
    assert QualitySettings(least_slices=9).id != DEFAULT.id
    with pytest.raises(ValidationError):
        QualitySettings(least_slice=9)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        DEFAULT.least_slices = 3  # type: ignore[misc]
    looser = QualitySettings(axial=DEFAULT.axial.model_copy(update={"head_to_foot": 50.0}))
    quality, _ = judge_series(noise_image((120, 120, 20), (1.5, 1.5, 3.0)), "t2_ax", looser)
    assert quality.verdict is Verdict.PASS
