"""Two readers, or a reader and a signature, on the same patients: Cohen's kappa and McNemar's exact test."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, norm

from models.evaluation.inputs import Interval, numbers, outcomes


class Kappa(NamedTuple):
    """Agreement beyond chance; both None where chance alone agrees always (both say the same of everybody)."""

    kappa: float | None
    ci: Interval | None


class McNemar(NamedTuple):
    """Patients only the first got right, only the second got right, and the two-sided exact p."""

    only_a: int
    only_b: int
    p: float


def cohen_kappa(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Kappa:
    """Cohen's kappa (1960) of two readings (n,) of 0 and 1, with the large-sample interval of Fleiss et al. (1969)."""
    first, second = outcomes(a), outcomes(b)
    numbers(second, first, "readings")
    n = first.size
    if not n:
        return Kappa(None, None)
    table = np.array(
        [[(~first & ~second).sum(), (~first & second).sum()], [(first & ~second).sum(), (first & second).sum()]]
    )
    share = table / n
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    agreed, chance = float(np.trace(share)), float(rows @ columns)
    if chance >= 1:
        return Kappa(None, None)
    kappa = (agreed - chance) / (1 - chance)
    same = sum(share[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in range(2))
    other = (1 - kappa) ** 2 * sum(share[i, 1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in range(2))
    variance = (same + other - (kappa - chance * (1 - kappa)) ** 2) / ((1 - chance) ** 2 * n)
    half = float(norm.isf((1 - level) / 2)) * float(np.sqrt(max(variance, 0.0)))
    return Kappa(float(kappa), (max(float(kappa) - half, -1.0), min(float(kappa) + half, 1.0)))


def mcnemar_exact(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """McNemar's exact (binomial) test that two classify equally well (McNemar 1947).

    ``right_a`` and ``right_b`` (n,) say for the same patients whether each was right. p is 1 without discordant pairs.
    """
    first, second = outcomes(right_a), outcomes(right_b)
    numbers(second, first, "readings")
    only_a, only_b = int((first & ~second).sum()), int((~first & second).sum())
    p = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)
