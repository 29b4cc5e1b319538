"""Which columns are usable, what stands in for missing values, and scaling that survives heavy tails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

MAX_Z = 10.0

HEAVY_TAIL = 50.0
"""Standard deviation, in quartile ranges, from which a column counts as heavy-tailed (a normal column has 0.74)."""

MIN_PRESENT = 0.5
"""A column with fewer finite training values than this share is unusable."""


@dataclass(frozen=True)
class Scaling:
    """Arrays of shape (p,), fitted on training patients; the same arithmetic for one patient and for many.

    z = (clip((x or median − centre) / scale, ±clip) − mean) / sd
    """

    medians: Floats
    centre: Floats
    scale: Floats
    mean: Floats
    sd: Floats
    clip: float

    def apply(self, x: Floats) -> Floats:
        """``x`` (n, p) in the features' own units, NaN where missing, to z-scores (n, p)."""
        filled = np.where(np.isfinite(x), x, self.medians)
        with np.errstate(over="ignore"):  # what overflows is clipped
            scaled = np.clip((filled - self.centre) / self.scale, -self.clip, self.clip)
        return np.asarray((scaled - self.mean) / self.sd, dtype=np.float64)

    def heavy_tailed(self, x: Floats) -> NDArray[np.bool_]:
        """Which columns of ``x`` (n, p) would spread over more than fifty quartile ranges, were they not clipped."""
        filled = np.where(np.isfinite(x), x, self.medians)
        with np.errstate(over="ignore", invalid="ignore"):
            spread = ((filled - self.centre) / self.scale).std(axis=0)
        return np.asarray(~(spread <= HEAVY_TAIL))

    def take(self, columns: Ints) -> Scaling:
        return Scaling(
            self.medians[columns],
            self.centre[columns],
            self.scale[columns],
            self.mean[columns],
            self.sd[columns],
            self.clip,
        )


@dataclass(frozen=True)
class Usable:
    """Columns that can be used, and how many of the others were unusable, constant or duplicates."""

    columns: Ints
    unusable: int
    constant: int
    duplicate: int


def usable_columns(x: Floats) -> Usable:
    """Columns of ``x`` (n, p) with enough finite values that are not all the same and not a copy of an earlier one."""
    finite = np.isfinite(x)
    enough = finite.mean(axis=0) >= MIN_PRESENT
    low = np.where(finite, x, np.inf).min(axis=0)
    high = np.where(finite, x, -np.inf).max(axis=0)
    with np.errstate(invalid="ignore"):
        # A spread of rounding errors is no spread.
        varies = enough & (high - low > 1e-12 * np.maximum(np.abs(high), np.abs(low)))
    seen: set[bytes] = set()
    kept = []
    for column in np.flatnonzero(varies):
        content = np.ascontiguousarray(x[:, column]).tobytes()
        if content not in seen:
            seen.add(content)
            kept.append(column)
    return Usable(
        np.array(kept, dtype=np.intp),
        unusable=int((~enough).sum()),
        constant=int((enough & ~varies).sum()),
        duplicate=int(varies.sum()) - len(kept),
    )


def quartiles(x: Floats) -> Floats:
    """25th, 50th and 75th percentile of each column of ``x`` (n, p) over its finite values, shape (3, p)."""
    columns = np.ascontiguousarray(x.T)
    result = np.percentile(columns, [25.0, 50.0, 75.0], axis=1)
    missing = ~np.isfinite(columns).all(axis=1)
    if missing.any():
        result[:, missing] = np.nanpercentile(columns[missing], [25.0, 50.0, 75.0], axis=1)
    return np.asarray(result, dtype=np.float64)


def robust_scaling(x: Floats, clip: float) -> Scaling:
    """The paper's median and quartile scaling, clipped at ± ``clip`` quartile ranges, then z-scored.

    The default 3.5 is where Tukey's outer fences lie for symmetric values. Real PyRadiomics columns have
    values 10⁶ quartile ranges out; unclipped, one patient would decide the F-test, the correlation and the
    LASSO. A column whose quartiles coincide is scaled by the median distance of those values that do differ:
    its standard deviation may be one patient's doing. ``x`` (n, p): usable columns.
    """
    low, median, high = quartiles(x)
    filled = np.where(np.isfinite(x), x, median)
    iqr = high - low
    # A quartile range of rounding errors is none; the value with the largest spread then decides.
    flat = ~(iqr > 1e-12 * np.maximum(np.abs(high), np.abs(low)))
    scale = iqr
    for column in np.flatnonzero(flat):
        distance = np.abs(filled[:, column] - median[column])
        scale[column] = np.median(distance[distance > 1e-13 * abs(median[column])])
    with np.errstate(over="ignore"):  # what overflows is clipped
        scaled = np.clip((filled - median) / scale, -clip, clip)
    return Scaling(median, median, scale, scaled.mean(axis=0), scaled.std(axis=0), clip)


def z_scaling(x: Floats) -> Scaling:
    """Plain z-scores with the median in place of missing values (embeddings). ``x`` (n, p): usable columns.

    Values over ten standard deviations out are held there, so that no later patient's can overflow a projection.
    """
    _, median, _ = quartiles(x)
    filled = np.where(np.isfinite(x), x, median)
    p = x.shape[1]
    return Scaling(median, filled.mean(axis=0), filled.std(axis=0), np.zeros(p), np.ones(p), MAX_Z)
