"""Proportions of patients and the F1 score, with their intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from feature_store.errors import UsageError
from models.evaluation.inputs import Interval, numbers, outcomes


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval (1927) of the proportion k of n. With n = 0 it is (0, 1): nothing is known."""
    if not 0 <= k <= n:
        raise UsageError(f"{k} of {n} is no proportion.", action="Pass 0 <= k <= n.")
    if n == 0:
        return 0.0, 1.0
    z = float(norm.isf((1 - level) / 2))
    share = k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    # At k = 0 and k = n the limit is exact; rounding must not move it.
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def f1_score(y: ArrayLike, predicted: ArrayLike) -> float | None:
    """2 TP / (2 TP + FP + FN); None where nobody has the event and nobody is predicted to."""
    events = outcomes(y)
    high = numbers(predicted, events, "predictions").astype(np.bool_)
    counted = int(events.sum() + high.sum())
    return 2 * int((events & high).sum()) / counted if counted else None


def bootstrap_f1(
    y: ArrayLike, predicted: ArrayLike, seed: int, *, n_bootstrap: int = 2000, level: float = 0.95
) -> Interval | None:
    """Percentile bootstrap interval of the F1 score; None where no resample has one.

    ``y`` and ``predicted`` (n,) of 0 and 1. Patients are resampled within each outcome, so that every resample
    has the observed prevalence. Resampling m events of which TP are predicted high is a binomial draw, so the
    resamples are drawn as counts: the same distribution without touching a patient.
    """
    events = outcomes(y)
    high = numbers(predicted, events, "predictions").astype(np.bool_)
    m, n = int(events.sum()), int((~events).sum())
    rng = np.random.default_rng(seed)
    true_high = rng.binomial(m, (events & high).sum() / m if m else 0.0, n_bootstrap)
    false_high = rng.binomial(n, (~events & high).sum() / n if n else 0.0, n_bootstrap)
    counted = m + true_high + false_high
    scores = 2 * true_high[counted > 0] / counted[counted > 0]
    if not scores.size:
        return None
    low, high_end = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high_end)
