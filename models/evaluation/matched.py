"""A score against a yes-or-no reading where both raise the same number of false alarms: sensitivities compared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.agreement import mcnemar_exact
from models.evaluation.inputs import BoolArray, FloatArray, Interval, numbers, outcomes


class Matched(NamedTuple):
    """At ``threshold`` (minus infinity where everybody may be high) the score's specificity is at least the reader's.

    ``difference``: sensitivity of the score minus the reader's, with its paired bootstrap interval; ``p``: exact
    McNemar test among the events, with the threshold as it is.
    """

    threshold: float
    specificity: float
    sensitivity: float
    difference: float
    ci: Interval
    p: float


def matched_specificity(
    y: ArrayLike, scores: ArrayLike, reading: ArrayLike, seed: int, *, n_bootstrap: int = 1000, level: float = 0.95
) -> Matched:
    """``y``, ``scores`` and ``reading`` (n,; 0 and 1) of the same patients.

    The threshold is matched again in every resample (patients drawn within each outcome), since it depends on the
    patients as well. Raises TooFewPatients where ``y`` has one class.
    """
    events = outcomes(y, both=True)
    values, high = numbers(scores, events), numbers(reading, events, "readings").astype(np.bool_)
    of_events, of_others = np.flatnonzero(events), np.flatnonzero(~events)
    threshold = _match(values[of_others], high[of_others])
    called = values >= threshold
    rng = np.random.default_rng(seed)
    differences = np.empty(n_bootstrap)
    for i in range(n_bootstrap):
        m, n = rng.choice(of_events, of_events.size), rng.choice(of_others, of_others.size)
        differences[i] = _difference(values[m], high[m], _match(values[n], high[n]))
    low, end = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return Matched(
        threshold,
        float((~called[of_others]).mean()),
        float(called[of_events].mean()),
        _difference(values[of_events], high[of_events], threshold),
        (float(low), float(end)),
        mcnemar_exact(called[of_events], high[of_events]).p,
    )


def _match(scores: FloatArray, high: BoolArray) -> float:
    """The lowest threshold at which no more of these non-events are high than the reader has; high is >=."""
    allowed = int(high.sum())
    falling = -np.sort(-scores)
    if allowed >= scores.size:
        return float("-inf")  # the reader calls everybody high: so may the score
    # Just above the first score that may not be high any more: ties with it stay low.
    return float(np.nextafter(falling[allowed], np.inf))


def _difference(scores: FloatArray, high: BoolArray, threshold: float) -> float:
    return float((scores >= threshold).mean() - high.mean())
