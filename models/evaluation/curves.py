"""A signature's calibration and decision curves on one cohort as plain lists, for metrics.json."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.calibration import calibration_curve, calibration_slope_ci, hosmer_lemeshow
from models.evaluation.inputs import outcomes
from models.evaluation.net_benefit import decision_curve

POINTS = 21
THRESHOLDS = np.arange(2, 100, 2) / 100


def curves(y: ArrayLike, p: ArrayLike, *, held_out: bool = True) -> dict[str, Any]:
    """``calibration`` (flexible, with its pointwise band), ``hosmer_lemeshow`` and ``decision``.

    ``held_out``: whether ``p`` was calibrated without these patients. Each is None where it does not exist (one class
    only, a constant prediction, nobody).
    """
    events = outcomes(y)
    flexible = calibration_curve(events, p, points=POINTS) if events.size else None
    groups = hosmer_lemeshow(events, p, held_out=held_out)
    slope = calibration_slope_ci(events, p)
    decision = decision_curve(events, p, THRESHOLDS) if events.size else None
    return {
        "calibration": None if flexible is None else {k: v.tolist() for k, v in flexible._asdict().items()},
        "calibration_slope_ci": None if slope is None else list(slope),
        "hosmer_lemeshow": None if groups is None else groups._asdict(),
        "decision": None if decision is None else {k: v.tolist() for k, v in decision._asdict().items()},
    }
