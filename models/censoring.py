"""What may have been missed: patients whose follow-up window is open or lost, and figures that make up for them.

Inverse-probability-of-censoring weights as a sensitivity analysis: the chance of having an outcome is estimated from
the clinical variables of everybody who was eligible, and those with an outcome stand for those like them without.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from feature_store.vocabulary import Partition
from models.clinical_columns import ClinicalColumns, ClinicalEncoder
from models.evaluation.auc import auc
from models.evaluation.weighted import effective_size, weighted_auc, weighted_observed_expected
from models.folds import rarer_class
from models.performance import HELD_OUT, outcome_and

Floats = NDArray[np.float64]

LARGEST = 10.0
"""Weights, which are 1 on average, are held at this, so that no single patient decides (decision 027)."""
MIN_LOST = 5


def censoring_record(
    clinical: pd.DataFrame | None,
    lost: pd.DataFrame | None,
    predictions: pd.DataFrame,
    kinds: list[str],
    windows_passed: NDArray[np.bool_] | None = None,
) -> dict[str, Any] | None:
    """``n_lost`` and, by signature and cohort, AUC and observed/expected as they are and weighted.

    ``clinical`` (n, variables) of the study's patients in the order of ``predictions``, ``lost`` of those without an
    outcome. None where nobody is lost. Fewer than five lost patients, or no clinical variables, are counted only.
    ``windows``: of how many the follow-up window has ``passed`` (lost, or not sent) and of how many it is
    ``open_or_unknown``, by ``windows_passed`` (one each); None where nothing is known of any. ``largest_weight`` is as
    it was estimated, ``n_held`` how many were held at ``held_at``; each figure says its own, and how many patients
    of equal weight its patients are worth (``effective_n``).
    """
    if lost is None or not len(lost):
        return None
    record: dict[str, Any] = {"n_lost": len(lost), "n_observed": len(predictions), "windows": None, "figures": []}
    if windows_passed is not None:
        passed = int(windows_passed.sum())
        record["windows"] = {"passed": passed, "open_or_unknown": len(lost) - passed}
    weights = None if clinical is None or len(lost) < MIN_LOST else observed_weights(clinical, lost)
    if weights is None:
        return {**record, "reason": "Too few lost patients, or no clinical variables, to weight by."}
    held = weights > LARGEST
    record |= {"largest_weight": float(weights.max()), "n_held": int(held.sum()), "held_at": LARGEST}
    for kind in kinds:
        for cohort in (Partition.TRAINING.value, *HELD_OUT):
            rows = ((predictions["partition"] == cohort) & predictions[kind].notna()).to_numpy()
            y, p = outcome_and(predictions[rows], kind)
            if rarer_class(y):
                w = np.minimum(weights[rows], LARGEST)
                record["figures"].append(
                    {
                        "signature": kind,
                        "cohort": cohort,
                        "n": len(y),
                        "effective_n": effective_size(w),
                        "largest_weight": float(weights[rows].max()),
                        "n_held": int(held[rows].sum()),
                        "auc": auc(y, p),
                        "auc_weighted": weighted_auc(y, p, w),
                        "observed_expected": float(y.sum() / p.sum()),
                        "observed_expected_weighted": weighted_observed_expected(y, p, w),
                    }
                )
    return record


def observed_weights(clinical: pd.DataFrame, lost: pd.DataFrame) -> Floats | None:
    """Stabilised weights (n,) of the observed patients: P(observed) / P(observed | clinical), by a ridge (C = 1).

    As estimated, however large. None where no clinical variable varies.
    """
    together = pd.concat([clinical, lost.reindex(columns=clinical.columns)], ignore_index=True)
    everybody = np.arange(len(together))
    columns = ClinicalColumns.from_frame(together, everybody)
    if not columns.variables:
        return None
    x = ClinicalEncoder.fit(columns, everybody).transform(columns, everybody)
    sd = x.std(axis=0)
    z = (x - x.mean(axis=0)) / np.where(sd > 0, sd, 1.0)
    observed = everybody < len(clinical)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=1.0, max_iter=1000).fit(z, observed)
    return np.asarray(observed.mean() / model.predict_proba(z[observed])[:, 1], dtype=np.float64)
