"""Is this series what its name says, and does it show enough, finely enough, in believable numbers?

Geometry is judged whole. Intensities are judged on at most two million voxels of a regular subgrid, which
is every voxel of most series; shares and volumes are of that subgrid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from pipelines.cases.quality.body_axes import AXES, PLANES, BodyAxes
from pipelines.cases.quality.settings import DEFAULT, QualitySettings, named_plane
from pipelines.cases.quality.verdict import Number, Quality, Reason, fail, warn

SAMPLED_VOXELS = 2_000_000
AIR_HU = -300.0
IMMERKAER = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
"""Answers to noise and not to edges or ramps; its SD over white noise of SD s is 6 s (Immerkær 1996)."""


@dataclass(frozen=True)
class Intensities:
    """What ROIs are compared with: whether the image is a CT, its lowest value and its 99th percentile."""

    is_ct: bool
    lowest: float
    p99: float


def is_ct(sequence: str) -> bool:
    """Whether a sequence's voxels are Hounsfield units: ``ct`` and a site's own ``ct_…``."""
    return sequence == "ct" or sequence.startswith("ct_")


def judge_series(image: sitk.Image, sequence: str, settings: QualitySettings = DEFAULT) -> tuple[Quality, Intensities]:
    """The verdict on one image, and what its ROIs need to know of it. Raises nothing."""
    axes = BodyAxes.of(image)
    sample = _subgrid(axes.view(sitk.GetArrayViewFromImage(image)))
    p99 = float(np.percentile(sample, 99))
    intensities = Intensities(is_ct(sequence), float(sample.min()), p99)
    geometry, reasons = _geometry(axes, sequence, settings)
    measured, more = _values(sample, intensities, axes, settings)
    noise = _noise(axes.view(sitk.GetArrayViewFromImage(image)), axes, intensities)
    return Quality(tuple(reasons + more), {**geometry, **measured, **noise}), intensities


def _geometry(axes: BodyAxes, sequence: str, settings: QualitySettings) -> tuple[dict[str, Number], list[Reason]]:
    bounds = settings.of_sequence(sequence)
    height, _, width = axes.extent_mm
    slices = axes.stack_axis(settings.stack_ratio)
    across = slices if slices is not None else int(np.argmax(axes.spacing))
    pixel = max(step for axis, step in enumerate(axes.spacing) if axis != across)
    anisotropy = max(axes.spacing) / min(axes.spacing)
    reasons = []
    if bounds.head_to_foot is not None and height < bounds.head_to_foot:
        need = "three lumbar levels" if named_plane(sequence) == "axial" else "L1 to S1"
        reasons.append(
            warn(
                "FieldOfViewShort",
                f"it covers {height:.0f} mm from head to foot; {need} need {bounds.head_to_foot:.0f} mm.",
            )
        )
    if bounds.left_to_right is not None and width < bounds.left_to_right:
        need = "both sides' muscles need" if named_plane(sequence) == "axial" else "a lumbar body needs"
        reasons.append(
            warn(
                "FieldOfViewNarrow",
                f"it covers {width:.0f} mm from left to right; {need} {bounds.left_to_right:.0f} mm.",
            )
        )
    if axes.spacing[across] > bounds.slice_spacing:
        step = f"slices lie {axes.spacing[across]:.1f} mm apart; at most {bounds.slice_spacing:.1f} mm is wanted."
        reasons.append(warn("SlicesThick", step))
    if pixel > bounds.pixel:
        reasons.append(
            warn("PixelsCoarse", f"pixels are {pixel:.2f} mm wide; at most {bounds.pixel:.1f} mm is wanted.")
        )
    if anisotropy > settings.most_anisotropy:
        reasons.append(
            warn(
                "Anisotropic",
                f"voxels are {anisotropy:.1f} times as long as wide; at most {settings.most_anisotropy:g}.",
            )
        )
    if axes.size[across] < settings.least_slices:
        reasons.append(
            warn("SlicesFew", f"it has {axes.size[across]} slices; at least {settings.least_slices} are wanted.")
        )
    plane = "volume" if slices is None else PLANES[slices]
    reasons += _plane(axes, plane, sequence, settings)
    measured: dict[str, Number] = {
        "plane": plane,
        "slices": axes.size[across],
        "slice_spacing_mm": _round(axes.spacing[across]),
        "pixel_mm": _round(pixel),
        "anisotropy": _round(anisotropy),
        "tilt_deg": _round(axes.tilt_deg),
        **{f"{name}_mm".replace("-", "_"): _round(mm) for name, mm in zip(AXES, axes.extent_mm, strict=True)},
    }
    return measured, reasons


def _plane(axes: BodyAxes, plane: str, sequence: str, settings: QualitySettings) -> list[Reason]:
    """The stack's plane against the one in the sequence's name; a volume may be cut any way."""
    named = named_plane(sequence)
    if not named or plane in ("volume", named):
        return []
    ratio = max(axes.spacing) / sorted(axes.spacing)[1]
    sentence = f"its slices are {plane}, {ratio:.1f} times as far apart as pixels; {sequence} says {named}."
    return [(fail if ratio >= settings.stack_ratio_fail else warn)("PlaneDiffers", sentence)]


def _values(
    sample: np.ndarray, intensities: Intensities, axes: BodyAxes, settings: QualitySettings
) -> tuple[dict[str, Number], list[Reason]]:
    low, high = float(sample.min()), float(sample.max())
    at_low, at_high = float(np.mean(sample == low)), float(np.mean(sample == high))
    levels = _levels(sample, low, high)
    measured: dict[str, Number] = {
        "lowest": _round(low),
        "p1": _round(float(np.percentile(sample, 1))),
        "p99": _round(intensities.p99),
        "highest": _round(high),
        "share_at_lowest": _round(at_low),
        "share_at_highest": _round(at_high),
        "grey_levels": levels,
    }
    reasons = []
    if levels < settings.least_levels_warn:
        sentence = f"it has {levels} distinct grey values; at least {settings.least_levels_warn} are wanted."
        reasons.append((fail if levels < settings.least_levels_fail else warn)("GreyLevelsFew", sentence))
    if at_high > settings.most_at_maximum and levels >= settings.least_levels_fail:
        reasons.append(
            warn(
                "CutOffAtMaximum",
                f"{at_high:.1%} of its voxels hold the largest value; at most {settings.most_at_maximum:.1%}.",
            )
        )
    if at_low > settings.most_constant and levels >= settings.least_levels_fail:
        reasons.append(
            warn(
                "MostlyBackground",
                f"{at_low:.0%} of its voxels hold the smallest value; at most {settings.most_constant:.0%}.",
            )
        )
    if intensities.is_ct:
        more, ct_reasons = _hounsfield(sample, axes, settings)
        measured |= more
        reasons += ct_reasons
    return measured, reasons


def _hounsfield(
    sample: np.ndarray, axes: BodyAxes, settings: QualitySettings
) -> tuple[dict[str, Number], list[Reason]]:
    body = sample[sample > AIR_HU]
    soft = float(np.median(body)) if body.size else AIR_HU
    share = float(np.mean(sample > settings.metal_hu))
    metal = share * float(np.prod(axes.extent_mm))
    reasons = []
    lowest, highest = settings.soft_tissue_hu_warn
    if not lowest <= soft <= highest:
        least, most = settings.soft_tissue_hu_fail
        sentence = f"the median of what is no air is {soft:.0f} HU; in a body it is {lowest:.0f} to {highest:.0f} HU."
        reasons.append((warn if least <= soft <= most else fail)("HounsfieldImplausible", sentence))
    if metal > settings.most_metal_mm3:
        most = settings.most_metal_mm3
        sentence = f"{metal:.0f} mm³ are above {settings.metal_hu:.0f} HU (implants?); at most {most:.0f} mm³."
        reasons.append(warn("MetalInImage", sentence))
    return {"soft_tissue_hu": _round(soft), "metal_mm3": _round(metal), "metal_share": _round(share)}, reasons


def _noise(view: np.ndarray, axes: BodyAxes, intensities: Intensities) -> dict[str, Number]:
    """SD of the noise in the body, and for MR the signal over it, from the middle slice. Information only.

    Immerkær's mask with the median for the mean, so that the few edges which do answer do not count.
    """
    across = int(np.argmax(axes.spacing))
    slice_ = np.take(view, view.shape[across] // 2, axis=across).astype(np.float64)
    if min(slice_.shape) < 5:
        return {}
    answer = sum(
        IMMERKAER[i, j] * slice_[i : slice_.shape[0] - 2 + i, j : slice_.shape[1] - 2 + j]
        for i in range(3)
        for j in range(3)
    )
    inner = slice_[1:-1, 1:-1]
    threshold = AIR_HU if intensities.is_ct else intensities.lowest + 0.2 * (intensities.p99 - intensities.lowest)
    body = inner > threshold
    if np.count_nonzero(body) < 50:
        return {}
    noise = float(np.median(np.abs(answer[body]))) / 0.6745 / 6.0
    measured: dict[str, Number] = {"noise": _round(noise)}
    if not intensities.is_ct and noise > 0:
        measured["snr"] = _round(float(np.median(inner[body])) / noise)
    return measured


def _levels(sample: np.ndarray, low: float, high: float) -> int:
    if sample.dtype.kind in "iu" and high - low < 2**20:
        return int(np.count_nonzero(np.bincount(sample.ravel().astype(np.int64) - int(low))))
    return int(np.unique(sample.ravel()[:: max(1, sample.size // 200_000)]).size)


def _subgrid(view: np.ndarray) -> np.ndarray:
    """Every n-th voxel along each axis, coarsest where there are most, down to SAMPLED_VOXELS."""
    steps = [1, 1, 1]
    while True:
        sizes = [-(-n // step) for n, step in zip(view.shape, steps, strict=True)]
        if int(np.prod(sizes)) <= SAMPLED_VOXELS:
            break
        steps[int(np.argmax(sizes))] += 1
    return view[:: steps[0], :: steps[1], :: steps[2]]


def _round(value: float) -> float:
    """Six significant digits: what is stored is what was measured, without the noise of the last bits."""
    return float(f"{value:.6g}")
