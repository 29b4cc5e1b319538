"""First-order features: the distribution of intensities in the ROI. Formulas of PyRadiomics' class."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.compiled import kernel
from pipelines.radiomics.texture.summation import pairwise

EPS = np.spacing(1)


def firstorder(
    values: NDArray[np.float64], voxels: NDArray[np.int64], voxel_volume: float, shift: float
) -> dict[str, float]:
    """Features of the ROI's intensities (64-bit, raster order).

    ``voxels``: how many lie in each bin present. ``voxel_volume`` in mm³. ``shift`` is added for Energy,
    TotalEnergy and RootMeanSquared.
    """
    count = len(values)
    ordered = np.sort(values)
    mean, absolute, second, energy = _moments(values, float(shift))
    third, fourth = _higher_moments(values - mean)
    # PyRadiomics guards a flat region with 1, and means to set the third and fourth moment to 0
    spread = second if second != 0 else 1.0
    tenth, ninetieth = _percentile(ordered, 10), _percentile(ordered, 90)
    lowest, highest = float(ordered[0]), float(ordered[-1])
    half = count // 2
    share = voxels.astype(np.float64) / float(voxels.sum())
    return {
        "10Percentile": tenth,
        "90Percentile": ninetieth,
        "Energy": energy,
        "Entropy": -1.0 * float(np.sum(share * np.log2(share + EPS))),
        "InterquartileRange": _percentile(ordered, 75) - _percentile(ordered, 25),
        "Kurtosis": fourth / spread**2.0,
        "Maximum": highest,
        "MeanAbsoluteDeviation": absolute,
        "Mean": mean,
        "Median": float(ordered[half]) if count % 2 else float((ordered[half - 1] + ordered[half]) / 2.0),
        "Minimum": lowest,
        "Range": highest - lowest,
        "RobustMeanAbsoluteDeviation": _robust_deviation(values, tenth, ninetieth),
        "RootMeanSquared": math.sqrt(energy / count),
        "Skewness": third / float(np.power(np.array([spread]), 1.5)[0]),
        "TotalEnergy": energy * voxel_volume,
        "Uniformity": float(np.sum(share**2)),
        "Variance": math.sqrt(second) ** 2,
    }


FEW = 2000
CANCELS = 1e-4


def _higher_moments(centred: NDArray[np.float64]) -> tuple[float, float]:
    """Third and fourth central moment with the bits of ``numpy.power``, or nearly.

    NumPy takes negative bases through a slow path that rounds all but one in a thousand rightly, and
    positive ones through a fast one that does not quite. So positive ones are left to it, and negative ones
    are rounded rightly here. Where the third moment cancels, its last bits are all there is: then NumPy
    does everything.
    """
    if len(centred) > FEW:
        sizes = np.abs(centred)
        third, fourth = np.power(sizes, 3), np.power(sizes, 4)
        absolute = float(np.sum(third))
        _negative_powers(centred, third, fourth)
        total = float(np.sum(third))
        if abs(total) > CANCELS * absolute:
            return total / len(centred), float(np.sum(fourth)) / len(centred)
    third, fourth = np.power(centred, 3), np.power(centred, 4)
    return float(np.sum(third)) / len(centred), float(np.sum(fourth)) / len(centred)


@kernel
def _split_product(a: float, b: float) -> tuple[float, float]:
    """Product and its rounding error (Dekker)."""
    product = a * b
    scaled = 134217729.0 * a
    a_high = scaled - (scaled - a)
    a_low = a - a_high
    scaled = 134217729.0 * b
    b_high = scaled - (scaled - b)
    b_low = b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@kernel
def _negative_powers(values: NDArray[np.float64], third: NDArray[np.float64], fourth: NDArray[np.float64]) -> None:
    """Overwrite the cubes and fourth powers of negative values, rightly rounded."""
    for i in range(len(values)):
        value = values[i]
        if value < 0:
            square, error = _split_product(value, value)
            product, rest = _split_product(square, value)
            third[i] = product + (rest + error * value)
            product, rest = _split_product(square, square)
            fourth[i] = product + (rest + 2 * square * error)


def _percentile(ordered: NDArray[np.float64], percent: float) -> float:
    """``numpy.percentile`` (linear) of values already in order."""
    position = (len(ordered) - 1) * (percent / 100.0)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    a, b, t = float(ordered[below]), float(ordered[above]), position - below
    return b - (b - a) * (1 - t) if t >= 0.5 else a + (b - a) * t


@kernel
def _moments(values: NDArray[np.float64], shift: float) -> tuple[float, float, float, float]:
    """Mean, mean absolute deviation, variance and energy."""
    count = len(values)
    mean = pairwise(values, 0, count) / count
    buffer = np.empty(count)
    for i in range(count):
        buffer[i] = abs(values[i] - mean)
    absolute = pairwise(buffer, 0, count) / count
    for i in range(count):
        buffer[i] = buffer[i] * buffer[i]
    second = pairwise(buffer, 0, count) / count
    for i in range(count):
        buffer[i] = (values[i] + shift) * (values[i] + shift)
    return mean, absolute, second, pairwise(buffer, 0, count)


@kernel
def _robust_deviation(values: NDArray[np.float64], low: float, high: float) -> float:
    """Mean absolute deviation of what lies between the 10th and 90th percentile."""
    count = len(values)
    buffer = np.empty(count)
    kept = 0
    for i in range(count):
        inside = not (values[i] - low < 0 or values[i] - high > 0)
        buffer[i] = values[i] if inside else 0.0
        kept += inside
    if kept == 0:
        return np.nan
    mean = pairwise(buffer, 0, count) / kept
    for i in range(count):
        inside = not (values[i] - low < 0 or values[i] - high > 0)
        buffer[i] = abs(values[i] - mean) if inside else 0.0
    return pairwise(buffer, 0, count) / kept
