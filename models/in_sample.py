"""What a study says when an encoder was tuned to the outcomes of patients of its own cohort (DESIGN: Encoders).

Either those patients (subset A) are left out and everything is fitted on the rest (B), or, in the paper's own way,
they stay and whatever rests on the encoder has apparent training figures only: cross-validation does not help,
since the encoder has seen the outcomes of every fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from feature_store.vocabulary import Partition

DEEP_KINDS = ("dl", "combined")
APPARENT_NESTED = "apparent_nested_auc"


def sentence(said: Mapping[str, Any]) -> str:
    """For the report: which encoders, how many patients, and what was done. ``said`` as ``training_table`` gives it."""
    encoders, n = ", ".join(said["encoders"]), said["tuned_on"]
    tuned = f"Encoder {encoders} was tuned to the outcomes of {n} patients of this cohort"
    if said["handling"] == "leave_out":
        return f"{tuned} (subset A); they are left out, and everything is fitted on the disjoint others (subset B)."
    return (
        f"{tuned}, who stay in it (the paper's own way): on training patients every figure of DL-sign and of the "
        "combined model, cross-validated or not, is apparent."
    )


def label_apparent(metrics: dict[str, Any], predictions: pd.DataFrame) -> None:
    """Take from the deep signatures, in place, what would pass for honest figures of training patients.

    ``nested_auc`` becomes None and its value ``apparent_nested_auc``; rows of the classifiers' cross-validation are
    marked; out-of-fold predictions of training patients go, so that no comparison or recommendation rests on them.
    """
    for kind in DEEP_KINDS:
        entry = metrics["signatures"].get(kind)
        if entry is None:
            continue
        entry[APPARENT_NESTED], entry["nested_auc"] = entry["nested_auc"], None
        entry["cohorts"]["training"] |= dict.fromkeys(("nested_sensitivity", "nested_specificity"))
        metrics["classifiers"][kind] = [{**row, "apparent": True} for row in metrics["classifiers"][kind]]
        predictions.loc[predictions["partition"] == Partition.TRAINING.value, kind] = np.nan
