"""Measures of one drawn region: pieces, holes, the image's edge, intensities, where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipelines.cases.quality.body_axes import FACES

Box = tuple[slice, slice, slice]
ALL_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class Region:
    """One (structure, level, side) of a mask, measured. Axes as in :mod:`body_axes`; counts in voxels.

    ``pieces`` are the sizes of its 26-connected components, largest first. ``at_faces`` has the voxels in
    each outermost layer of the image that it reaches, by letter. ``outside`` counts voxels in air.
    """

    voxels: int
    pieces: tuple[int, ...]
    hollow: int
    at_faces: dict[str, int]
    at_edge: int
    thickness: tuple[int, int, int]
    centre: np.ndarray
    mean: float
    low: float
    high: float
    outside: int


def boxes(labels: np.ndarray) -> list[Box | None]:
    """The bounding box of each label number, at index number - 1; None where a number is not there."""
    return [None if found is None else (found[0], found[1], found[2]) for found in ndimage.find_objects(labels)]


def joined(found: Sequence[Box]) -> Box:
    """The box around several."""
    ends = [slice(min(box[axis].start for box in found), max(box[axis].stop for box in found)) for axis in range(3)]
    return (ends[0], ends[1], ends[2])


def measure(image: np.ndarray, labels: np.ndarray, numbers: Sequence[int], box: Box, air: float) -> Region:
    """Measure the voxels of ``labels`` that carry one of ``numbers``, all of which lie in ``box``.

    ``image`` and ``labels`` are in body order; ``air`` is the intensity under which there is no tissue.
    """
    cut = labels[box]
    region = cut == numbers[0]
    for number in numbers[1:]:
        region |= cut == number
    values = image[box][region].astype(np.float64)
    count = int(values.size)
    named, n = ndimage.label(region, ALL_NEIGHBOURS)
    sizes = np.sort(np.bincount(named.ravel(), minlength=n + 1)[1:])[::-1]
    at_faces, at_edge = _faces(region, box, labels.shape)
    low, high = np.percentile(values, (5, 95))
    places = [np.flatnonzero(region.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    return Region(
        voxels=count,
        pieces=tuple(int(size) for size in sizes),
        hollow=_hollow(region),
        at_faces=at_faces,
        at_edge=at_edge,
        thickness=(int(places[0].size), int(places[1].size), int(places[2].size)),
        centre=np.array(
            [
                box[a].start + float(np.average(np.arange(region.shape[a]), weights=_profile(region, a)))
                for a in range(3)
            ]
        ),
        mean=float(values.mean()),
        low=float(low),
        high=float(high),
        outside=int(np.count_nonzero(values < air)),
    )


def _profile(region: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(np.count_nonzero(region, axis=tuple(other for other in range(3) if other != axis)))


def _faces(region: np.ndarray, box: Box, shape: tuple[int, ...]) -> tuple[dict[str, int], int]:
    """Voxels in each outermost layer of the image, by letter, and in any of them."""
    found: dict[str, int] = {}
    edge = np.zeros(region.shape, dtype=bool) if any(_touches(box, shape)) else None
    for axis in range(3):
        for letter, inside, layer in (
            (FACES[axis][0], box[axis].start == 0, 0),
            (FACES[axis][1], box[axis].stop == shape[axis], -1),
        ):
            if inside and edge is not None:
                place: list[slice | int] = [slice(None)] * 3
                place[axis] = layer
                found[letter] = int(np.count_nonzero(region[tuple(place)]))
                edge[tuple(place)] = True
    return found, 0 if edge is None else int(np.count_nonzero(edge & region))


def _touches(box: Box, shape: tuple[int, ...]) -> list[bool]:
    return [part.start == 0 or part.stop == n for part, n in zip(box, shape, strict=True)]


def _hollow(region: np.ndarray) -> int:
    """Voxels of closed holes: background that is not connected by faces to the outside."""
    outside, n = ndimage.label(np.pad(~region, 1, constant_values=True))
    return 0 if n < 2 else int(np.count_nonzero(outside > 0) - np.count_nonzero(outside == outside[0, 0, 0]))
