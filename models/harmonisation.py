"""ComBat: columns of different scanners brought to one location and spread, learnt on training patients only.

Johnson, Li and Rabinovic (Biostatistics 2007;8:118) with empirical Bayes priors; the outcome is never a covariate, and
nothing else is. What is kept is a line a batch and column, so that a single patient is harmonised like many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feature_store.errors import UsageError
from models.selection.matrix import FeatureMatrix

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Texts = NDArray[np.str_]
Unseen = Literal["as_is", "refuse"]

SCANNER = "scanner"
"""The feature that says where a patient was scanned; asked for by signatures that harmonise."""
MIN_BATCH = 5
"""A scanner with fewer training patients teaches nothing: its patients' values are left as they are."""
CONVERGED = 1e-4
MOST_STEPS = 500


@dataclass(frozen=True)
class Harmoniser:
    """``slope`` and ``offset`` (batches, p): x becomes slope × x + offset. Other batches follow ``unseen``.

    ``as_is`` leaves an unseen scanner's values as they are (they are on the pooled location and spread at best);
    ``refuse`` raises UsageError. ``few``: scanners that were there while fitting with too few patients; their values
    are left as they are under either policy. Missing values stay missing. ``by``: the feature that names the scanner.
    """

    names: tuple[str, ...]
    batches: tuple[str, ...]
    slope: Floats
    offset: Floats
    unseen: Unseen = "as_is"
    few: tuple[str, ...] = ()
    by: str = SCANNER

    def apply(self, x: Floats, batch: Sequence[str] | Texts) -> Floats:
        """``x`` (n, p) in the order of ``names``, ``batch`` (n,)."""
        place = {name: i for i, name in enumerate(self.batches)}
        index = np.array([place.get(str(name), -1) for name in batch], dtype=np.intp)
        strangers = (index < 0) & ~np.isin(batch, self.few) & np.isfinite(x).any(axis=1)
        if self.batches and strangers.any() and self.unseen == "refuse":
            raise UsageError(
                f"{int(strangers.sum())} patients are from scanners that the harmonisation has not learnt ({self.by}).",
                action="Train with patients of that scanner, or let unseen scanners pass as they are.",
            )
        # The last row, which index −1 takes, changes nothing.
        slope = np.vstack([self.slope, np.ones((1, len(self.names)))])[index]
        offset = np.vstack([self.offset, np.zeros((1, len(self.names)))])[index]
        return np.asarray(slope * x + offset, dtype=np.float64)

    def take(self, names: Sequence[str]) -> Harmoniser:
        """The same for some of its columns."""
        place = {name: i for i, name in enumerate(self.names)}
        columns = [place[name] for name in names]
        return replace(self, names=tuple(names), slope=self.slope[:, columns], offset=self.offset[:, columns])


def fit_combat(matrix: FeatureMatrix, batch: Texts, unseen: Unseen = "as_is", by: str = SCANNER) -> Harmoniser:
    """Fitted on the patients given. With fewer than two batches of five patients or more nothing is changed.

    Missing values count as the column's median while fitting; who has no value at all counts nowhere. Columns that
    do not vary are left alone.
    """
    there = np.isfinite(matrix.values).any(axis=1)
    counted, sizes = np.unique(batch[there], return_counts=True)
    batches = tuple(str(name) for name in counted[sizes >= MIN_BATCH])
    few = tuple(str(name) for name in counted[sizes < MIN_BATCH])
    p = len(matrix.names)
    if len(batches) < 2:
        return Harmoniser(matrix.names, (), np.ones((0, p)), np.zeros((0, p)), unseen, by=by)
    rows = there & np.isin(batch, batches)
    x, index = _filled(matrix.values[rows]), np.searchsorted(np.array(batches), batch[rows])
    n = np.bincount(index).astype(np.float64)
    mean = np.stack([x[index == b].mean(axis=0) for b in range(len(batches))])
    centre = (n / n.sum()) @ mean
    sd = np.sqrt(((x - mean[index]) ** 2).mean(axis=0))
    varies = sd > 1e-12 * np.maximum(np.abs(centre), 1e-300)
    z = (x[:, varies] - centre[varies]) / sd[varies]
    slope, offset = np.ones((len(batches), p)), np.zeros((len(batches), p))
    for b in range(len(batches)):
        shift, spread = _empirical_bayes(z[index == b])
        # z' = (z − shift) / √spread, in the column's own units again.
        slope[b, varies] = 1 / np.sqrt(spread)
        offset[b, varies] = centre[varies] - (centre[varies] + shift * sd[varies]) / np.sqrt(spread)
    return Harmoniser(matrix.names, batches, slope, offset, unseen, few, by)


def _empirical_bayes(z: Floats) -> tuple[Floats, Floats]:
    """Location and variance of one batch (p,), drawn towards those of its other columns (their section 3)."""
    n = len(z)
    own_shift, own_spread = z.mean(axis=0), z.var(axis=0, ddof=1)
    if z.shape[1] < 2:
        return own_shift, np.maximum(own_spread, 1e-6)
    prior, tau2 = own_shift.mean(), own_shift.var(ddof=1)
    m, s2 = own_spread.mean(), own_spread.var(ddof=1)
    if not s2 > 0 or not tau2 > 0:
        return own_shift, np.maximum(own_spread, 1e-6)
    a, b = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
    shift, spread = own_shift, own_spread
    for _ in range(MOST_STEPS):
        new_shift = (tau2 * n * own_shift + spread * prior) / (tau2 * n + spread)
        squares = (n - 1) * own_spread + n * (own_shift - new_shift) ** 2
        new_spread = (squares / 2 + b) / (n / 2 + a - 1)
        change = max(_relative(new_shift, shift), _relative(new_spread, spread))
        shift, spread = new_shift, new_spread
        if change < CONVERGED:
            break
    return shift, spread


def _relative(new: Floats, old: Floats) -> float:
    return float((np.abs(new - old) / np.maximum(np.abs(old), 1e-12)).max())


def _filled(x: Floats) -> Floats:
    missing = ~np.isfinite(x)
    if not missing.any():
        return x
    there = ~missing.all(axis=0)
    medians = np.zeros(x.shape[1])
    medians[there] = np.nanmedian(np.where(missing, np.nan, x)[:, there], axis=0)
    return np.where(missing, medians, x)
