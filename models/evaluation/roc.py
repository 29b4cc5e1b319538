"""The ROC curve as points to draw, with a pointwise band."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.inputs import BoolArray, FloatArray, numbers, outcomes


class RocCurve(NamedTuple):
    """The empirical curve: false and true positive rate, each of shape (cuts + 1,), from (0, 0) to (1, 1)."""

    fpr: FloatArray
    tpr: FloatArray


class RocBand(NamedTuple):
    """Interval of the sensitivity at each false positive rate, each of shape (points,)."""

    fpr: FloatArray
    low: FloatArray
    high: FloatArray


def roc_curve(y: ArrayLike, scores: ArrayLike) -> RocCurve:
    """Every distinct score as a cut; tied events and non-events are joined by a slope, as the AUC counts them.

    ``y`` (n,) of 0 and 1, ``scores`` (n,). Raises TooFewPatients where ``y`` has one class.
    """
    events = outcomes(y, both=True)
    return _curve(events, numbers(scores, events))


def roc_band(
    y: ArrayLike, scores: ArrayLike, seed: int = 0, *, n_bootstrap: int = 500, points: int = 101, level: float = 0.95
) -> RocBand:
    """Pointwise percentile bootstrap of the sensitivity over a grid of false positive rates.

    Patients are resampled within each outcome, ``n_bootstrap`` times, seeded. Raises TooFewPatients where ``y``
    has one class.
    """
    events = outcomes(y, both=True)
    values = numbers(scores, events)
    rng = np.random.default_rng(seed)
    grid = np.linspace(0, 1, points)
    of_events, of_others = values[events], values[~events]
    label = np.repeat([True, False], [of_events.size, of_others.size])
    sensitivities = np.empty((n_bootstrap, points))
    for row in sensitivities:
        drawn = np.concatenate([rng.choice(of_events, of_events.size), rng.choice(of_others, of_others.size)])
        row[:] = _sensitivity_at(_curve(label, drawn), grid)
    low, high = np.quantile(sensitivities, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return RocBand(grid, low, high)


def _curve(events: BoolArray, scores: FloatArray) -> RocCurve:
    order = np.argsort(-scores, kind="stable")
    # The last patient of each run of equal scores closes a cut.
    closes = np.append(np.diff(scores[order]) != 0, True)
    tpr = np.cumsum(events[order])[closes] / events.sum()
    fpr = np.cumsum(~events[order])[closes] / (~events).sum()
    return RocCurve(np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr]))


def _sensitivity_at(curve: RocCurve, grid: FloatArray) -> FloatArray:
    """Highest sensitivity reached at each false positive rate, along the drawn lines."""
    steps, first = np.unique(curve.fpr, return_index=True)
    last = np.append(first[1:] - 1, curve.fpr.size - 1)
    # A vertical run has a foot and a head: between runs the line leaves from the head and arrives at the foot.
    right = np.minimum(np.searchsorted(steps, grid, side="left"), steps.size - 1)
    at = steps[right] == grid
    left = np.maximum(right - 1, 0)
    width = np.where(steps[right] > steps[left], steps[right] - steps[left], 1.0)
    share = (grid - steps[left]) / width
    between = curve.tpr[last[left]] + share * (curve.tpr[first[right]] - curve.tpr[last[left]])
    result: FloatArray = np.where(at, curve.tpr[last[right]], between)
    return result
