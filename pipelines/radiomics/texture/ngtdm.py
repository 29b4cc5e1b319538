"""Neighbouring grey tone difference features. Formulas of PyRadiomics' class, sums in its order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.compiled import kernel
from pipelines.radiomics.texture.summation import pairwise


def ngtdm(greys: NDArray[np.int64], voxels: NDArray[np.int64], differences: NDArray[np.float64]) -> dict[str, float]:
    """Features of G grey levels: how many voxels each has, and their summed difference from neighbours."""
    i = greys.astype(np.float64)
    total = float(voxels.sum())
    p = voxels / total
    ps = p * differences
    ps_sum, s_sum = float(np.sum(ps)), float(np.sum(differences))
    levels = len(greys)
    pairs = levels * (levels - 1)
    contrast, busyness, complexity, strength = _pair_sums(i, p, ps)
    contrast = contrast * s_sum / total
    return {
        "Busyness": ps_sum / busyness if busyness != 0 else 0.0,
        "Coarseness": 1 / ps_sum if ps_sum != 0 else 1e6,
        "Complexity": complexity / total,
        "Contrast": contrast / pairs if pairs else 0.0,
        "Strength": strength / s_sum if s_sum != 0 else 0.0,
    }


@kernel
def _pair_sums(
    i: NDArray[np.float64], p: NDArray[np.float64], ps: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Sums over all pairs of levels: of contrast, busyness' divisor, complexity and strength."""
    n = len(i)
    contrast, busyness = np.empty(n * n), np.empty(n * n)
    complexity, strength = np.empty(n * n), np.empty(n * n)
    for a in range(n):
        for b in range(n):
            k = a * n + b
            step = i[a] - i[b]
            both = p[a] + p[b]
            contrast[k] = p[a] * p[b] * (step * step)
            busyness[k] = abs(i[a] * p[a] - i[b] * p[b])
            complexity[k] = abs(step) * (ps[a] + ps[b]) / both
            strength[k] = both * (step * step)
    size = n * n
    return (
        pairwise(contrast, 0, size),
        pairwise(busyness, 0, size),
        pairwise(complexity, 0, size),
        pairwise(strength, 0, size),
    )
