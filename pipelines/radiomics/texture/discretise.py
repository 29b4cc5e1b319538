"""Grey levels: intensities of the ROI put into bins with PyRadiomics' edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.compiled import kernel


def bin_edges(
    low: Any, high: Any, dtype: np.dtype[Any], bin_width: float, bin_count: int | None
) -> NDArray[np.float64]:
    """PyRadiomics' edges for intensities between ``low`` and ``high``, computed in the image's type.

    They depend on the extremes and the type only, so they are asked for with the two.
    """
    from radiomics import imageoperations

    settings = {"binWidth": bin_width} if bin_count is None else {"binCount": bin_count}
    return np.asarray(imageoperations.getBinEdges(np.array([low, high], dtype=dtype), **settings), dtype=np.float64)


@kernel
def grey_levels(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int32]:
    """``numpy.digitize(values, edges)``: a guess from the bin's width, then put right by comparison.

    ``edges`` ascend and there are two or more. Values are finite.
    """
    count = len(edges)
    first = edges[0]
    scale = (count - 1) / (edges[count - 1] - first)
    levels = np.empty(len(values), np.int32)
    for k in range(len(values)):
        value = values[k]
        guess = (value - first) * scale
        level = 0 if guess < 0 else count if guess >= count else int(guess) + 1
        while level > 0 and value < edges[level - 1]:
            level -= 1
        while level < count and value >= edges[level]:
            level += 1
        levels[k] = level
    return levels
