"""Writes a study's report: metrics.json, predictions.parquet, figures, and the one HTML page that holds it all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from feature_store.vocabulary import RESEARCH_USE, is_phantom
from models.evaluation.calibration import hosmer_lemeshow
from models.in_sample import APPARENT_NESTED
from models.recommendation import recommend
from models.report import breakdown_tables, sensitivity_tables, tables
from models.report.evidence import checklists, model_cards
from models.report.figure_data import ReportableStudy
from models.report.figures import draw
from models.report.headline import because, patients_of, warnings_of
from models.report.limits import limits_of
from models.report.style import PARTITIONS, cohort_name, model_name, shown
from models.report.tables import DASH, Table, number, ordered, with_ci


def write_report(
    result: ReportableStudy,
    out_dir: Path,
    title: str,
    *,
    phantom: bool | None = None,
    meaning: Callable[[str], str] | None = None,
) -> Path:
    """Writes the four parts of a report into ``out_dir`` (made if absent, files replaced); returns report.html.

    ``phantom`` says on every page and in every figure that the patients are made up; by default their ids say so.
    ``meaning`` says what a radiomics feature measures, in words, or "" (``pipelines.radiomics.feature_docs``).
    The page needs nothing beside it: styles and figures are inside, and there is no script. Not for threads:
    matplotlib's settings are changed while drawing.
    """
    write_results(result, out_dir)
    if phantom is None:
        phantom = any(map(is_phantom, result.predictions["patient_id"].astype(str)))
    figures = draw(result, out_dir / "figures", phantom=phantom)

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files(__package__).joinpath("report.html.j2").read_text("utf-8"))
    page = out_dir / "report.html"
    page.write_text(
        template.render(
            title=title,
            phantom=phantom,
            figures=figures,
            cards_of=model_cards(result, phantom=phantom),
            checklists=checklists(result, title),
            **_context(result, meaning),
            **_sensitivity(result.metrics),
        ),
        encoding="utf-8",
    )
    return page


def write_results(result: ReportableStudy, out_dir: Path) -> None:
    """Writes what programs read, metrics.json and predictions.parquet, into ``out_dir`` (made if absent)."""
    out_dir.mkdir(parents=True, exist_ok=True)
    metrics = json.dumps(_json_safe(result.metrics), indent=2, ensure_ascii=False, allow_nan=False)
    (out_dir / "metrics.json").write_text(metrics + "\n", encoding="utf-8")
    result.predictions.to_parquet(out_dir / "predictions.parquet", index=False)


def _context(result: ReportableStudy, meaning: Callable[[str], str] | None) -> dict[str, Any]:
    metrics, data = result.metrics, result.figure_data
    signatures = metrics.get("signatures", {})
    kinds = ordered(signatures)
    first = recommend(result.predictions)
    choice = first if first is not None and first.above_chance else None
    rows = metrics.get("baseline_table") or []
    facts = {str(name): str(value) for name, value in data.get("facts", {}).items()}
    return {
        "research_use": RESEARCH_USE,
        "kinds": kinds,
        "names": {kind: model_name(kind) for kind in [*kinds, *metrics.get("classifiers", {})]},
        "patients": patients_of(result.predictions),
        "warnings": warnings_of(result),
        "limits": limits_of(result),
        "none_fit": first is not None and choice is None,
        "recommended": choice and {"name": model_name(choice.kind), "reason": because(choice)},
        "cards": [_card(kind, signatures[kind], choice is not None and choice.kind == kind) for kind in kinds],
        "baseline": tables.baseline(rows),
        "baseline_tests": tables.tests_used(rows),
        "robustness": metrics.get("robustness") or {},
        "robustness_rules": tables.robustness(metrics.get("robustness") or {}),
        "filters": tables.filters(data.get("filters", {})),
        "features": {
            kind: tables.features(
                signatures[kind].get("features", ()),
                {row["name"]: row["importance"] for row in data.get("importance", {}).get(kind, ())},
                meaning,
            )
            for kind in kinds
        },
        "components": [kind for kind in kinds if tables.components(signatures[kind].get("features", ()))],
        "classifiers": {kind: tables.classifiers(table) for kind, table in metrics.get("classifiers", {}).items()},
        "nested_choice": _nested_choice(data.get("nested_choice", {})),
        "training": tables.training(signatures),
        "performance": tables.performance(signatures),
        "declared": tables.declared(signatures),
        "hosmer_lemeshow": _hosmer_lemeshow(result, kinds),
        "references": tables.references(metrics.get("baselines") or {}),
        "delong": tables.delong(metrics.get("delong") or ()),
        "clinical": tables.clinical(metrics.get("clinical") or ()),
        "agreement": tables.agreement(metrics.get("surgeons") or {}),
        "surgeons": tables.surgeons(metrics.get("surgeons") or {}),
        "matched": tables.matched(metrics.get("surgeons") or {}),
        "ablation": breakdown_tables.judged_cohorts(metrics.get("ablation") or ()),
        "sites": breakdown_tables.sites((metrics.get("sites") or {}).get("held_out") or {}),
        "subgroups": {kind: breakdown_tables.subgroups(metrics.get("subgroups") or (), kind) for kind in kinds},
        "leakage": _leakage(metrics.get("leakage_check") or {}),
        "failures": tables.Table(
            list(result.failures[0]) if result.failures else [], [list(row.values()) for row in result.failures], 9
        ),
        "facts": tables.flat(facts),
        "settings": tables.flat(result.settings.model_dump() if hasattr(result.settings, "model_dump") else {}),
    }


def _sensitivity(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the figures depend on; every table is empty where the run has no such record."""
    size = metrics.get("sample_size") or {}
    left_out = metrics.get("leave_one_site_out") or {}
    return {
        "size": size.get("development") or {},
        "candidates": sensitivity_tables.candidates(size.get("development") or {}),
        "development_size": sensitivity_tables.development_size(size.get("development") or {}),
        "validation_size": sensitivity_tables.validation_size(size.get("external_validation") or ()),
        "missing": sensitivity_tables.missing_values(metrics.get("missing_values") or ()),
        "shap": metrics.get("shap") or {},
        "shap_table": sensitivity_tables.shap(metrics.get("shap") or {}),
        "incident": sensitivity_tables.incident(metrics.get("incident") or (), metrics.get("signatures", {})),
        "censoring": metrics.get("censoring") or {},
        "censoring_table": sensitivity_tables.censoring(metrics.get("censoring") or {}),
        "harmonisation": metrics.get("harmonisation") or {},
        "separability": sensitivity_tables.separability(metrics.get("harmonisation") or {}),
        "harmonisation_table": sensitivity_tables.harmonisation(metrics.get("harmonisation") or {}),
        "repeated": sensitivity_tables.repeated(metrics.get("repeated_nested") or {}),
        "left_out": left_out,
        "left_out_table": breakdown_tables.sites(left_out.get("signatures") or {}),
        "structure": sensitivity_tables.structure((metrics.get("leakage_check") or {}).get("structural") or {}),
    }


