"""Grey level co-occurrence features: the mean over directions. Formulas of PyRadiomics' class.

PyRadiomics works on dense arrays [level, level, direction] and sums them one element after another for
each direction. Most elements are zero and add nothing, so only the others are visited here, in the
same order; weights depend on i + j or i - j only and come from tables.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.feature_names import GLCM
from pipelines.radiomics.texture.compiled import kernel
from pipelines.radiomics.texture.correlation import maximal_correlations
from pipelines.radiomics.texture.summation import nanmean_rows

EPS = np.spacing(1)


def glcm(cooccurrences: NDArray[np.int32], greys: NDArray[np.int64]) -> dict[str, float]:
    """Features of ``cooccurrences`` [D, G, G] (direction, level's index, neighbour's index; one way).

    Two or more directions, none without a pair, two or more levels (PyRadiomics drops empty directions,
    which changes its memory order; such ROIs are left to it).
    """
    top = int(greys[-1])
    i = greys.astype(np.float64)
    # numpy.delete keeps the old memory order when it removes exactly one level
    rows_first = top - len(greys) == 1
    p, px = _normalised(cooccurrences)
    ux, uy = _means(p, i, rows_first)
    centred = np.arange(2 * top + 1, dtype=np.float64)[None, :] - ux[:, None] - uy[:, None]
    third, fourth = centred**3, centred**4
    log_p = np.log2(p + EPS)
    product = px[:, :, None] * px[:, None, :]
    log_product = np.log2(product + EPS)
    rows, sums, differences = _sums(
        p, px, log_p, product, log_product, greys, ux, uy, centred * centred, third, fourth, rows_first
    )
    _of_sums(rows, sums, np.log2(sums + EPS), 2)
    _of_differences(rows, differences, np.log2(differences + EPS), top)
    hx = _entropies(px, np.log2(px + EPS))
    hxy, hxy1, hxy2 = rows[JOINT_ENTROPY].copy(), rows[IMC1].copy(), rows[IMC2].copy()
    gain = hxy - hxy1
    rows[IMC1] = np.divide(gain, hx, out=np.zeros_like(gain), where=hx != 0)
    with np.errstate(invalid="ignore"):
        rows[IMC2] = (1 - np.e ** (-2 * (hxy2 - hxy))) ** 0.5
    rows[IMC2][hxy2 == hxy] = 0
    rows[MCC] = maximal_correlations(p, px)
    return dict(zip(GLCM, nanmean_rows(rows).tolist(), strict=True))


ROW = {name: row for row, name in enumerate(GLCM)}
AUTOCORRELATION, PROMINENCE, SHADE, TENDENCY, CONTRAST, CORRELATION = range(6)
DIFFERENCE_AVERAGE, DIFFERENCE_ENTROPY, DIFFERENCE_VARIANCE, ID, IDM, IDMN, IDN, IMC1, IMC2 = range(6, 15)
INVERSE_VARIANCE, JOINT_AVERAGE, JOINT_ENERGY, JOINT_ENTROPY, MCC, MAXIMUM, SUM_AVERAGE = range(15, 22)
SUM_ENTROPY, SUM_SQUARES = 22, 23


@kernel
def _normalised(counts: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Symmetric probabilities [D, G, G] and their marginals [D, G] (rows' and columns' are the same)."""
    directions, levels, _ = counts.shape
    p, px = np.empty((directions, levels, levels)), np.empty((directions, levels))
    for d in range(directions):
        total = 0.0
        for a in range(levels):
            for b in range(levels):
                total += counts[d, a, b]
        total *= 2.0
        for a in range(levels):
            marginal = 0.0
            for b in range(levels):
                value = (counts[d, a, b] + counts[d, b, a]) / total
                p[d, a, b] = value
                marginal += value
            px[d, a] = marginal
    return p, px


