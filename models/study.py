"""A whole study: from tables to signatures, metrics, predictions and what the report draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from feature_store.vocabulary import Partition
from models.ablation import ablation
from models.baseline import baseline_table
from models.bootstraps import add_intervals, bootstrap_notes, bootstrap_record, with_bootstraps
from models.censoring import censoring_record
from models.classifiers import check_classifier
from models.data_checks import (
    batch_like,
    copies,
    heavy_tailed,
    not_external,
    scales_by_site,
    sentences,
    twins,
    uneven_sites,
)
from models.folds import check_enough, stratified_folds
from models.harmonisation_effect import harmonisation_effect
from models.in_sample import label_apparent
from models.incident import incident_record
from models.leakage import leakage_check
from models.missing_values import missing_record, settle_missing
from models.performance import HELD_OUT, all_curves, delong, reference_metrics, signature_metrics
from models.protocol import Development, develop
from models.provenance import structural_check
from models.recommendation import recommend
from models.reference_models import ReferenceModel, clinical_model, size_model
from models.repetitions import leave_one_site_out, repeated_nested
from models.selection.repeatability import robust_radiomics
from models.shapley import shap_record
from models.signature import MAX_MISSING
from models.sites import per_site
from models.spread import OnCores, Spread
from models.study_figures import figure_data, flow_steps
from models.study_patients import StudyPatients
from models.study_result import StudyResult
from models.study_settings import AUTO, StudySettings
from models.study_size import development_record, validation_record
from models.study_tables import ONE_SITE, StudyTables
from models.subgroups import subgroups
from models.surgeons import surgeon_metrics
from models.telling_columns import telling_columns

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Progress = Callable[[str, float], None]

CALLED = {"rad": "Rad-sign", "dl": "DL-sign", "combined": "The combined model"}


def run_study(
    tables: StudyTables, settings: StudySettings, progress: Progress | None = None, spread: Spread | None = None
) -> StudyResult:
    """Runs the protocol on training patients, then judges the frozen result on all others.

    ``progress(stage, fraction)`` is called as work is done. ``spread`` is where fits are carried out (by default on
    ``n_jobs`` cores of this machine) and changes no result. TooFewPatients where training cannot carry nested
    cross-validation, FeatureTableError where a table has nothing usable, SettingsError for an unknown classifier;
    both also as ``settle_missing``.
    """
    for fixed in settings.classifiers.values():
        if fixed != AUTO:
            check_classifier(fixed)
    study, original = settle_missing(tables.with_distinct_names(), settings.missing_values).in_order()
    warnings = list(study.warnings)
    check_enough(study.outcome[study.rows(Partition.TRAINING)])
    spread = spread or OnCores(settings.n_jobs)
    with threadpool_limits(1):
        robust = robust_radiomics(study, settings.robustness_rule())
        warnings.extend(robust.notes)
        patients = StudyPatients.from_tables(study, robust.table, settings.missing_values)
        warnings.extend(_mostly_missing(patients))
        training = patients.training()
        size = development_record(training)
        settings = settings.for_patients(len(training.y))
        folds = stratified_folds(training.y, settings.n_folds, settings.seed)
        structure = structural_check(study, patients, training, folds)
        development = develop(training, folds, settings, progress=progress, spread=spread)
        references = _references(patients, folds)
        predictions = _predictions(study, patients, development, references)
        thresholds = {kind: signature.head.threshold for kind, signature in development.signatures.items()}
        thresholds |= {model.name: model.threshold for model in references}
        names = list(thresholds)
        checks = _data_checks(patients, development, predictions)
        permuted = _permuted(patients, development, settings, progress, spread)
        explained, contributions = shap_record(patients, development, settings.seed)
        metrics = {
            "signatures": {
                kind: signature_metrics(kind, development, predictions, patients, settings.seed)
                for kind in development.signatures
            },
            "classifiers": {kind: fit.table for kind, fit in development.crossfits.items()},
            "baselines": {m.name: reference_metrics(m, predictions, patients, settings.seed) for m in references},
            "delong": delong(predictions, names),
            "clinical": development.clinical,
            "surgeons": surgeon_metrics(study, predictions, development.signatures, settings.seed),
            **({"robustness": robust.record} if robust.record is not None else {}),
            "baseline_table": baseline_table(study.clinical, patients.partition, patients.y),
            "leakage_check": {**permuted[0], "structural": structure},
            "curves": all_curves(predictions, names),
            "sites": per_site(predictions, thresholds),
            "subgroups": subgroups(patients.clinical, predictions, {k: thresholds[k] for k in development.signatures}),
            "ablation": ablation(patients, development, predictions, settings, spread) if settings.ablation else [],
            "data_checks": checks,
            "repeated_nested": repeated_nested(patients, development, settings, progress, spread),
            "leave_one_site_out": leave_one_site_out(patients, settings, progress, spread),
            "flow": flow_steps(study.flow, patients.partition),
            "sample_size": {
                "development": size,
                "external_validation": validation_record(predictions, list(development.signatures)),
            },
            "missing_values": missing_record(study, patients.clinical, patients.rows(Partition.TRAINING)),
            "censoring": censoring_record(study.clinical, study.lost, predictions, names, study.windows_passed),
            "incident": incident_record(study.patients.get("incident"), predictions, names),
            "harmonisation": harmonisation_effect(patients, development, settings),
            "shap": explained,
            **({"in_sample": study.in_sample} if study.in_sample is not None else {}),
            **({"phantom": True} if study.of_phantoms else {}),
        }
        if study.in_sample is not None and study.in_sample["handling"] == "apparent":
            label_apparent(metrics, predictions)
        choice = recommend(predictions)
        metrics["recommendation"] = None if choice is None else choice._asdict()
        warnings.extend([*development.warnings, *sentences(checks, CALLED)])
        warnings.extend(_not_used(patients, study, development))
        signatures = development.signatures
        if settings.bootstraps and signatures:
            signatures = with_bootstraps(signatures, training, settings, progress, spread)
            add_intervals(predictions, signatures, patients)
            metrics["bootstraps"] = bootstrap_record(settings)
            warnings.extend(bootstrap_notes(settings))
        metrics["warnings"] = warnings
        figures = figure_data(development, patients, settings, permuted[1], study.flow, study.sources)
        figures["shap"] = contributions
    return StudyResult(
        settings=settings,
        signatures=signatures,
        metrics=plain(metrics),
        predictions=predictions.iloc[np.argsort(original)].reset_index(drop=True),
        figure_data=figures,
        warnings=warnings,
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


def _not_used(patients: StudyPatients, study: StudyTables, development: Development) -> list[str]:
    """Sentences on clinical variables that could not be used, and on a study that makes no signature."""
    used = {variable.name for variable in patients.clinical.variables} if patients.clinical is not None else set()
    names = [str(column) for column in (() if study.clinical is None else study.clinical) if str(column) not in used]
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    notes = []
    if names:
        notes.append(
            f"Clinical variables that are not used: {listed} (one value only, or text that hardly two patients share)."
        )
    if not development.signatures:
        notes.append("No signature was made: clinical variables alone make none. Their own model is in the report.")
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


def _data_checks(patients: StudyPatients, development: Development, predictions: pd.DataFrame) -> dict[str, Any]:
    training = patients.rows(Partition.TRAINING)
    checks: dict[str, Any] = {"heavy_tailed": {}, "batch_like": {}}
    for source, matrix in (("radiomics", patients.radiomics), ("deep", patients.deep)):
        if matrix is not None:
            kind = "rad" if source == "radiomics" else "dl"
            # A DL-sign takes every column: none of them is selected.
            selected = development.signatures[kind].features if kind == "rad" else []
            checks["heavy_tailed"][source] = heavy_tailed(matrix, training)
            checks["batch_like"][source] = batch_like(matrix, training, patients.scanner, selected)
    matrices = (patients.radiomics, patients.deep)
    checks["copies"] = copies(patients.partition, *matrices)
    checks["twins"] = twins(training, *matrices)
    checks["not_external"] = not_external(patients.partition, patients.site, ONE_SITE)
    checks["uneven_sites"] = uneven_sites(patients.y[training], patients.site[training])
    checks["columns"] = telling_columns(patients.y, training, matrices, patients.clinical)
    checks["scales"] = {kind: scales_by_site(predictions, kind, ONE_SITE) for kind in development.signatures}
    return checks


def _permuted(
    patients: StudyPatients,
    development: Development,
    settings: StudySettings,
    progress: Progress | None,
    spread: Spread,
) -> tuple[dict[str, Any], list[float]]:
    kind = next((k for k in ("combined", "rad", "dl") if k in development.signatures), None)
    if kind is None or not settings.permutations:
        reason = "No signature was made." if kind is None else "No permutations were asked for."
        nothing = dict.fromkeys(("passed", "cohort", "permuted_auc_mean", "permuted_auc_ci"))
        return {**nothing, "signature": kind, "n_permutations": 0, "reason": reason}, []
    report = None if progress is None else (lambda fraction: progress("leakage check", fraction))
    check = leakage_check(patients, kind, settings, report, spread)
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