def _card(kind: str, signature: Mapping[str, Any], recommended: bool) -> dict[str, Any]:
    """One signature in four lines: what it is, and its AUC where it counts."""
    cohorts = signature["cohorts"]
    features, what = signature.get("n_features"), "input" if kind == "combined" else "feature"
    aucs = [("Training, nested cross-validation", number(signature.get("nested_auc")))]
    if APPARENT_NESTED in signature:
        aucs = [("Training, apparent: the encoder was tuned on these patients", number(signature[APPARENT_NESTED]))]
    for partition in list(PARTITIONS)[1:]:
        if partition in cohorts:
            m = cohorts[partition]
            aucs.append((cohort_name(partition), with_ci(m.get("auc"), m.get("auc_ci"))))
    return {
        "kind": kind,
        "name": model_name(kind),
        "recommended": recommended,
        "classifier": str(signature.get("classifier", DASH)).replace("_", " "),
        "features": f"{features} {what}{'s' if features != 1 else ''}" if features is not None else "",
        "aucs": aucs,
    }


def _nested_choice(choices: Mapping[str, Mapping[str, int]]) -> list[str]:
    """How stable the choice of classifier was over the outer folds, in a sentence a signature."""
    found = []
    for kind in ordered(choices):
        ranked = sorted(choices[kind].items(), key=lambda pair: -pair[1])
        listed = ", ".join(f"{name.replace('_', ' ')} {count}×" for name, count in ranked if count)
        found.append(f"{model_name(kind)}: {listed}.")
    return found


def _hosmer_lemeshow(result: ReportableStudy, kinds: list[str]) -> Table:
    rows = []
    for kind in kinds:
        for partition in list(PARTITIONS)[1:]:
            held_out = shown(result.predictions, partition, kind)
            test = hosmer_lemeshow(*held_out) if held_out is not None else None
            if test is not None:
                said = [f"{test.statistic:.1f}", str(test.df), tables.p_value(test.p)]
                rows.append([model_name(kind), cohort_name(partition), *said])
    return Table(["Signature", "Cohort", "χ²", "df", "p"], rows, 2)


def _leakage(check: Mapping[str, Any]) -> dict[str, Any] | None:
    if not check:
        return None
    if check.get("passed") is None:
        return {"passed": None, "reason": str(check.get("reason") or "too few permuted runs for an interval.")}
    return {
        "passed": bool(check["passed"]),
        "grid": str(check.get("grid") or ""),
        "name": f"{model_name(str(check.get('signature')))}, {cohort_name(str(check.get('cohort')))}",
        "auc": with_ci(check.get("permuted_auc_mean"), check.get("permuted_auc_ci")),
        "n": check.get("n_permutations"),
    }


def _json_safe(value: Any) -> Any:
    """Plain JSON values; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _json_safe(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(entry) for entry in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _json_safe(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
