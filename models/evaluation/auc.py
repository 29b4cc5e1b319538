"""Area under the ROC curve, its DeLong interval, and the paired difference of two on the same patients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from models.evaluation.inputs import BoolArray, FloatArray, Interval, numbers, outcomes


class PairedDifference(NamedTuple):
    """AUC of the first minus AUC of the second; ``p`` is None where the data cannot carry a test."""

    difference: float
    ci: Interval
    p: float | None


def auc(y: ArrayLike, scores: ArrayLike) -> float:
    """Probability that an event scores above a non-event, a tie counting one half (Mann–Whitney).

    ``y`` (n,) of 0 and 1, ``scores`` (n,), higher for events. Raises TooFewPatients where ``y`` has one class.
    """
    events = outcomes(y, both=True)
    ranks = rankdata(numbers(scores, events))
    m = int(events.sum())
    n = events.size - m
    return float((ranks[events].sum() - m * (m + 1) / 2) / (m * n))


def auc_within(y: ArrayLike, scores: ArrayLike, strata: ArrayLike) -> float | None:
    """The AUC over pairs of an event and a non-event of the same stratum only; None where there is no such pair.

    ``strata`` (n,). What tells strata apart has no part in it. With one stratum it is :func:`auc`.
    """
    events = outcomes(y)
    values, groups = numbers(scores, events), np.asarray(strata)
    right, pairs = 0.0, 0
    for group in np.unique(groups):
        here = groups == group
        m = int(events[here].sum())
        ranks = rankdata(values[here])
        right += float(ranks[events[here]].sum() - m * (m + 1) / 2)
        pairs += m * (int(here.sum()) - m)
    return right / pairs if pairs else None


def delong_variance(y: ArrayLike, scores: ArrayLike) -> float:
    """Variance of the AUC by DeLong, DeLong and Clarke-Pearson (1988), by midranks (Sun and Xu 2014).

    NaN with a single event or non-event: the spread within a class is then unknown.
    """
    events = outcomes(y, both=True)
    of_events, of_others = _placements(events, numbers(scores, events))
    return _variance(of_events, of_others)


def delong_ci(y: ArrayLike, scores: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the AUC: DeLong's variance on the logit scale (Pepe 2003, section 5.2).

    Where that variance is zero or unknown (an AUC of 0 or 1, a constant score, a single patient of a class)
    it is Newcombe's interval instead, which needs only the AUC and the two numbers of patients.
    Raises TooFewPatients where ``y`` has one class.
    """
    events = outcomes(y, both=True)
    values = numbers(scores, events)
    area = auc(events, values)
    variance = delong_variance(events, values)
    if not variance > 0 or not 0 < area < 1:
        return newcombe_ci(area, int(events.sum()), int((~events).sum()), level)
    half = float(norm.isf((1 - level) / 2)) * float(np.sqrt(variance)) / (area * (1 - area))
    centre = np.log(area / (1 - area))
    low, high = 1 / (1 + np.exp(-(centre - half))), 1 / (1 + np.exp(-(centre + half)))
    return float(low), float(high)


def newcombe_ci(area: float, events: int, others: int, level: float = 0.95) -> Interval:
    """Newcombe's method 5 (Statistics in Medicine 2006, 25:559): the AUCs that the observed one does not reject.

    The score-like interval with the variance of Hanley and McNeil (1982) under the exponential assumption,
    both numbers of patients in it replaced by their mean: the A with |area - A| = z * sd(A). Within 0 to 1 always.
    """
    z = float(norm.isf((1 - level) / 2))
    mean = (events + others) / 2 - 1

    def excess(a: float) -> float:
        variance = a * (1 - a) * (1 + mean * (1 - a) / (2 - a) + mean * a / (1 + a)) / (events * others)
        return (area - a) ** 2 - z * z * variance

    # A hair inside the observed AUC: at 0 and 1 themselves the excess has a root that is not the limit.
    low = 0.0 if area <= 0 else float(brentq(excess, 0.0, min(area, 1 - 1e-12), xtol=1e-13))
    high = 1.0 if area >= 1 else float(brentq(excess, max(area, 1e-12), 1.0, xtol=1e-13))
    return low, high


def delong_paired(y: ArrayLike, a: ArrayLike, b: ArrayLike, level: float = 0.95) -> PairedDifference:
    """AUC of ``a`` minus AUC of ``b`` on the same patients, with interval and two-sided p (DeLong 1988).

    Only for patients on whom neither was fitted: between nested models on their own training patients the
    test's size is wrong (Demler 2012). Equal orderings give a difference of 0 with p 1. Where the variance
    is zero or unknown otherwise, the interval is put together from the two single ones (Zou and Donner 2008,
    taken as independent, so too wide rather than too narrow) and p is None.
    """
    events = outcomes(y, both=True)
    first, second = numbers(a, events), numbers(b, events)
    areas = auc(events, first), auc(events, second)
    difference = areas[0] - areas[1]
    a_events, a_others = _placements(events, first)
    b_events, b_others = _placements(events, second)
    if np.array_equal(a_events, b_events) and np.array_equal(a_others, b_others):
        return PairedDifference(0.0, (0.0, 0.0), 1.0)
    variance = _variance(a_events - b_events, a_others - b_others)
    # Rounding leaves variances of 1e-33 where every patient's placement differs by the same amount.
    if not variance > 1e-24:
        (al, ah), (bl, bh) = delong_ci(events, first, level), delong_ci(events, second, level)
        low = difference - float(np.hypot(areas[0] - al, bh - areas[1]))
        high = difference + float(np.hypot(ah - areas[0], areas[1] - bl))
        return PairedDifference(difference, (max(low, -1.0), min(high, 1.0)), None)
    sd = float(np.sqrt(variance))
    half = float(norm.isf((1 - level) / 2)) * sd
    p = float(2 * norm.sf(abs(difference) / sd))
    return PairedDifference(difference, (max(difference - half, -1.0), min(difference + half, 1.0)), p)


def _placements(events: BoolArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share of the other class that each patient is on the right side of: (events,), (non-events,)."""
    ranks = rankdata(scores)
    m = int(events.sum())
    n = events.size - m
    of_events = (ranks[events] - rankdata(scores[events])) / n
    of_others = 1 - (ranks[~events] - rankdata(scores[~events])) / m
    return of_events, of_others


def _variance(of_events: FloatArray, of_others: FloatArray) -> float:
    if of_events.size < 2 or of_others.size < 2:
        return float("nan")
    return float(of_events.var(ddof=1) / of_events.size + of_others.var(ddof=1) / of_others.size)
