"""All measures of one signature on one held-out cohort, under the names metrics.json uses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.auc import auc, delong_ci
from models.evaluation.calibration import brier, calibration_intercept, calibration_slope
from models.evaluation.inputs import BoolArray, FloatArray, outcomes, probabilities
from models.evaluation.net_benefit import net_benefit, treat_all
from models.evaluation.proportions import bootstrap_f1, f1_score, wilson

FEWEST = 5
"""Fewer patients of the rarer outcome carry no calibration and no net benefit worth reading."""
BESIDE = ("brier", "calibration_slope", "calibration_intercept", "net_benefit", "net_benefit_treat_all")


def cohort_metrics(y: ArrayLike, p: ArrayLike, threshold: float, seed: int = 0) -> dict[str, Any]:
    """Measures of the probabilities ``p`` (n,) against the outcomes ``y`` (n,), fit for JSON.

    AUC with its interval (DeLong on the logit scale, Newcombe's at 0 and 1), accuracy, sensitivity and specificity
    at ``threshold`` with Wilson's, F1 with the bootstrap's (``seed``), Brier score, calibration slope, intercept
    with the slope fixed at 1, net benefit at ``threshold``. What does not exist in a cohort (one class only, nobody)
    is None, never NaN.
    """
    events = outcomes(y)
    risk = probabilities(p, events)
    high = risk >= threshold
    m, n = int(events.sum()), int(events.size)
    both = 0 < m < n
    f1 = f1_score(events, high)
    accuracy, accuracy_ci = _share(int((events == high).sum()), n)
    sensitivity, sensitivity_ci = _share(int((events & high).sum()), m)
    specificity, specificity_ci = _share(int((~events & ~high).sum()), n - m)
    return {
        "n": n,
        "events": m,
        "auc": auc(events, risk) if both else None,
        "auc_ci": list(delong_ci(events, risk)) if both else None,
        "accuracy": accuracy,
        "accuracy_ci": accuracy_ci,
        "sensitivity": sensitivity,
        "sensitivity_ci": sensitivity_ci,
        "specificity": specificity,
        "specificity_ci": specificity_ci,
        "f1": f1,
        "f1_ci": _listed(bootstrap_f1(events, high, seed)) if f1 is not None else None,
        **_calibration_and_worth(events, risk, threshold),
    }


def beside_auc(y: ArrayLike, p: ArrayLike, threshold: float) -> dict[str, Any]:
    """What stands beside an AUC of a part of a cohort (a site, a subgroup): ``BESIDE``, net benefit at ``threshold``.

    None, with the ``reason``, where fewer than five patients have the rarer outcome.
    """
    events = outcomes(y)
    risk = probabilities(p, events)
    if min(int(events.sum()), int((~events).sum())) < FEWEST:
        return {**dict.fromkeys(BESIDE), "reason": f"fewer than {FEWEST} patients of one outcome"}
    everybody = treat_all(events, threshold) if 0 < threshold < 1 else None
    return {**_calibration_and_worth(events, risk, threshold), "net_benefit_treat_all": everybody}


def at_threshold(y: ArrayLike, p: ArrayLike, threshold: float) -> dict[str, Any]:
    """Sensitivity and specificity with Wilson's intervals, and net benefit beside that of treating everybody."""
    events = outcomes(y)
    risk = probabilities(p, events)
    high, m = risk >= threshold, int(events.sum())
    sensitivity, sensitivity_ci = _share(int((events & high).sum()), m)
    specificity, specificity_ci = _share(int((~events & ~high).sum()), events.size - m)
    return {
        "threshold": threshold,
        "sensitivity": sensitivity,
        "sensitivity_ci": sensitivity_ci,
        "specificity": specificity,
        "specificity_ci": specificity_ci,
        "net_benefit": net_benefit(events, risk, threshold) if events.size else None,
        "net_benefit_treat_all": treat_all(events, threshold) if events.size else None,
    }


def _calibration_and_worth(events: BoolArray, risk: FloatArray, threshold: float) -> dict[str, float | None]:
    n = events.size
    return {
        "brier": brier(events, risk) if n else None,
        "calibration_slope": _finite(calibration_slope(events, risk)),
        "calibration_intercept": _finite(calibration_intercept(events, risk)),
        "net_benefit": net_benefit(events, risk, threshold) if n and 0 < threshold < 1 else None,
    }


def _share(k: int, n: int) -> tuple[float | None, list[float] | None]:
    return (k / n, list(wilson(k, n))) if n else (None, None)


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [float(np.float64(end)) for end in interval]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
