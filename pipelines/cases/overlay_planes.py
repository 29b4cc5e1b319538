"""Which slices of a series a reader is shown, cut and windowed for the screen.

A volume gives the sagittal, coronal and axial slice through the drawn regions; a stack of slices or a thin slab
gives several of its own slices. Rows and columns run as radiologists have them: the patient's right on the
left, front on the left in sagittal slices, head at the top.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_store.vocabulary import STRUCTURES, StructureKind
from pipelines.cases.quality.body_axes import PLANES, BodyAxes
from pipelines.cases.quality.pieces import Box

MARGIN_MM = 40.0
"""Shown around the drawn regions."""
MOST_SLICES = (6, 4, 4)
"""Axial, coronal, sagittal: what fits on a screen."""
SLAB_SLICES = 40
SLAB_MM = 100.0
STACK_RATIO = 1.3

BONE_WINDOW = (-300.0, 900.0)
"""Hounsfield units; wide enough to see muscles beside bone."""
SOFT_WINDOW = (-160.0, 240.0)

LETTERS = (("A", "P", "R", "L"), ("S", "I", "R", "L"), ("S", "I", "A", "P"))
"""Top, bottom, left, right of an axial, coronal, sagittal slice."""


@dataclass(frozen=True)
class Slice:
    """One slice, ready to draw: grey values of 8 bits, region numbers, mm a pixel (down, across)."""

    grey: np.ndarray
    regions: np.ndarray
    pixel_mm: tuple[float, float]
    letters: tuple[str, str, str, str]
    caption: str

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        return (self.grey.shape[0] * self.pixel_mm[0], self.grey.shape[1] * self.pixel_mm[1])


def cut(
    image: np.ndarray, regions: np.ndarray, axes: BodyAxes, window: tuple[float, float], bones: tuple[int, ...]
) -> list[Slice]:
    """The slices to show of ``image`` with ``regions`` (numbers, 0: none), both in body order.

    ``bones`` are the numbers of bones and discs, through the middle of which a volume is cut.
    """
    box = _around(regions, axes)
    image, regions = image[box], regions[box]
    first = tuple(part.start for part in box)
    places = [(axis, n) for axis, shown in _places(regions, axes, bones).items() for n in shown]
    places = places[::-1] if places and places[0][0] == 0 else places  # axial slices from head to foot
    return [_slice(image, regions, axes, axis, n, n + first[axis], window) for axis, n in places]


def grey_window(image: np.ndarray, is_ct: bool, structures: set[str]) -> tuple[float, float]:
    """What is black and what white: a CT's window by what is drawn, the 1st to 99.5th percentile of MR."""
    if is_ct:
        muscles = structures and all(STRUCTURES[name] is StructureKind.MUSCLE for name in structures)
        return SOFT_WINDOW if muscles else BONE_WINDOW
    step = max(1, image.size // 500_000)
    low, high = np.percentile(
        image.reshape(-1)[::step] if image.flags.c_contiguous else image.ravel()[::step], (1, 99.5)
    )
    return float(low), float(max(high, low + 1e-6))


def _around(regions: np.ndarray, axes: BodyAxes) -> Box:
    """The drawn regions with a margin; the whole image where nothing is drawn."""
    ends = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        there = np.flatnonzero(regions.any(axis=others))
        margin = round(MARGIN_MM / axes.spacing[axis])
        low, high = (there[0] - margin, there[-1] + margin + 1) if there.size else (0, regions.shape[axis])
        ends.append(slice(max(0, int(low)), min(regions.shape[axis], int(high))))
    return (ends[0], ends[1], ends[2])


def _places(regions: np.ndarray, axes: BodyAxes, bones: tuple[int, ...]) -> dict[int, list[int]]:
    """Which slices along which axes."""
    stack = _slab_axis(axes)
    if stack is not None:
        area = np.count_nonzero(regions, axis=tuple(other for other in range(3) if other != stack))
        there = np.flatnonzero(area > 0.3 * area.max()) if area.any() else np.arange(area.size)  # not the caps
        low, high = int(there[0]), int(there[-1])
        count = min(MOST_SLICES[stack], high - low + 1)
        return {stack: [low + int((2 * n + 1) * (high - low + 1) / (2 * count)) for n in range(count)]}
    drawn = np.isin(regions, bones) if bones else regions > 0
    places: dict[int, list[int]] = {}
    for axis in (2, 1, 0):
        area = np.count_nonzero(drawn, axis=tuple(other for other in range(3) if other != axis))
        if not area.any():
            places[axis] = [regions.shape[axis] // 2]
        elif axis == 2 and bones:  # through the canal's middle, where most levels show
            places[axis] = [int(np.searchsorted(np.cumsum(area), area.sum() / 2))]
        elif axis == 0:  # where most regions show
            places[axis] = [_richest(regions)]
        else:
            places[axis] = [int(np.argmax(area))]
    return places


def _slab_axis(axes: BodyAxes) -> int | None:
    """The axis of a stack or thin slab, of which its own slices are shown."""
    stack = axes.stack_axis(STACK_RATIO)
    thin = int(np.argmin(axes.extent_mm))
    others = min(mm for axis, mm in enumerate(axes.extent_mm) if axis != thin)
    if stack is not None and axes.size[stack] <= SLAB_SLICES:
        return stack
    return thin if axes.extent_mm[thin] < min(SLAB_MM, 0.5 * others) and axes.size[thin] <= SLAB_SLICES else None


def _richest(regions: np.ndarray) -> int:
    """The axial slice that shows most regions, and of those the one with the largest area."""
    numbers = [np.count_nonzero(np.bincount(plane.ravel())[1:]) for plane in regions]
    areas = np.count_nonzero(regions, axis=(1, 2))
    return max(range(len(numbers)), key=lambda n: (numbers[n], int(areas[n])))


def _slice(
    image: np.ndarray,
    regions: np.ndarray,
    axes: BodyAxes,
    axis: int,
    n: int,
    of_image: int,
    window: tuple[float, float],
) -> Slice:
    grey, drawn = np.take(image, n, axis=axis), np.take(regions, n, axis=axis)
    if axis != 0:  # the head goes to the top
        grey, drawn = grey[::-1], drawn[::-1]
    low, high = window
    scaled = np.clip((grey.astype(np.float32) - low) * (255.0 / (high - low)), 0.0, 255.0)
    down, across = (axes.spacing[other] for other in range(3) if other != axis)
    # counted as a reader scrolls: from head to foot, front to back, right to left
    number = axes.size[0] - of_image if axis == 0 else of_image + 1
    caption = f"{PLANES[axis]} {number}/{axes.size[axis]}"
    return Slice(scaled.astype(np.uint8), np.ascontiguousarray(drawn), (down, across), LETTERS[axis], caption)
