"""A made-up lumbar spine of boxes in a body of the right intensities, sound in every respect, for tests to spoil."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from feature_store.vocabulary import RoiName
from pipelines.cases.quality.regions import judge_rois
from pipelines.cases.quality.series import judge_series
from pipelines.cases.quality.verdict import Quality
from pipelines.cases.rois import LabelName, find_rois

LEVELS = ("L5", "L4", "L3", "L2", "L1")
SIZE = (48, 44, 140)
"""x, y, z at 1.5 mm: 210 mm from head to foot."""
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SAGITTAL = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


@dataclass
class Made:
    """Arrays (z, y, x) with axes to S, P, L as LPS has them, before they are stored."""

    image: np.ndarray
    labels: np.ndarray
    names: dict[int, LabelName] = field(default_factory=dict)
    spacing: tuple[float, float, float] = (1.5, 1.5, 1.5)

    def stored(self, flips: tuple[bool, bool, bool] = (False, False, False)) -> tuple[sitk.Image, sitk.Image]:
        """Image and mask; ``flips`` (x, y, z) store the same voxels in the opposite order along an axis."""
        made = []
        for array in (self.image, self.labels):
            direction, origin = np.eye(3), np.zeros(3)
            for axis, flip in enumerate(flips):
                if flip:
                    array = np.flip(array, 2 - axis)
                    direction[axis, axis] = -1.0
                    origin[axis] = (array.shape[2 - axis] - 1) * self.spacing[axis]
            one = sitk.GetImageFromArray(np.ascontiguousarray(array))
            one.SetSpacing(self.spacing)
            one.SetOrigin(origin.tolist())
            one.SetDirection(direction.ravel().tolist())
            made.append(one)
        return made[0], made[1]


def spine(seed: int = 0) -> Made:
    """A CT: five vertebral bodies of 27 mm from L5 (label 1) at the foot to L1 (5), psoas left (6) and right (7)."""
    draw = np.random.default_rng(seed)
    x, y, z = SIZE
    image = draw.normal(40.0, 30.0, (z, y, x))
    labels = np.zeros((z, y, x), np.uint16)
    for number in range(1, 6):
        foot = 8 + (number - 1) * 25
        labels[foot : foot + 18, 10:32, 12:36] = number
    labels[10:120, 14:30, 38:46] = 6  # x grows to the patient's left
    labels[10:120, 14:30, 2:10] = 7
    bone = (labels > 0) & (labels < 6)
    image[bone] = draw.normal(220.0, 60.0, int(bone.sum()))
    image[0, 0, :] = -1000.0  # some air
    names = {number: LabelName("vertebral_body", level) for number, level in enumerate(LEVELS, 1)}
    names |= {6: LabelName("psoas_major", side="left"), 7: LabelName("psoas_major", side="right")}
    return Made(np.rint(image).astype(np.int16), labels, names)


def judged(
    made: Made, sequence: str = "ct", flips: tuple[bool, bool, bool] = (False, False, False)
) -> tuple[Quality, dict[RoiName, Quality]]:
    """The verdicts of a made case."""
    image, mask = made.stored(flips)
    quality, intensities = judge_series(image, sequence)
    rois = find_rois(mask, made.names, sequence).rois
    return quality, {roi.name: of for roi, of in zip(rois, judge_rois(image, mask, rois, intensities), strict=True)}


def codes(quality: Quality) -> list[str]:
    return sorted(f"{reason.code}:{reason.verdict.value}" for reason in quality.reasons)


def noise_image(
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
    direction: tuple[float, ...] = AXIAL,
    mean: float = 300.0,
    sd: float = 60.0,
) -> sitk.Image:
    """An MR of noise; ``size`` and ``spacing`` are x, y, z of the stored array."""
    voxels = np.random.default_rng(0).normal(mean, sd, size[::-1])
    image = sitk.GetImageFromArray(np.rint(voxels).astype(np.int16))
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return image
