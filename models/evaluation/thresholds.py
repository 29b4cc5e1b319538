"""The probability from which a patient counts as high-risk. High-risk is p >= threshold, everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from feature_store.errors import UsageError
from models.evaluation.inputs import outcomes, probabilities


def youden_threshold(y: ArrayLike, p: ArrayLike) -> float:
    """The threshold with the largest sensitivity + specificity − 1 (Youden 1950).

    ``y`` and ``p`` (n,): nested out-of-fold calibrated probabilities of training patients, never those of the
    patients that the threshold is judged on. It lies midway between two observed probabilities, so that rounding
    moves nobody across it; of equal ones it is the lowest, which misses fewest events. Raises TooFewPatients where
    ``y`` has one class.
    """
    events = outcomes(y, both=True)
    risk = probabilities(p, events)
    values = np.unique(risk)
    candidates = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2])
    sensitivity = 1 - np.searchsorted(np.sort(risk[events]), candidates, side="left") / events.sum()
    specificity = np.searchsorted(np.sort(risk[~events]), candidates, side="left") / (~events).sum()
    youden = sensitivity + specificity
    # Equal up to rounding counts as equal: 2/3 + 1/3 and 1/3 + 2/3 must tie.
    return float(candidates[np.flatnonzero(youden >= youden.max() - 1e-12)[0]])


def harm_ratio_threshold(false_alarms_per_event: float) -> float:
    """1 / (1 + r): the threshold of someone who takes r false alarms to spare one missed event.

    Source: Vickers and Elkin 2006. Raises UsageError unless r is a positive number.
    """
    if not false_alarms_per_event > 0 or not np.isfinite(false_alarms_per_event):
        raise UsageError(
            f"A harm ratio is a positive number, found {false_alarms_per_event}.",
            action="Say how many false alarms one missed event is worth.",
        )
    return 1 / (1 + false_alarms_per_event)
