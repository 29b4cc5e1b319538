"""Whether a study is large enough, said before it is trained, and how sharp its validation can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from feature_store.vocabulary import Partition
from models.clinical_columns import MARKING, ClinicalColumns, ClinicalVariable
from models.evaluation.inputs import logit
from models.evaluation.sample_size import (
    development_size,
    expected_shrinkage,
    expected_widths,
    highest_r2,
    parameters_allowed,
    r2_of_auc,
    validation_size,
)
from models.folds import rarer_class
from models.performance import HELD_OUT
from models.protocol import TrainingPatients
from models.recommendation import area
from models.selection.scaling import usable_columns

ASSUMED_AUC = 0.75
ASSUMED_SHARE = 0.15
"""Nagelkerke R² that Riley takes where nothing is known."""


def development_record(training: TrainingPatients) -> dict[str, Any]:
    """Riley's criteria for developing a model on these patients; nothing of the results is used.

    Candidate parameters are all that are looked at: usable radiomics and deep columns and clinical terms. Selection
    with a penalty is not what the criteria were made for; they say what unpenalised estimates would need.
    """
    y = training.y
    prevalence = float(y.mean())
    candidates = {
        name: len(usable_columns(matrix.values).columns)
        for name, matrix in (("radiomics", training.radiomics), ("deep", training.deep))
        if matrix is not None
    }
    if training.clinical is not None:
        candidates["clinical"] = sum(_terms(training.clinical, v) for v in training.clinical.variables)
    assumed = {
        f"AUC {ASSUMED_AUC}": r2_of_auc(ASSUMED_AUC, prevalence),
        f"Nagelkerke R² {ASSUMED_SHARE}": ASSUMED_SHARE * highest_r2(prevalence),
    }
    return {
        "n": len(y),
        "events": int(y.sum()),
        "candidate_parameters": {**candidates, "total": sum(candidates.values())},
        "events_per_parameter": rarer_class(y) / max(1, sum(candidates.values())),
        "criteria": [_criteria(name, r2, sum(candidates.values()), len(y), prevalence) for name, r2 in assumed.items()],
    }


def _terms(clinical: ClinicalColumns, variable: ClinicalVariable) -> int:
    """How many terms the variable may have, that of missing values included."""
    found = set(clinical.values[variable.name])
    own = 1 if variable.kind != "categorical" else max(1, len(found - {None}) - 1)
    return own + (None in found and clinical.policy(variable) in MARKING)


def _criteria(name: str, r2: float, parameters: int, n: int, prevalence: float) -> dict[str, Any]:
    size = development_size(max(1, parameters), r2, prevalence)
    return {
        "assumed": name,
        "r2_cox_snell": r2,
        "needed": size.needed,
        "needed_shrinkage": size.shrinkage,
        "needed_optimism": size.optimism,
        "needed_mean_risk": size.mean_risk,
        "expected_shrinkage": expected_shrinkage(n, max(1, parameters), r2),
        "parameters_allowed": parameters_allowed(n, r2),
    }


def validation_record(predictions: pd.DataFrame, kinds: list[str]) -> list[dict[str, Any]]:
    """Riley's criteria for external validation, a row a signature and held-out cohort.

    Assumed are the signature's nested AUC and out-of-fold log-odds in training, and the cohort's own prevalence;
    ``expected_widths`` are of the 95 % intervals that so many patients give.
    """
    rows = []
    for kind in kinds:
        own = predictions[predictions["partition"] == Partition.TRAINING.value].dropna(subset=[kind])
        if not rarer_class(own["outcome"].to_numpy()):
            continue
        nested = area(predictions, kind)
        log_odds = logit(own[kind].to_numpy(dtype=np.float64))
        for cohort in HELD_OUT:
            outcome = predictions.loc[predictions["partition"] == cohort, "outcome"].to_numpy()
            if nested is None or nested <= 0.5 or not rarer_class(outcome) or np.ptp(log_odds) < 1e-6:
                continue
            prevalence = float(outcome.mean())
            size = validation_size(nested, prevalence, log_odds)
            rows.append(
                {
                    "signature": kind,
                    "cohort": cohort,
                    "n": len(outcome),
                    "needed": size.needed,
                    "needed_observed_expected": size.observed_expected,
                    "needed_calibration_slope": size.calibration_slope,
                    "needed_auc": size.auc,
                    "expected_widths": expected_widths(len(outcome), nested, prevalence, log_odds),
                }
            )
    return rows
