"""Scales on which scores are comparable: a line from a classifier's raw score to log-odds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evaluation.calibration import fit_near_one, fit_platt, intercept_beside, pairwise_slope

Floats = NDArray[np.float64]
Outcome = NDArray[np.int64]
Ints = NDArray[np.intp]

MIN_SLOPE = 0.05
"""Smallest change of log-odds over one standard deviation of the score. Out-of-fold scores of a signature
without signal often run the wrong way by chance; a scale may flatten them, but never turn them round."""


@dataclass(frozen=True)
class Scale:
    """log-odds = slope × score + intercept. ``flat`` says that the slope had to be held at its minimum."""

    slope: float
    intercept: float
    flat: bool = False

    def __call__(self, scores: Floats) -> Floats:
        return np.asarray(self.slope * scores + self.intercept, dtype=np.float64)


def of_raw(scale: Scale, centre: float, unit: float) -> Scale:
    """The scale of a final model's raw scores, from that of comparable ones (``centre_and_unit``)."""
    slope = scale.slope / unit
    return Scale(slope, scale.intercept - slope * centre, scale.flat)


def fit_scale(scores: Floats, y: Outcome, folds: Ints) -> Scale:
    """Log-odds *beyond* those of the prevalence of these patients; ``scores`` (n,) out of fold, ``y``, ``folds`` (n,).

    Without the prevalence, since a fold with many events leaves few to the others: scales that carried it
    would rank every fold against its own prevalence, and an uninformative score would look worse than chance.

    The slope is that of pairs within a fold, whose two scores are of one model, as the AUC of a fold counts them.
    Across folds K models are compared, and Platt's smoothed targets stand for patients nobody has seen; both flatten
    the slope (decision 017). Scores that order every pair rightly have no other slope than Platt's.
    """
    slope = pairwise_slope(scores, y, folds)
    line = fit_platt(scores, y) if slope is None else (slope, intercept_beside(scores, y, slope))
    return _without(_prevalence_logit(y), _never_turned(scores, y, line))


SLOPE_SD = 0.05
"""How far the second scale may be expected to lie from 1 before the patients say otherwise."""


def fit_calibration(logits: Floats, y: Outcome) -> Scale:
    """Calibration on nested out-of-fold log-odds: the prevalence comes back here.

    These log-odds are calibrated but for the optimism of the choice of classifier and grid point, so that the slope
    is near 1. They come from K models on K scales fitted on fewer patients, and a slope fitted on them freely is
    too flat for the final model, the more so the fewer patients there are (decision 017). It is drawn towards 1 by a
    normal prior with an SD of 0.05, which thousands of patients outweigh.
    """
    return _never_turned(logits, y, fit_near_one(logits, y, SLOPE_SD))


def probability(logits: Floats) -> Floats:
    """Log-odds to probability."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -500, 500))), dtype=np.float64)


def _never_turned(scores: Floats, y: Outcome, line: tuple[float, float]) -> Scale:
    slope, intercept = line
    least = MIN_SLOPE / max(float(scores.std()), 1e-12)
    if slope >= least:
        return Scale(slope, intercept)
    if np.ptp(scores) == 0:
        return Scale(0.0, _prevalence_logit(y), flat=True)
    return Scale(least, _prevalence_logit(y) - least * float(scores.mean()), flat=True)


def _without(logit: float, scale: Scale) -> Scale:
    return Scale(scale.slope, scale.intercept - logit, scale.flat)


def _prevalence_logit(y: Outcome) -> float:
    events = int(np.count_nonzero(y == 1))
    return float(np.log(events / (len(y) - events)))
