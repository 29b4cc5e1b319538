"""An image's voxels in the order of the body, whatever way they are stored.

Arrays here run (foot to head, front to back, right to left), so that axis 0 counts towards S, axis 1
towards P and axis 2 towards L (LPS, as DICOM and ITK have it). Nothing is resampled: each array axis is
the body axis it lies nearest to, which is right up to a tilt of 45 degrees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

Value = TypeVar("Value")

AXES = ("head-foot", "front-back", "left-right")
PLANES = ("axial", "coronal", "sagittal")
"""The plane whose slices are stacked along axis 0, 1, 2."""
FACES = (("I", "S"), ("A", "P"), ("R", "L"))
"""First and last layer along each axis."""


@dataclass(frozen=True)
class BodyAxes:
    """How a stored array (z, y, x) becomes one in body order, and what a step along each axis is in mm."""

    order: tuple[int, int, int]
    """Array axis of the stored array for each body axis."""
    flipped: tuple[bool, bool, bool]
    spacing: tuple[float, float, float]
    size: tuple[int, int, int]
    tilt_deg: float
    """Largest angle between an array axis and its body axis."""

    @classmethod
    def of(cls, image: sitk.Image) -> BodyAxes:
        """The nearest body axis of each array axis."""
        direction = np.array(image.GetDirection()).reshape(3, 3)  # column i: where index axis i points, LPS
        best = max(permutations(range(3)), key=lambda p: sum(abs(direction[b, i]) for b, i in enumerate(p)))
        index_axis = (best[2], best[1], best[0])  # of S, P, L
        signs = [direction[body, axis] for body, axis in zip((2, 1, 0), index_axis, strict=True)]
        size, spacing = image.GetSize(), image.GetSpacing()
        nearest = min(abs(sign) for sign in signs)
        return cls(
            order=_three(2 - axis for axis in index_axis),
            flipped=_three(bool(sign < 0) for sign in signs),
            spacing=_three(float(spacing[axis]) for axis in index_axis),
            size=_three(int(size[axis]) for axis in index_axis),
            tilt_deg=float(np.degrees(np.arccos(min(nearest, 1.0)))),
        )

    def view(self, array: np.ndarray) -> np.ndarray:
        """The stored array (z, y, x) as a view in body order."""
        turned = np.transpose(array, self.order)
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flipped)]

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Height, depth and width of the image, from the outer faces of its voxels."""
        return _three(n * step for n, step in zip(self.size, self.spacing, strict=True))

    def stack_axis(self, ratio: float) -> int | None:
        """The axis the slices are stacked along: its step is ``ratio`` times the others'; None for a volume."""
        longest = int(np.argmax(self.spacing))
        others = max(step for axis, step in enumerate(self.spacing) if axis != longest)
        return longest if self.spacing[longest] >= ratio * others else None

    def world(self, image: sitk.Image, place: np.ndarray) -> np.ndarray:
        """World coordinates (LPS, mm) of a place in body order, in voxels."""
        index = np.empty(3)
        for axis, (stored, flip) in enumerate(zip(self.order, self.flipped, strict=True)):
            index[2 - stored] = self.size[axis] - 1 - place[axis] if flip else place[axis]
        return np.array(image.TransformContinuousIndexToPhysicalPoint(index.tolist()))


def _three(values: Iterable[Value]) -> tuple[Value, Value, Value]:
    first, second, third = values
    return (first, second, third)
