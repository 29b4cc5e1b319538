"""NumPy's pairwise summation, for use inside compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.compiled import kernel


@kernel
def _leaf(values: NDArray[Any], start: int, count: int) -> float:
    """Up to 128 values: eight running sums, added up in pairs; then what is left over."""
    if count < 8:
        total = 0.0
        for i in range(start, start + count):
            total += values[i]
        return total
    r0, r1, r2, r3 = values[start], values[start + 1], values[start + 2], values[start + 3]
    r4, r5, r6, r7 = values[start + 4], values[start + 5], values[start + 6], values[start + 7]
    whole = count - count % 8
    for i in range(start + 8, start + whole, 8):
        r0 += values[i]
        r1 += values[i + 1]
        r2 += values[i + 2]
        r3 += values[i + 3]
        r4 += values[i + 4]
        r5 += values[i + 5]
        r6 += values[i + 6]
        r7 += values[i + 7]
    total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(start + whole, start + count):
        total += values[i]
    return total


@kernel
def pairwise(values: NDArray[Any], start: int, count: int) -> float:
    """Sum of ``values[start:start + count]`` (contiguous) with the bits of ``numpy.sum``.

    Halves are summed apart and added. A loop with a stack of its own, because a compiled function that
    calls itself crashes when Numba loads it from its cache.
    """
    if count <= 128:
        return _leaf(values, start, count)
    starts, counts = np.empty(64, np.int64), np.empty(64, np.int64)
    done, left = np.zeros(64, np.int64), np.empty(64)
    top = 0
    starts[0], counts[0] = start, count
    result = 0.0
    while top >= 0:
        if counts[top] <= 128:
            result = _leaf(values, starts[top], counts[top])
            top -= 1
        elif done[top] == 2:
            result = left[top] + result
            top -= 1
        else:
            half = counts[top] // 2
            half -= half % 8
            if done[top] == 0:
                starts[top + 1], counts[top + 1] = starts[top], half
            else:
                left[top] = result
                starts[top + 1], counts[top + 1] = starts[top] + half, counts[top] - half
            done[top] += 1
            top += 1
            done[top] = 0
    return result


@kernel
def nanmean_rows(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """``numpy.nanmean(row)`` of each row: the mean over directions that PyRadiomics reports."""
    rows, columns = table.shape
    means = np.empty(rows)
    line = np.empty(columns)
    for row in range(rows):
        seen = 0
        for column in range(columns):
            value = table[row, column]
            if np.isnan(value):
                line[column] = 0.0
            else:
                line[column] = value
                seen += 1
        means[row] = pairwise(line, 0, columns) / seen if seen else np.nan
    return means
