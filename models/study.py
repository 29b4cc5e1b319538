"""A whole study: from tables to signatures, metrics, predictions and what the report draws."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from feature_store.vocabulary import Partition
from models.baseline import baseline_table
from models.classifiers import check_classifier
from models.evaluation.auc import auc, delong_paired
from models.evaluation.cohort_metrics import cohort_metrics
from models.folds import check_enough, rarer_class, stratified_folds
from models.in_sample import label_apparent
from models.leakage import leakage_check
from models.protocol import Development, develop
from models.reference_models import ReferenceModel, clinical_model, size_model
from models.selection.repeatability import robust_radiomics
from models.signature import MAX_MISSING, AnySignature
from models.study_figures import figure_data, importance
from models.study_patients import StudyPatients
from models.study_result import StudyResult
from models.study_settings import AUTO, StudySettings
from models.study_tables import StudyTables
from models.surgeons import surgeon_metrics

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Progress = Callable[[str, float], None]

HELD_OUT = (Partition.INTERNAL_VALIDATION.value, Partition.EXTERNAL_TEST.value)
"""Partitions that are judged. ``locked_test`` is not even scored: looking at it would use it up."""


def run_study(tables: StudyTables, settings: StudySettings, progress: Progress | None = None) -> StudyResult:
    """Runs the protocol on training patients, then judges the frozen result on all others.

    ``progress(stage, fraction)`` is called as work is done. TooFewPatients where training cannot carry nested
    cross-validation, FeatureTableError where a table has nothing usable, SettingsError for an unknown classifier.
    """
    for fixed in settings.classifiers.values():
        if fixed != AUTO:
            check_classifier(fixed)
    study, original = tables.with_distinct_names().in_order()
    warnings = list(study.warnings)
    check_enough(study.outcome[study.rows(Partition.TRAINING)])
    with threadpool_limits(1):
        robust = robust_radiomics(study, settings.robustness_rule())
        warnings.extend(robust.notes)
        patients = StudyPatients.from_tables(study, robust.table)
        warnings.extend(_mostly_missing(patients))
        training = patients.training()
        folds = stratified_folds(training.y, settings.n_folds, settings.seed)
        development = develop(training, folds, settings, progress=progress)
        references = _references(patients, folds)
        predictions = _predictions(study, patients, development, references)
        permuted = _permuted(patients, development, settings, progress)
        metrics = {
            "signatures": {
                kind: _signature_metrics(kind, development, predictions, patients, settings)
                for kind in development.signatures
            },
            "classifiers": {kind: fit.table for kind, fit in development.crossfits.items()},
            "baselines": {m.name: _reference_metrics(m, predictions, patients, settings) for m in references},
            "delong": _delong(predictions, [*development.signatures, *(m.name for m in references)]),
            "clinical": development.clinical,
            "surgeons": surgeon_metrics(study, predictions, development.signatures),
            **({"robustness": robust.record} if robust.record is not None else {}),
            "baseline_table": baseline_table(study.clinical, patients.partition, patients.y),
            "leakage_check": permuted[0],
            **({"in_sample": study.in_sample} if study.in_sample is not None else {}),
        }
        if study.in_sample is not None and study.in_sample["handling"] == "apparent":
            label_apparent(metrics, predictions)
        figures = figure_data(development, patients, settings, permuted[1])
    return StudyResult(
        settings=settings,
        signatures=development.signatures,
        metrics=plain(metrics),
        predictions=predictions.iloc[np.argsort(original)].reset_index(drop=True),
        figure_data=figures,
        warnings=[*warnings, *development.warnings],
        failures=[{"signature": kind, **f} for kind, fit in development.crossfits.items() for f in fit.failures],
    )


def _mostly_missing(patients: StudyPatients) -> list[str]:
    """A sentence for each source of which patients lack most values; they stay in, with training medians."""
    notes = []
    for name, matrix in (("radiomics", patients.radiomics), ("deep", patients.deep)):
        if matrix is not None:
            lacking = int((np.isnan(matrix.values).mean(axis=1) > MAX_MISSING).sum())
            if lacking:
                notes.append(f"{lacking} patients lack most {name} features; training medians stand in for them.")
    return notes


def _references(patients: StudyPatients, folds: Ints) -> list[ReferenceModel]:
    rows = patients.rows(Partition.TRAINING)
    y = patients.y[rows]
    size = size_model(patients.radiomics, rows, y, folds) if patients.radiomics is not None else None
    clinical = clinical_model(patients.clinical, rows, y, folds) if patients.clinical is not None else None
    return [model for model in (size, clinical) if model is not None]


def _predictions(
    study: StudyTables, patients: StudyPatients, development: Development, references: list[ReferenceModel]
) -> pd.DataFrame:
    """Nested out-of-fold probabilities for training, the frozen signatures' for the held-out, NaN for locked_test."""
    table = study.patients[["site", "patient_id", "partition", "outcome"]].copy()
    training = patients.rows(Partition.TRAINING)
    held_out = np.flatnonzero(np.isin(patients.partition, HELD_OUT))
    for kind, signature in development.signatures.items():
        column = np.full(len(table), np.nan)
        column[training] = development.out_of_fold[kind]
        if len(held_out):
            column[held_out] = signature.probabilities(patients.frame(held_out))
        table[kind] = column
    for model in references:
        column = np.full(len(table), np.nan)
        column[training], column[held_out] = model.out_of_fold, model.probabilities[held_out]
        table[model.name] = column
    return table


