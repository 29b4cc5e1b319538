"""What every measure takes, checked once: outcomes of 0 and 1, and as many numbers beside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_store.errors import TooFewPatients, UsageError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Interval = tuple[float, float]


def outcomes(y: ArrayLike, *, both: bool = False) -> BoolArray:
    """``y`` (n,) of 0 and 1 as booleans.

    Raises UsageError on anything else and, with ``both``, TooFewPatients where one class is missing.
    """
    array = np.asarray(y)
    if array.ndim != 1:
        raise UsageError(f"Outcomes must be one-dimensional, found shape {array.shape}.", action="Pass one a patient.")
    if array.dtype != np.bool_:
        array = np.asarray(array, dtype=np.float64)
        if not np.isin(array, (0.0, 1.0)).all():
            raise UsageError("Outcomes must be 0 or 1.", action="Leave out patients without an outcome.")
    events = array.astype(np.bool_)
    if both and (events.all() or not events.any()):
        raise TooFewPatients(
            f"All {events.size} outcomes are of one class.", action="This measure needs events and non-events."
        )
    return events


def numbers(values: ArrayLike, like: BoolArray, name: str = "scores") -> FloatArray:
    """``values`` (n,) as float64, as many as ``like`` has and none of them NaN; UsageError otherwise."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != like.shape:
        raise UsageError(
            f"{array.shape} {name} for {like.shape} outcomes.", action="Pass one of each a patient, in the same order."
        )
    missing = int(np.isnan(array).sum())
    if missing:
        raise UsageError(f"{missing} of {array.size} {name} are NaN.", action="Leave out patients without a score.")
    return array


def probabilities(values: ArrayLike, like: BoolArray) -> FloatArray:
    """As :func:`numbers`, and within 0 to 1."""
    array = numbers(values, like, "probabilities")
    if array.size and (array.min() < 0 or array.max() > 1):
        raise UsageError("Probabilities must lie within 0 to 1.", action="Pass calibrated probabilities, not scores.")
    return array


def logit(p: FloatArray) -> FloatArray:
    """Log odds, with probabilities held 1e-12 away from 0 and 1 so that a certain prediction stays finite."""
    held = np.clip(p, 1e-12, 1 - 1e-12)
    return np.log(held) - np.log1p(-held)
