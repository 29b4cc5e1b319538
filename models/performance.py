"""How good each signature and reference model is: the entries of metrics.json that are measured on patients."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.vocabulary import Partition
from models.evaluation.auc import auc, delong_paired
from models.evaluation.cohort_metrics import at_threshold, cohort_metrics
from models.evaluation.curves import curves
from models.folds import rarer_class
from models.importance import importance
from models.protocol import Development
from models.reference_models import ReferenceModel
from models.signature import AnySignature
from models.study_patients import StudyPatients

Floats = NDArray[np.float64]

HELD_OUT = (Partition.INTERNAL_VALIDATION.value, Partition.EXTERNAL_TEST.value)
"""Partitions that are judged. ``locked_test`` is not even scored: looking at it would use it up."""
ORDER = ("combined", "rad", "dl", "clinical", "size")
REFERENCE = ("clinical", "size")


def signature_metrics(
    kind: str, development: Development, predictions: pd.DataFrame, patients: StudyPatients, seed: int
) -> dict[str, Any]:
    """What it is, what it rests on, and how good it is in every cohort."""
    signature, fit = development.signatures[kind], development.crossfits[kind]
    rows = patients.rows(Partition.TRAINING)
    y = patients.y[rows]
    high = development.nested_high[kind]
    features = _features(signature, patients)
    return {
        "classifier": fit.chosen.classifier,
        "params": dict(fit.chosen.params),
        "n_features": len(features),
        "lambda": getattr(getattr(signature, "selector", None), "lambda_", None),
        "nested_auc": fit.nested_auc,
        "threshold": signature.head.threshold,
        "harm_ratio_threshold": signature.head.harm_threshold,
        "features": features,
        "cohorts": {
            "training": {
                "n": len(rows),
                "events": int(y.sum()),
                "apparent_auc": auc(y, signature.probabilities(patients.frame(rows))),
                "nested_sensitivity": float(high[y == 1].mean()),
                "nested_specificity": float((~high[y == 0]).mean()),
            },
            **held_out_metrics(predictions, kind, signature.head.threshold, seed, signature.head.harm_threshold),
        },
    }


def reference_metrics(
    model: ReferenceModel, predictions: pd.DataFrame, patients: StudyPatients, seed: int
) -> dict[str, Any]:
    """A reference model by cohort."""
    rows = patients.rows(Partition.TRAINING)
    y = patients.y[rows]
    return {
        "training": {
            "n": len(rows),
            "events": int(y.sum()),
            "apparent_auc": auc(y, model.probabilities[rows]),
            "nested_auc": auc(y, model.out_of_fold),
        },
        **held_out_metrics(predictions, model.name, model.threshold, seed),
    }


def held_out_metrics(
    predictions: pd.DataFrame, name: str, threshold: float, seed: int, declared: float | None = None
) -> dict[str, dict[str, Any]]:
    """Measures in every held-out cohort; where all patients have one outcome, ``reason`` says so.

    ``at_harm_ratio``: at the ``declared`` threshold, where there is one.
    """
    result = {}
    for cohort, table in cohorts(predictions).items():
        y, p = outcome_and(table, name)
        measured = cohort_metrics(y, p, threshold, seed)
        if declared is not None:
            measured["at_harm_ratio"] = at_threshold(y, p, declared)
        if not rarer_class(y):
            measured["reason"] = "All patients here have the same outcome: there is no AUC."
        result[cohort] = measured
    return result


def all_curves(predictions: pd.DataFrame, names: list[str]) -> dict[str, dict[str, Any]]:
    """Calibration and decision curves by model and cohort; training is nested out-of-fold,
    with the calibration that was fitted to it."""
    training = predictions[predictions["partition"] == Partition.TRAINING.value]
    places = {"training": training} | {n: t for n, t in cohorts(predictions).items() if "/" not in n}
    return {
        name: {
            cohort: curves(*outcome_and(table, name), held_out=cohort != "training")
            for cohort, table in places.items()
            if table[name].notna().all()
        }
        for name in names
    }


def delong(predictions: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Paired differences on held-out patients only: on training patients one model would know the other's."""
    order = [name for name in ORDER if name in names]
    rows = []
    for cohort, table in cohorts(predictions).items():
        y = table["outcome"].to_numpy(dtype=np.int64)
        if "/" in cohort or not rarer_class(y):
            continue
        for a, b in combinations(order, 2):
            if a in REFERENCE:
                continue
            difference, ci, p = delong_paired(y, table[a].to_numpy(dtype=float), table[b].to_numpy(dtype=float))
            rows.append({"a": a, "b": b, "cohort": cohort, "auc_difference": difference, "ci": list(ci), "p": p})
    return rows


def cohorts(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Held-out cohorts that have patients; external sites also one by one where there are several."""
    found = {name: predictions[predictions["partition"] == name] for name in HELD_OUT}
    external = found[Partition.EXTERNAL_TEST]
    sites = sorted(external["site"].unique())
    if len(sites) > 1:
        found.update({f"{Partition.EXTERNAL_TEST}/{site}": external[external["site"] == site] for site in sites})
    return {name: table for name, table in found.items() if len(table)}


def outcome_and(table: pd.DataFrame, name: str) -> tuple[NDArray[np.int64], Floats]:
    """Outcomes and a model's probabilities of these patients."""
    return table["outcome"].to_numpy(dtype=np.int64), table[name].to_numpy(dtype=np.float64)


def _features(signature: AnySignature, patients: StudyPatients) -> list[dict[str, Any]]:
    """Selected features with their LASSO coefficients; the combined model's inputs with their importance."""
    selector = getattr(signature, "selector", None)
    if selector is not None:
        pairs = zip(selector.names, selector.coefficients, strict=True)
        return [{"name": name, "coefficient": float(value)} for name, value in sorted(pairs, key=lambda p: -abs(p[1]))]
    linear = getattr(signature.head.estimator, "coef_", None)
    weights = dict(importance(signature, patients))
    inputs = getattr(signature, "stack").names  # noqa: B009 - the combined signature's, not the protocol's
    coefficients = dict(zip(inputs, np.ravel(linear), strict=True)) if linear is not None else {}
    return [{"name": n, "coefficient": coefficients.get(n), "importance": w} for n, w in weights.items()]
