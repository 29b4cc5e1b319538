"""Do the signatures hold at every site: each on its own, and all of them as a sample of sites to come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from feature_store.vocabulary import Partition
from models.evaluation.across_sites import back_to_auc, logit_auc, pool
from models.evaluation.auc import auc, delong_ci
from models.evaluation.cohort_metrics import beside_auc
from models.folds import rarer_class
from models.performance import HELD_OUT, outcome_and


def per_site(predictions: pd.DataFrame, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """``held_out`` and ``training`` (nested out-of-fold), each by signature; empty where there is one site only.

    ``thresholds``: of each signature and reference model. Per signature ``sites`` (n, events, AUC with interval, what
    stands beside it, mean risk) and ``pooled``: the random-effects mean of the AUCs with the interval in which the next
    site's is to be expected (``prediction_interval``), None where fewer than two sites carry an AUC. Thresholds and
    calibration were taken from the training patients' own predictions; only elsewhere they are put to the test.
    """
    if predictions["site"].nunique() < 2:
        return {}
    names = predictions["site"].astype(str).unique()
    cohorts = {"held_out": HELD_OUT, "training": (Partition.TRAINING.value,)}
    return {
        cohort: {
            kind: by_site(predictions[predictions["partition"].isin(parts)], kind, dict.fromkeys(names, threshold))
            for kind, threshold in thresholds.items()
        }
        for cohort, parts in cohorts.items()
    }


def by_site(table: pd.DataFrame, kind: str, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """One signature's figures at each site of these patients, by the threshold used there, and pooled."""
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
                **beside_auc(y, p, thresholds[str(site)]),
                "mean_risk": float(p.mean()),
            }
        )
        if both and (estimate := logit_auc(y, p)) is not None:
            estimates.append(estimate)
    pooled = back_to_auc(pool(*np.transpose(estimates))) if len(estimates) > 1 else None
    return {"sites": rows, "pooled": pooled}
