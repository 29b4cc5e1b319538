"""Counts behind the five texture matrices: how the ROI's grey levels lie beside each other.

Co-occurrences and runs along 13 directions, zones of one level, like neighbours among the 26, and the
difference from the neighbours' mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.compiled import kernel

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
    def plane(self) -> int:
        """Flat offset of the voxel one slice on; 0 where the box is one slice thick."""
        return self.shape[1] * self.shape[2] if self.shape[0] > 3 else 0

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
    # index 0 stands for outside throughout, so that the inner loops need no branch
    weights = np.concatenate(([0], greys))
    cooccurrences, dependences, differences = _neighbours(volume, grid.positions, grid.steps, weights)
    runs = _runs(volume, grid.positions, grid.steps, len(greys), grid.longest)
    zones = _zones(volume, grid.positions, grid.steps, grid.plane)
    return Counts(
        greys, cooccurrences[:, 1:, 1:], runs[:, 1:, 1:], zones, dependences[:, 1:], differences[1:], voxels[greys]
    )


@kernel
def _neighbours(
    volume: NDArray[np.int32], positions: NDArray[np.int64], steps: NDArray[np.int64], weights: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]]:
    """Co-occurrences, dependences and summed differences; index 0 of a level is outside."""
    directions, levels = len(steps), len(weights)
    cooccurrences = np.zeros((directions, levels, levels), np.int32)
    dependences = np.zeros((27, levels), np.int64)
    differences = np.zeros(levels)
    for k in range(len(positions)):
        here = positions[k]
        level = volume[here]
        alike, around, total = 0, 0, 0
        for d in range(directions):
            ahead, behind = volume[here + steps[d]], volume[here - steps[d]]
            cooccurrences[d, level, ahead] += 1
            around += (ahead != 0) + (behind != 0)
            alike += (ahead == level) + (behind == level)
            total += weights[ahead] + weights[behind]
        dependences[alike, level] += 1
        if around > 0:
            differences[level] += abs(weights[level] - total / around)
    return cooccurrences, dependences, differences


@kernel
def _runs(
    volume: NDArray[np.int32], positions: NDArray[np.int64], steps: NDArray[np.int64], levels: int, longest: int
) -> NDArray[np.int32]:
    """How many runs of each length end in each direction [D, longest + 1, levels + 1]."""
    directions = len(steps)
    runs = np.zeros((directions, longest + 1, levels + 1), np.int32)
    lengths = np.zeros(len(volume), np.int32)
    for d in range(directions):
        step = steps[d]
        for k in range(len(positions)):
            here = positions[k]
            level = volume[here]
            length = lengths[here - step] * (volume[here - step] == level) + 1
            lengths[here] = length
            runs[d, length * (volume[here + step] != level), level] += 1
    return runs


@kernel
def _root(parents: NDArray[np.int32], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@kernel
def _zones(
    volume: NDArray[np.int32], positions: NDArray[np.int64], steps: NDArray[np.int64], plane: int
) -> NDArray[np.int64]:
    """Level's index and size of each zone of touching voxels of one level (union-find)."""
    parents = np.empty(len(volume), np.int32)
    sizes = np.zeros(len(volume), np.int32)
    for k in range(len(positions)):
        here = positions[k]
        level = volume[here]
        if plane != 0 and volume[here - plane] == level:
            # every other neighbour that came before touches this one too, and is in its zone already
            parents[here] = parents[here - plane]
            continue
        root = here
        parents[here] = here
        for d in range(len(steps)):
            behind = here - steps[d]
            if volume[behind] == level and parents[behind] != root:
                other = _root(parents, behind)
                if other < root:
                    parents[root] = other
                    root = other
                elif other > root:
                    parents[other] = root
        parents[here] = root
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
