"""One walk over the ROI that fills all five texture matrices' counts.

Each voxel is compared with its 26 neighbours once: co-occurrences and runs along 13 directions, same-level
zones (union-find), number of like neighbours, and the difference from the neighbours' mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

DIRECTIONS = tuple((z, y, x) for z in (1, 0, -1) for y in (1, 0, -1) for x in (1, 0, -1) if (z, y, x) > (0, 0, 0))
"""PyRadiomics' 13 directions at distance 1, in its order, as steps along z, y, x."""


@dataclass(frozen=True)
class Grid:
    """The ROI inside its bounding box with a border of one empty voxel.

    ``positions``: flat index of each ROI voxel, ascending. ``steps``: flat offset of each direction that
    fits the box (a box one voxel thick has no direction across it).
    """

    shape: tuple[int, int, int]
    positions: NDArray[np.int64]
    steps: NDArray[np.int64]

    @property
    def longest(self) -> int:
        """Longest run that could be: the box's longest side, in voxels."""
        return max(self.shape) - 2


def make_grid(mask: NDArray[np.bool_]) -> Grid:
    """Grid of an ROI in its bounding box (z, y, x)."""
    depth, height, width = (side + 2 for side in mask.shape)
    z, y, x = np.nonzero(mask)
    positions = ((z + 1) * height + (y + 1)) * width + (x + 1)
    fits = [d for d in DIRECTIONS if all(step == 0 or side > 1 for step, side in zip(d, mask.shape, strict=True))]
    steps = np.array([(dz * height + dy) * width + dx for dz, dy, dx in fits], dtype=np.int64)
    return Grid((depth, height, width), positions, steps)


@dataclass(frozen=True)
class Counts:
    """Texture counts. G grey levels present, D directions, N voxels.

    ``greys`` [G]: the levels. ``cooccurrences`` [D, G, G]: one-way. ``runs`` [D, R, G]: run length (less
    one), level. ``zones`` [Z, 2]: level's index, size. ``dependences`` [27, G]: like neighbours, level.
    ``differences`` [G]: summed distance from the neighbours' mean. ``voxels`` [G]. ``levels`` [N]: index.
    """

    greys: NDArray[np.int64]
    cooccurrences: NDArray[np.int32]
    runs: NDArray[np.int32]
    zones: NDArray[np.int64]
    dependences: NDArray[np.int64]
    differences: NDArray[np.float64]
    voxels: NDArray[np.int64]


def count(levels: NDArray[np.int32], grid: Grid) -> Counts:
    """Counts of an ROI whose voxels have the given grey levels (1, 2, …), in raster order."""
    voxels = np.bincount(levels)
    greys = np.flatnonzero(voxels)
    compact = np.zeros(len(voxels), np.int32)
    compact[greys] = np.arange(1, len(greys) + 1, dtype=np.int32)
    volume = np.zeros(int(np.prod(grid.shape)), np.int32)
    volume[grid.positions] = compact[levels]
    directions, present = len(grid.steps), len(greys)
    cooccurrences = np.zeros((directions, present, present), np.int32)
    runs = np.zeros((directions, grid.longest, present), np.int32)
    dependences = np.zeros((27, present), np.int64)
    differences = np.zeros(present)
    zones = _walk(volume, grid.positions, grid.steps, greys, cooccurrences, runs, dependences, differences)
    return Counts(greys, cooccurrences, runs, zones, dependences, differences, voxels[greys])


@njit(cache=True)
def _root(parents: NDArray[np.int32], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(cache=True)
def _walk(
    volume: NDArray[np.int32],
    positions: NDArray[np.int64],
    steps: NDArray[np.int64],
    greys: NDArray[np.int64],
    cooccurrences: NDArray[np.int32],
    runs: NDArray[np.int32],
    dependences: NDArray[np.int64],
    differences: NDArray[np.float64],
) -> NDArray[np.int64]:
    parents = np.empty(len(volume), np.int32)
    sizes = np.zeros(len(volume), np.int32)
    for k in range(len(positions)):
        here = positions[k]
        level = volume[here]
        parents[here] = here
        root = here
        alike, around, total = 0, 0, 0
        for d in range(len(steps)):
            step = steps[d]
            ahead, behind = volume[here + step], volume[here - step]
            if behind != 0:
                around += 1
                total += greys[behind - 1]
                if behind == level:
                    alike += 1
                    other = _root(parents, here - step)
                    if other < root:
                        parents[root] = other
                        root = other
                    elif other > root:
                        parents[other] = root
            if ahead != 0:
                around += 1
                total += greys[ahead - 1]
                cooccurrences[d, level - 1, ahead - 1] += 1
            if ahead == level:
                alike += 1
            else:
                length = 0
                back = here - step
                while volume[back] == level:
                    length += 1
                    back -= step
                runs[d, length, level - 1] += 1
        dependences[alike, level - 1] += 1
        if around > 0:
            difference = greys[level - 1] - total / around
            differences[level - 1] += abs(difference)
    found = 0
    for k in range(len(positions)):
        root = _root(parents, positions[k])
        if sizes[root] == 0:
            found += 1
        sizes[root] += 1
    zones = np.empty((found, 2), np.int64)
    n = 0
    for k in range(len(positions)):
        here = positions[k]
        if sizes[here] > 0:
            zones[n, 0] = volume[here] - 1
            zones[n, 1] = sizes[here]
            n += 1
    return zones