def _signature_metrics(
    kind: str, development: Development, predictions: pd.DataFrame, patients: StudyPatients, settings: StudySettings
) -> dict[str, Any]:
    signature, fit = development.signatures[kind], development.crossfits[kind]
    rows = patients.rows(Partition.TRAINING)
    features = _features(signature, patients)
    apparent = auc(patients.y[rows], signature.probabilities(patients.frame(rows)))
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
            "training": {"n": len(rows), "events": int(patients.y[rows].sum()), "apparent_auc": apparent},
            **_held_out_metrics(predictions, kind, signature.head.threshold, settings),
        },
    }


def _features(signature: AnySignature, patients: StudyPatients) -> list[dict[str, Any]]:
    """Selected features with their LASSO coefficients; the combined model's inputs with their importance."""
    selector = getattr(signature, "selector", None)
    if selector is not None:
        pairs = zip(selector.names, selector.coefficients, strict=True)
        return [{"name": name, "coefficient": float(value)} for name, value in sorted(pairs, key=lambda p: -abs(p[1]))]
    linear = getattr(signature.head.estimator, "coef_", None)
    names = [name for name, _ in importance(signature, patients)]
    inputs = getattr(signature, "stack").names  # noqa: B009 - the combined signature's, not the protocol's
    weights = dict(importance(signature, patients))
    coefficients = dict(zip(inputs, np.ravel(linear), strict=True)) if linear is not None else {}
    return [{"name": n, "coefficient": coefficients.get(n), "importance": weights[n]} for n in names]


def _reference_metrics(
    model: ReferenceModel, predictions: pd.DataFrame, patients: StudyPatients, settings: StudySettings
) -> dict[str, Any]:
    rows = patients.rows(Partition.TRAINING)
    y = patients.y[rows]
    return {
        "training": {
            "n": len(rows),
            "events": int(y.sum()),
            "apparent_auc": auc(y, model.probabilities[rows]),
            "nested_auc": auc(y, model.out_of_fold),
        },
        **_held_out_metrics(predictions, model.name, model.threshold, settings),
    }


def _held_out_metrics(
    predictions: pd.DataFrame, name: str, threshold: float, settings: StudySettings
) -> dict[str, dict[str, Any]]:
    result = {}
    for cohort, table in _cohorts(predictions).items():
        y = table["outcome"].to_numpy(dtype=np.int64)
        measured = cohort_metrics(y, table[name].to_numpy(dtype=np.float64), threshold, settings.seed)
        if not rarer_class(y):
            measured["reason"] = "All patients here have the same outcome: there is no AUC."
        result[cohort] = measured
    return result


def _cohorts(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Held-out cohorts that have patients; external sites also one by one where there are several."""
    cohorts = {name: predictions[predictions["partition"] == name] for name in HELD_OUT}
    external = cohorts[Partition.EXTERNAL_TEST]
    sites = sorted(external["site"].unique())
    if len(sites) > 1:
        cohorts.update({f"{Partition.EXTERNAL_TEST}/{site}": external[external["site"] == site] for site in sites})
    return {name: table for name, table in cohorts.items() if len(table)}


def _delong(predictions: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Paired differences on held-out patients only: on training patients one model would know the other's."""
    order = [name for name in ("combined", "rad", "dl", "clinical", "size") if name in names]
    rows = []
    for cohort, table in _cohorts(predictions).items():
        y = table["outcome"].to_numpy(dtype=np.int64)
        if "/" in cohort or not rarer_class(y):
            continue
        for a, b in combinations(order, 2):
            if a in ("clinical", "size"):
                continue
            difference, ci, p = delong_paired(y, table[a].to_numpy(dtype=float), table[b].to_numpy(dtype=float))
            rows.append({"a": a, "b": b, "cohort": cohort, "auc_difference": difference, "ci": list(ci), "p": p})
    return rows


def _permuted(
    patients: StudyPatients, development: Development, settings: StudySettings, progress: Progress | None
) -> tuple[dict[str, Any], list[float]]:
    kind = next((k for k in ("combined", "rad", "dl") if k in development.signatures), None)
    if kind is None or not settings.permutations:
        reason = "No signature was made." if kind is None else "No permutations were asked for."
        nothing = dict.fromkeys(("passed", "cohort", "permuted_auc_mean", "permuted_auc_ci"))
        return {**nothing, "signature": kind, "n_permutations": 0, "reason": reason}, []
    report = None if progress is None else (lambda fraction: progress("leakage check", fraction))
    check = leakage_check(patients, kind, settings, report)
    return check.metrics, check.aucs


def plain(value: Any) -> Any:
    """Plain Python values only, fit for JSON: NumPy numbers converted, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.bool_ | bool):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
