"""Measures in which patients count unequally: inverse-probability-of-censoring weights for those without an outcome."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from feature_store.errors import UsageError
from models.evaluation.inputs import FloatArray, numbers, outcomes


def weighted_auc(y: ArrayLike, scores: ArrayLike, weights: ArrayLike) -> float:
    """The AUC with each pair counting by the product of its two weights, a tie one half. Equal weights give the AUC."""
    events, values, w = _checked(y, scores, weights)
    order = np.argsort(values, kind="stable")
    below, tied = 0.0, 0.0
    _, starts = np.unique(values[order], return_index=True)
    of_others = np.add.reduceat(np.where(events, 0.0, w)[order], starts)
    of_events = np.add.reduceat(np.where(events, w, 0.0)[order], starts)
    lower = np.cumsum(of_others) - of_others
    below, tied = float(of_events @ lower), float(of_events @ of_others)
    return (below + tied / 2) / (float(w[events].sum()) * float(w[~events].sum()))


def weighted_observed_expected(y: ArrayLike, p: ArrayLike, weights: ArrayLike) -> float:
    """Weighted number of events over the weighted sum of risks."""
    events, risk, w = _checked(y, p, weights)
    return float((w * events).sum() / (w * risk).sum())


def effective_size(weights: ArrayLike) -> float:
    """Kish's effective number of patients: the square of the sum of weights over the sum of their squares."""
    w = np.asarray(weights, dtype=np.float64)
    return float(w.sum() ** 2 / (w**2).sum())


def _checked(y: ArrayLike, values: ArrayLike, weights: ArrayLike) -> tuple[np.ndarray, FloatArray, FloatArray]:
    events = outcomes(y, both=True)
    x, w = numbers(values, events), numbers(weights, events, "weights")
    if not (w > 0).all():
        raise UsageError("Weights must be above 0.", action="Leave out patients who do not count.")
    return events, x, w
