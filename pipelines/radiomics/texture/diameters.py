"""Largest distances between mesh vertices, in space and within each kind of plane.

The farthest pair lies on the hull, so vertices that are no end of their line along an axis, and then those
too far inside to reach the best distance found, are left out before pairs are compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.compiled import kernel

BLOCK = 16
"""Candidates are compared block by block; two blocks whose boxes are too near are skipped together."""


def diameters(vertices: NDArray[np.int64], steps: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Largest distances within a slice (same z), a column plane (same y), a row plane (same x), anywhere.

    ``vertices`` [V, 3]: twice the index along z, y, x (a mesh vertex lies on or half way between voxels).
    ``steps``: mm a voxel along z, y, x. Distances in mm.
    """
    if len(vertices) == 0:
        return 0.0, 0.0, 0.0, 0.0
    planes = [_planar(vertices[np.argsort(vertices[:, axis], kind="stable")], steps, axis) for axis in range(3)]
    ends = vertices[_line_ends(vertices, 0) & _line_ends(vertices, 1) & _line_ends(vertices, 2)]
    return (*(float(np.sqrt(best)) for best in planes), float(np.sqrt(_spatial(ends, steps))))  # type: ignore[return-value]


def _line_ends(vertices: NDArray[np.int64], axis: int) -> NDArray[np.bool_]:
    """Which vertices are the first or last on their line along the axis."""
    low = vertices.min(axis=0)
    span = vertices.max(axis=0) - low + 1
    one, other = (a for a in range(3) if a != axis)
    line = (vertices[:, one] - low[one]) * span[other] + (vertices[:, other] - low[other])
    first = np.full(int(span[one] * span[other]), np.iinfo(np.int64).max)
    last = np.full(len(first), np.iinfo(np.int64).min)
    along = vertices[:, axis]
    _extremes(line, along, first, last)
    ends: NDArray[np.bool_] = (along == first[line]) | (along == last[line])
    return ends


@kernel
def _extremes(
    line: NDArray[np.int64], along: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> None:
    for k in range(len(line)):
        first[line[k]] = min(first[line[k]], along[k])
        last[line[k]] = max(last[line[k]], along[k])


@kernel
def _squared(a: NDArray[np.int64], b: NDArray[np.int64], steps: NDArray[np.float64]) -> float:
    """Squared distance, each coordinate scaled before the difference as PyRadiomics does."""
    z = 0.5 * a[0] * steps[0] - 0.5 * b[0] * steps[0]
    y = 0.5 * a[1] * steps[1] - 0.5 * b[1] * steps[1]
    x = 0.5 * a[2] * steps[2] - 0.5 * b[2] * steps[2]
    return z * z + y * y + x * x


@kernel
def _spatial(points: NDArray[np.int64], steps: NDArray[np.float64]) -> float:
    """Largest squared distance of any pair."""
    count = len(points)
    low, high = points[0].copy(), points[0].copy()
    for k in range(count):
        for axis in range(3):
            low[axis] = min(low[axis], points[k, axis])
            high[axis] = max(high[axis], points[k, axis])
    best = 0.0
    far = 0
    for _ in range(4):  # from a far point to the farthest from it: a good first guess
        base = far
        for k in range(count):
            distance = _squared(points[base], points[k], steps)
            if distance > best:
                best, far = distance, k
    kept = np.empty(count, np.int64)
    n = 0
    for k in range(count):
        reach = 0.0
        for axis in range(3):
            side = max(points[k, axis] - low[axis], high[axis] - points[k, axis]) * 0.5 * steps[axis]
            reach += side * side
        if reach * (1 + 1e-12) >= best:
            kept[n] = k
            n += 1
    blocks = (n + BLOCK - 1) // BLOCK
    lows, highs = np.empty((blocks, 3), np.int64), np.empty((blocks, 3), np.int64)
    for block in range(blocks):
        lows[block] = points[kept[block * BLOCK]]
        highs[block] = lows[block]
        for k in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            for axis in range(3):
                lows[block, axis] = min(lows[block, axis], points[kept[k], axis])
                highs[block, axis] = max(highs[block, axis], points[kept[k], axis])
    for one in range(blocks):
        for other in range(one + 1):
            reach = 0.0
            for axis in range(3):
                side = max(highs[one, axis] - lows[other, axis], highs[other, axis] - lows[one, axis])
                reach += (side * 0.5 * steps[axis]) ** 2
            if reach * (1 + 1e-12) < best:
                continue
            for a in range(one * BLOCK, min(n, (one + 1) * BLOCK)):
                for b in range(other * BLOCK, min(n, (other + 1) * BLOCK)):
                    best = max(best, _squared(points[kept[a]], points[kept[b]], steps))
    return best


@kernel
def _planar(points: NDArray[np.int64], steps: NDArray[np.float64], axis: int) -> float:
    """Largest squared distance of two points with the same coordinate along ``axis`` (points sorted by it)."""
    count = len(points)
    one, other = (1 if axis == 0 else 0), (1 if axis == 2 else 2)
    starts = np.empty(count + 1, np.int64)
    planes = 0
    for k in range(count):
        if k == 0 or points[k, axis] != points[k - 1, axis]:
            starts[planes] = k
            planes += 1
    starts[planes] = count
    reach = np.empty(planes)
    for plane in range(planes):
        low_one, high_one = points[starts[plane], one], points[starts[plane], one]
        low_other, high_other = points[starts[plane], other], points[starts[plane], other]
        for k in range(starts[plane], starts[plane + 1]):
            low_one, high_one = min(low_one, points[k, one]), max(high_one, points[k, one])
            low_other, high_other = min(low_other, points[k, other]), max(high_other, points[k, other])
        across = (high_one - low_one) * 0.5 * steps[one]
        along = (high_other - low_other) * 0.5 * steps[other]
        reach[plane] = across * across + along * along
    best = 0.0
    ends = np.empty(count, np.int64)
    for plane in np.argsort(-reach):
        if reach[plane] * (1 + 1e-12) < best:
            break
        begin, stop = starts[plane], starts[plane + 1]
        low_one, high_one = points[begin, one], points[begin, one]
        for k in range(begin, stop):
            low_one, high_one = min(low_one, points[k, one]), max(high_one, points[k, one])
        first = np.full(high_one - low_one + 1, -1, np.int64)
        last = np.full(high_one - low_one + 1, -1, np.int64)
        for k in range(begin, stop):
            line = points[k, one] - low_one
            if first[line] < 0 or points[k, other] < points[first[line], other]:
                first[line] = k
            if last[line] < 0 or points[k, other] > points[last[line], other]:
                last[line] = k
        n = 0
        for line in range(len(first)):
            if first[line] >= 0:
                ends[n] = first[line]
                n += 1
                if last[line] != first[line]:
                    ends[n] = last[line]
                    n += 1
        for a in range(n):
            for b in range(a):
                best = max(best, _squared(points[ends[a]], points[ends[b]], steps))
    return best
