"""Decision curves: what acting on a signature is worth beside treating everybody or nobody (Vickers and Elkin 2006)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from feature_store.errors import TooFewPatients, UsageError
from models.evaluation.inputs import FloatArray, outcomes, probabilities


class DecisionCurve(NamedTuple):
    """Net benefit per patient at each threshold, each of shape (thresholds,); treating nobody is 0 throughout."""

    thresholds: FloatArray
    model: FloatArray
    treat_all: FloatArray


def net_benefit(y: ArrayLike, p: ArrayLike, threshold: float) -> float:
    """TP/n − FP/n · t/(1 − t), a patient counting as high-risk where p >= t. Unit: true positives a patient.

    ``y`` and ``p`` (n,); 0 < t < 1 is the risk at which acting and waiting are equally good.
    """
    return float(decision_curve(y, p, [threshold]).model[0])


def treat_all(y: ArrayLike, threshold: float) -> float:
    """Net benefit of treating everybody: prevalence − (1 − prevalence) · t/(1 − t)."""
    events = outcomes(y)
    return net_benefit(events, np.ones(events.size), threshold)


def decision_curve(y: ArrayLike, p: ArrayLike, thresholds: ArrayLike | None = None) -> DecisionCurve:
    """Net benefit over ``thresholds`` (by default 0.01 to 0.99 by 0.01). Raises TooFewPatients without patients."""
    events = outcomes(y)
    risk = probabilities(p, events)
    t = np.arange(1, 100) / 100 if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    if not events.size:
        raise TooFewPatients("No patients.", action="Net benefit needs at least one.")
    if t.size and (t.min() <= 0 or t.max() >= 1):
        raise UsageError("A threshold probability lies between 0 and 1.", action="Leave out 0 and 1 themselves.")
    odds = t / (1 - t)
    # Counting from sorted risks: how many lie at or above each threshold.
    true_high = events.sum() - np.searchsorted(np.sort(risk[events]), t, side="left")
    false_high = (~events).sum() - np.searchsorted(np.sort(risk[~events]), t, side="left")
    prevalence = float(events.mean())
    return DecisionCurve(t, (true_high - false_high * odds) / events.size, prevalence - (1 - prevalence) * odds)
