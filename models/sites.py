"""Do the signatures hold at every site: each on its own, and all of them as a sample of sites to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from feature_store.vocabulary import Partition
from models.evaluation.across_sites import back_to_auc, logit_auc, pool
from models.evaluation.auc import auc, delong_ci
from models.evaluation.calibration import calibration_intercept, calibration_slope
from models.folds import rarer_class
from models.performance import HELD_OUT, outcome_and


def per_site(predictions: pd.DataFrame, kinds: Sequence[str]) -> dict[str, Any]:
    """``held_out`` and ``training`` (nested out-of-fold), each by signature; empty where there is one site only.

    Per signature ``sites`` (n, events, AUC with interval, calibration, mean risk) and ``pooled``: the random-effects
    mean of the AUCs with the interval in which the next site's is to be expected (``prediction_interval``), None
    where fewer than two sites carry an AUC.
    """
    if predictions["site"].nunique() < 2:
        return {}
    cohorts = {"held_out": HELD_OUT, "training": (Partition.TRAINING.value,)}
    return {
        cohort: {kind: by_site(predictions[predictions["partition"].isin(parts)], kind) for kind in kinds}
        for cohort, parts in cohorts.items()
    }


def by_site(table: pd.DataFrame, kind: str) -> dict[str, Any]:
    """One signature's figures at each site of these patients, and pooled."""
    rows, estimates = [], []
    for site, members in table.dropna(subset=[kind]).groupby("site", sort=True):
        y, p = outcome_and(members, kind)
        both = rarer_class(y) > 0
        rows.append(
            {
                "site": str(site),
                "n": len(y),
                "events": int(y.sum()),
                "auc": auc(y, p) if both else None,
                "auc_ci": list(delong_ci(y, p)) if both else None,
                "calibration_slope": calibration_slope(y, p),
                "calibration_intercept": calibration_intercept(y, p),
                "mean_risk": float(p.mean()),
            }
        )
        if both and (estimate := logit_auc(y, p)) is not None:
            estimates.append(estimate)
    pooled = back_to_auc(pool(*np.transpose(estimates))) if len(estimates) > 1 else None
    return {"sites": rows, "pooled": pooled}
