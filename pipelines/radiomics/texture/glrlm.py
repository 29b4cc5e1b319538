"""Grey level run length features: the mean over directions. Formulas of PyRadiomics' class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.feature_names import GLRLM
from pipelines.radiomics.texture.compiled import kernel
from pipelines.radiomics.texture.summation import nanmean_rows

EPS = np.spacing(1)


def glrlm(runs: NDArray[np.int32], greys: NDArray[np.int64]) -> dict[str, float]:
    """Features of ``runs`` [D, R, G] (direction, run length less one, index into ``greys``).

    Two or more directions, each with a run of two voxels or more somewhere (PyRadiomics drops empty ones,
    which changes its memory order; such ROIs are left to it).
    """
    lengths = np.flatnonzero(runs.any(axis=(0, 2)))
    table = np.ascontiguousarray(runs[:, lengths])
    # numpy.delete keeps levels outermost when it removes exactly one column, else lengths come first
    levels_first = runs.shape[1] - len(lengths) == 1
    totals = table.sum(axis=(1, 2)).astype(np.float64)
    share = table / totals[:, None, None]
    rows = _sums(
        table, share, np.log2(share + EPS), greys.astype(np.float64), (lengths + 1).astype(np.float64), levels_first
    )
    return dict(zip(GLRLM, nanmean_rows(rows).tolist(), strict=True))


@kernel
def _sums(
    table: NDArray[np.int32],
    share: NDArray[np.float64],
    log_share: NDArray[np.float64],
    i: NDArray[np.float64],
    j: NDArray[np.float64],
    levels_first: bool,
) -> NDArray[np.float64]:
    """One row a feature (in the order of GLRLM's names), one column a direction."""
    directions, lengths, levels = table.shape
    out = np.empty((16, directions))
    for d in range(directions):
        pg, pr = np.zeros(levels), np.zeros(lengths)
        total = 0.0
        for r in range(lengths):
            for g in range(levels):
                pg[g] += table[d, r, g]
                pr[r] += table[d, r, g]
                total += table[d, r, g]
        non_uniform, mean_level, low, high = 0.0, 0.0, 0.0, 0.0
        for g in range(levels):
            non_uniform += pg[g] * pg[g]
            mean_level += (pg[g] / total) * i[g]
            low += pg[g] / (i[g] * i[g])
            high += pg[g] * (i[g] * i[g])
        level_variance = 0.0
        for g in range(levels):
            level_variance += (pg[g] / total) * ((i[g] - mean_level) * (i[g] - mean_level))
        run_non_uniform, mean_run, short, long, voxels = 0.0, 0.0, 0.0, 0.0, 0.0
        for r in range(lengths):
            run_non_uniform += pr[r] * pr[r]
            mean_run += (pr[r] / total) * j[r]
            short += pr[r] / (j[r] * j[r])
            long += pr[r] * (j[r] * j[r])
            voxels += pr[r] * j[r]
        run_variance = 0.0
        for r in range(lengths):
            run_variance += (pr[r] / total) * ((j[r] - mean_run) * (j[r] - mean_run))
        entropy, short_low, short_high, long_low, long_high = 0.0, 0.0, 0.0, 0.0, 0.0
        # the two sums whose weight is a whole matrix run over levels first, whatever the memory order
        for g in range(levels):
            ii = i[g] * i[g]
            for r in range(lengths):
                n = table[d, r, g]
                if n:
                    jj = j[r] * j[r]
                    short_low += n / (ii * jj)
                    long_high += n * (jj * ii)
                    if levels_first:
                        entropy += share[d, r, g] * log_share[d, r, g]
                        short_high += n * ii / jj
                        long_low += n * jj / ii
        if not levels_first:
            for r in range(lengths):
                jj = j[r] * j[r]
                for g in range(levels):
                    n = table[d, r, g]
                    if n:
                        ii = i[g] * i[g]
                        entropy += share[d, r, g] * log_share[d, r, g]
                        short_high += n * ii / jj
                        long_low += n * jj / ii
        out[0, d] = non_uniform / total
        out[1, d] = non_uniform / (total * total)
        out[2, d] = level_variance
        out[3, d] = high / total
        out[4, d] = long / total
        out[5, d] = long_high / total
        out[6, d] = long_low / total
        out[7, d] = low / total
        out[8, d] = -entropy
        out[9, d] = run_non_uniform / total
        out[10, d] = run_non_uniform / (total * total)
        out[11, d] = total / voxels
        out[12, d] = run_variance
        out[13, d] = short / total
        out[14, d] = short_high / total
        out[15, d] = short_low / total
    return out
