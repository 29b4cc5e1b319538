"""Zones and dependences (GLSZM, GLDM): the features they share, of a matrix of level by size.

Both count things of a grey level i and a size j (a zone's voxels; like neighbours plus one) and weight
them alike; only the names differ. Formulas of PyRadiomics' classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EPS = np.spacing(1)


def glszm(zones: NDArray[np.int64], greys: NDArray[np.int64]) -> dict[str, float]:
    """Grey level size zone features. ``zones`` [Z, 2]: index into ``greys``, size in voxels."""
    largest = int(zones[:, 1].max())
    amounts = np.bincount(zones[:, 1], minlength=largest + 1)[1:]
    present = np.flatnonzero(amounts)
    column = np.zeros(largest + 1, np.int64)
    column[present + 1] = np.arange(len(present))
    table = np.bincount(column[zones[:, 1]] * len(greys) + zones[:, 0], minlength=len(present) * len(greys))
    f = _weighted(table.reshape(len(present), len(greys)), greys, present + 1, largest - len(present))
    total = f["total"]
    voxels = float((amounts[present] * (present + 1)).sum())
    return {
        "GrayLevelNonUniformity": f["level_nonuniformity"],
        "GrayLevelNonUniformityNormalized": f["level_nonuniformity_normalized"],
        "GrayLevelVariance": f["level_variance"],
        "HighGrayLevelZoneEmphasis": f["high"],
        "LargeAreaEmphasis": f["large"],
        "LargeAreaHighGrayLevelEmphasis": f["large_high"],
        "LargeAreaLowGrayLevelEmphasis": f["large_low"],
        "LowGrayLevelZoneEmphasis": f["low"],
        "SizeZoneNonUniformity": f["size_nonuniformity"],
        "SizeZoneNonUniformityNormalized": f["size_nonuniformity_normalized"],
        "SmallAreaEmphasis": f["small"],
        "SmallAreaHighGrayLevelEmphasis": f["small_high"],
        "SmallAreaLowGrayLevelEmphasis": f["small_low"],
        "ZoneEntropy": f["entropy"],
        "ZonePercentage": total / voxels,
        "ZoneVariance": f["size_variance"],
    }


def gldm(dependences: NDArray[np.int64], greys: NDArray[np.int64], columns: int) -> dict[str, float]:
    """Grey level dependence features.

    ``dependences`` [27, G]: like neighbours, level. ``columns``: width of PyRadiomics' matrix, which only
    decides the memory order it ends in.
    """
    present = np.flatnonzero(dependences.any(axis=1))
    f = _weighted(dependences[present], greys, present + 1, columns - len(present))
    return {
        "DependenceEntropy": f["entropy"],
        "DependenceNonUniformity": f["size_nonuniformity"],
        "DependenceNonUniformityNormalized": f["size_nonuniformity_normalized"],
        "DependenceVariance": f["size_variance"],
        "GrayLevelNonUniformity": f["level_nonuniformity"],
        "GrayLevelVariance": f["level_variance"],
        "HighGrayLevelEmphasis": f["high"],
        "LargeDependenceEmphasis": f["large"],
        "LargeDependenceHighGrayLevelEmphasis": f["large_high"],
        "LargeDependenceLowGrayLevelEmphasis": f["large_low"],
        "LowGrayLevelEmphasis": f["low"],
        "SmallDependenceEmphasis": f["small"],
        "SmallDependenceHighGrayLevelEmphasis": f["small_high"],
        "SmallDependenceLowGrayLevelEmphasis": f["small_low"],
    }


def _weighted(
    table: NDArray[np.int64], greys: NDArray[np.int64], sizes: NDArray[np.int64], removed: int
) -> dict[str, float]:
    """Weighted sums over ``table`` [size, level].

    ``removed`` empty sizes were deleted from PyRadiomics' [level, size] array: numpy.delete leaves a copy
    in the old order when it removes exactly one column, otherwise sizes end outermost in memory. The
    order decides the last bit of the sums over both axes, so it is made the same here.
    """
    by_size = table.astype(np.float64)
    joint = (np.ascontiguousarray(by_size.T) if removed == 1 else by_size.T)[None]
    i = greys.astype(np.float64)
    j = sizes.astype(np.float64)
    ii, jj = i**2, j**2
    ps, pg = by_size.sum(axis=1), by_size.sum(axis=0)
    total = float(ps.sum())
    level_share, size_share = pg / total, ps / total
    mean_level, mean_size = np.sum(level_share * i), np.sum(size_share * j)
    weight = ii[None, :, None] * jj[None, None, :]
    weight_jj = jj[None, None, :] * ii[None, :, None]
    share = joint / total
    axes = (1, 2)
    return {
        "total": total,
        "small": float(np.sum(ps / jj) / total),
        "large": float(np.sum(ps * jj) / total),
        "level_nonuniformity": float(np.sum(pg**2) / total),
        "level_nonuniformity_normalized": float(np.sum(pg**2) / total**2),
        "size_nonuniformity": float(np.sum(ps**2) / total),
        "size_nonuniformity_normalized": float(np.sum(ps**2) / total**2),
        "level_variance": float(np.sum(level_share * (i - mean_level) ** 2)),
        "size_variance": float(np.sum(size_share * (j - mean_size) ** 2)),
        "entropy": float(-np.sum(share * np.log2(share + EPS), axes)[0]),
        "low": float(np.sum(pg / ii) / total),
        "high": float(np.sum(pg * ii) / total),
        "small_low": float(np.sum(joint / weight, axes)[0] / total),
        "small_high": float(np.sum(joint * ii[None, :, None] / jj[None, None, :], axes)[0] / total),
        "large_low": float(np.sum(joint * jj[None, None, :] / ii[None, :, None], axes)[0] / total),
        "large_high": float(np.sum(joint * weight_jj, axes)[0] / total),
    }
