"""How well a label map agrees with the one that was drawn: Dice and surface distances by class (MONAI's).

A class that nobody drew in an image says nothing about overlap: its figures are NaN and are not averaged; where
the net drew it all the same, that is counted as ``unexpected``. A class that was drawn and not found has Dice 0
and no distance, and is counted as ``missed``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

PERCENTILE = 95.0


@dataclass(frozen=True)
class ClassAgreement:
    """One class in one image. ``dice`` 0 to 1; the mean symmetric surface distance and the 95th percentile of the
    Hausdorff distance are in mm. NaN where undefined.
    """

    drawn: bool
    found: bool
    dice: float
    surface_mm: float
    hausdorff95_mm: float


def agreement(found: np.ndarray, drawn: np.ndarray, spacing: Sequence[float], classes: int) -> list[ClassAgreement]:
    """Agreement of label maps (z, y, x) for labels 1 … ``classes``; ``spacing`` is z, y, x in mm."""
    if found.shape != drawn.shape:
        raise ValueError(f"label maps of {found.shape} and {drawn.shape} voxels cannot be compared")
    return [_one(found == label, drawn == label, spacing) for label in range(1, classes + 1)]


def mean_dice(found: np.ndarray, drawn: np.ndarray, classes: int) -> float:
    """Mean Dice of the classes that were drawn, without distances (which take most of the time); NaN without any."""
    dice = []
    for label in range(1, classes + 1):
        ours, theirs = found == label, drawn == label
        if theirs.any():
            dice.append(2 * np.count_nonzero(ours & theirs) / (np.count_nonzero(ours) + np.count_nonzero(theirs)))
    return float(np.mean(dice)) if dice else math.nan


def _one(found: np.ndarray, drawn: np.ndarray, spacing: Sequence[float]) -> ClassAgreement:
    in_found, in_drawn = bool(found.any()), bool(drawn.any())
    dice = surface = hausdorff = math.nan
    if in_drawn:
        ours, theirs = (torch.from_numpy(np.ascontiguousarray(m))[None, None] for m in _boxed(found, drawn))
        dice = float(compute_dice(ours.float(), theirs.float())) if in_found else 0.0
        if in_found:
            surface, hausdorff = _distances(ours, theirs, list(spacing))
    return ClassAgreement(in_drawn, in_found, dice, surface, hausdorff)


def _distances(ours: torch.Tensor, theirs: torch.Tensor, spacing: list[float]) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 calls a deprecated argument of its own
        return (
            float(
                compute_average_surface_distance(ours, theirs, include_background=True, symmetric=True, spacing=spacing)
            ),
            float(
                compute_hausdorff_distance(
                    ours, theirs, include_background=True, percentile=PERCENTILE, spacing=spacing
                )
            ),
        )


def _boxed(found: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both cut to the box that holds them and one voxel around it: nothing else matters, and images are large.

    At the image's border the voxel around is background, so that a region that is cut off there has a surface.
    """
    either = found | drawn
    box = []
    for axis in range(3):
        filled = np.flatnonzero(either.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    place = tuple(box)
    return np.pad(found[place], 1), np.pad(drawn[place], 1)


def summary(images: Sequence[Sequence[ClassAgreement]], names: Sequence[str]) -> dict[str, Any]:
    """Figures by class averaged over images, the mean over classes, and each image's own; NaN becomes None."""
    by_class = {}
    for index, name in enumerate(names):
        rows = [image[index] for image in images]
        by_class[name] = {
            "images": sum(row.drawn for row in rows),
            "missed": sum(row.drawn and not row.found for row in rows),
            "unexpected": sum(row.found and not row.drawn for row in rows),
            "dice": _mean([row.dice for row in rows]),
            "surface_mm": _mean([row.surface_mm for row in rows]),
            "hausdorff95_mm": _mean([row.hausdorff95_mm for row in rows]),
        }
    by_image = [
        {
            "dice": _mean([row.dice for row in image]),
            "surface_mm": _mean([row.surface_mm for row in image]),
            "hausdorff95_mm": _mean([row.hausdorff95_mm for row in image]),
        }
        for image in images
    ]
    means = {
        figure: _mean([math.nan if (value := one[figure]) is None else float(value) for one in by_class.values()])
        for figure in ("dice", "surface_mm", "hausdorff95_mm")
    }
    return {"images": len(images), **means, "classes": by_class, "by_image": by_image}


def _mean(values: Sequence[float]) -> float | None:
    """Over the values that are numbers; None where there are none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None