@kernel
def _means(
    p: NDArray[np.float64], i: NDArray[np.float64], rows_first: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean row level and mean column level of each direction (equal but for the order of the sum)."""
    directions, levels, _ = p.shape
    outer, inner = np.zeros(directions), np.zeros(directions)
    for d in range(directions):
        by_outer, by_inner = 0.0, 0.0
        for a in range(levels):
            for b in range(levels):
                by_outer += i[a] * p[d, a, b]
                by_inner += i[b] * p[d, a, b]
        outer[d], inner[d] = by_outer, by_inner
    if rows_first:
        return outer, inner
    return inner, outer


@kernel
def _sums(
    p: NDArray[np.float64],
    px: NDArray[np.float64],
    log_p: NDArray[np.float64],
    product: NDArray[np.float64],
    log_product: NDArray[np.float64],
    greys: NDArray[np.int64],
    ux: NDArray[np.float64],
    uy: NDArray[np.float64],
    second: NDArray[np.float64],
    third: NDArray[np.float64],
    fourth: NDArray[np.float64],
    rows_first: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rows [24, D] as far as they are sums over p; probabilities of i + j [D, 2 Ng + 1], of |i - j| [D, Ng].

    Imc1 and Imc2 hold HXY1 and HXY2 for now.
    """
    directions, levels, _ = p.shape
    top = greys[levels - 1]
    rows = np.zeros((24, directions))
    sums, differences = np.zeros((directions, 2 * top + 1)), np.zeros((directions, top))
    for d in range(directions):
        auto, prominence, shade, tendency, contrast = 0.0, 0.0, 0.0, 0.0, 0.0
        energy, entropy, cross, highest = 0.0, 0.0, 0.0, 0.0
        sigma_x, sigma_y, covariance = 0.0, 0.0, 0.0
        mean_x, mean_y = ux[d], uy[d]
        for a in range(levels):
            outer = greys[a]
            for b in range(levels):
                value = p[d, a, b]
                if value == 0.0:
                    continue
                inner = greys[b]
                k, step = outer + inner, abs(outer - inner)
                auto += value * (outer * inner)
                prominence += value * fourth[d, k]
                shade += value * third[d, k]
                tendency += value * second[d, k]
                contrast += value * (step * step)
                energy += value * value
                entropy += value * log_p[d, a, b]
                cross += value * log_product[d, a, b]
                if value > highest:
                    highest = value
                # the marginal means break the symmetry: PyRadiomics' outer index in memory is the column
                if rows_first:
                    x, y = outer - mean_x, inner - mean_y
                else:
                    x, y = inner - mean_x, outer - mean_y
                sigma_x += value * (x * x)
                sigma_y += value * (y * y)
                covariance += value * x * y
                sums[d, k] += value
                differences[d, step] += value
        independent = 0.0
        for a in range(levels):
            for b in range(levels):
                independent += product[d, a, b] * log_product[d, a, b]
        spread = np.sqrt(sigma_x) * np.sqrt(sigma_y)
        rows[AUTOCORRELATION, d] = auto
        rows[PROMINENCE, d] = prominence
        rows[SHADE, d] = shade
        rows[TENDENCY, d] = tendency
        rows[CONTRAST, d] = contrast
        rows[CORRELATION, d] = covariance / (spread + EPS) if spread != 0 else 1.0
        rows[IMC1, d] = -cross
        rows[IMC2, d] = -independent
        rows[JOINT_AVERAGE, d] = mean_x
        rows[JOINT_ENERGY, d] = energy
        rows[JOINT_ENTROPY, d] = -entropy
        rows[MAXIMUM, d] = highest
        rows[SUM_SQUARES, d] = sigma_x
    return rows, sums, differences


@kernel
def _of_sums(rows: NDArray[np.float64], sums: NDArray[np.float64], logs: NDArray[np.float64], first: int) -> None:
    for d in range(len(sums)):
        average, entropy = 0.0, 0.0
        for k in range(first, sums.shape[1]):
            average += k * sums[d, k]
            entropy += sums[d, k] * logs[d, k]
        rows[SUM_AVERAGE, d] = average
        rows[SUM_ENTROPY, d] = -entropy


@kernel
def _of_differences(
    rows: NDArray[np.float64], differences: NDArray[np.float64], logs: NDArray[np.float64], top: int
) -> None:
    levels = np.float64(top)
    for d in range(len(differences)):
        average, entropy, inverse, moment, moment_n, inverse_n = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        inverse_variance, variance = 0.0, 0.0
        for k in range(top):
            value, step = differences[d, k], np.float64(k)
            average += step * value
            entropy += value * logs[d, k]
            inverse += value / (1 + step)
            moment += value / (1 + step * step)
            moment_n += value / (1 + (step * step) / (levels * levels))
            inverse_n += value / (1 + step / levels)
            if k > 0:
                inverse_variance += value / (step * step)
        for k in range(top):
            step = np.float64(k) - average
            variance += differences[d, k] * (step * step)
        rows[DIFFERENCE_AVERAGE, d] = average
        rows[DIFFERENCE_ENTROPY, d] = -entropy
        rows[DIFFERENCE_VARIANCE, d] = variance
        rows[ID, d] = inverse
        rows[IDM, d] = moment
        rows[IDMN, d] = moment_n
        rows[IDN, d] = inverse_n
        rows[INVERSE_VARIANCE, d] = inverse_variance


@kernel
def _entropies(px: NDArray[np.float64], logs: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.empty(len(px))
    for d in range(len(px)):
        total = 0.0
        for a in range(px.shape[1]):
            total += px[d, a] * logs[d, a]
        out[d] = -total
    return out
