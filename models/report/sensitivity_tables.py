"""Tables of what a study's figures depend on: its size, missing values, lost patients, the label, scanners, folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.report.style import PARTITIONS, cohort_name, model_name, term_name, words
from models.report.tables import DASH, Table, number, ordered, with_ci

SOURCES = {"radiomics": "Radiomics", "deep": "Deep features", "clinical": "Clinical terms", "total": "All"}
POLICIES = {
    "median": "the median stands in",
    "most_frequent": "the most frequent value stands in",
    "indicator": "a value stands in, and a term says that it was missing",
    "category": "a category of its own",
    "complete": "patients without it were left out",
    "refuse": "nobody may lack it",
}


def candidates(record: Mapping[str, Any]) -> Table:
    """Candidate parameters: every column that is looked at, not those that are selected."""
    found = record.get("candidate_parameters") or {}
    return Table(["Candidate parameters", "Number"], [[SOURCES.get(k, k), str(v)] for k, v in found.items()])


def development_size(record: Mapping[str, Any]) -> Table:
    """Riley's criteria for developing a model, a row an assumption."""
    rows = []
    for row in record.get("criteria", ()):
        needed = [str(row.get(f"needed{part}", DASH)) for part in ("_shrinkage", "_optimism", "_mean_risk", "")]
        shrinkage = number(row.get("expected_shrinkage"), 2)
        rows.append([str(row["assumed"]), *needed, shrinkage, str(row.get("parameters_allowed", DASH))])
    heads = ["If the model reached", "Shrinkage ≥ 0.9", "Optimism ≤ 0.05", "Mean risk ± 0.05", "Patients needed"]
    return Table([*heads, "Shrinkage expected here", "Parameters these patients carry"], rows)


def validation_size(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Riley's criteria for external validation, a row a signature and cohort."""
    lines = []
    for row in sorted(rows, key=lambda row: ordered([r["signature"] for r in rows]).index(row["signature"])):
        needed = [
            str(row.get(f"needed{part}", DASH)) for part in ("", "_observed_expected", "_calibration_slope", "_auc")
        ]
        widths = row.get("expected_widths") or {}
        sharp = [number(widths.get(name), 2) for name in ("observed_expected", "calibration_slope", "auc")]
        lines.append([model_name(row["signature"]), cohort_name(row["cohort"]), str(row["n"]), *needed, *sharp])
    heads = ["Signature", "Cohort", "Patients", "Needed", "for O/E", "for the slope", "for the AUC"]
    return Table([*heads, "Width here: O/E", "slope", "AUC"], lines, 2)


def missing_values(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Who lacked which clinical variable, and what became of them."""
    partitions = [p for p in PARTITIONS if any(p in row["patients"] for row in rows)]
    lines = []
    for row in rows:
        if not (any(row["missing"].values()) or row.get("declared")):
            continue
        counts = [f"{row['missing'].get(p, 0)} of {row['patients'].get(p, 0)}" for p in partitions]
        policy = POLICIES.get(str(row.get("policy")), words(str(row.get("policy") or DASH)))
        left_out = str(sum(row["left_out"].values()))
        declared = "declared" if row.get("declared") else "default"
        lines.append([words(row["variable"]), f"{policy} ({declared})", *counts, left_out])
    heads = [cohort_name(p).partition(" (")[0] for p in partitions]
    return Table(["Variable", "What becomes of who lacks it", *heads, "Left out"], lines, 2)


def incident(rows: Sequence[Mapping[str, Any]], signatures: Mapping[str, Any]) -> Table:
    """The same risks against degeneration that was not there before surgery, beside the paper's label."""
    lines = []
    for row in rows:
        own = signatures.get(row["signature"]) or {}
        of_label = own.get("cohorts", {}).get(row["cohort"], {}).get("auc")
        if row["cohort"] == "training":
            of_label = own.get("nested_auc")
        size = [f"{row['n']} / {row['events']}", str(row["n_unknown"])]
        area = with_ci(row.get("auc"), row.get("auc_ci"))
        lines.append([model_name(row["signature"]), cohort_name(row["cohort"]), *size, area, number(of_label)])
    heads = ["Model", "Cohort", "n / incident", "Unknown", "AUC, incident (95 % CI)", "AUC, the paper's label"]
    return Table(heads, lines, 2)


def censoring(record: Mapping[str, Any]) -> Table:
    """Figures as they are, and weighted for patients whose outcome is not known; behind the largest weight how many
    were held."""
    lines = []
    for row in record.get("figures", ()):
        largest = number(row.get("largest_weight"), 1) + (f" ({held} held)" if (held := row.get("n_held")) else "")
        size = [str(row["n"]), number(row.get("effective_n"), 0), largest]
        pairs = [row.get(f"{name}{how}") for name in ("auc", "observed_expected") for how in ("", "_weighted")]
        figures = [number(value, digits) for value, digits in zip(pairs, (3, 3, 2, 2), strict=True)]
        lines.append([model_name(row["signature"]), cohort_name(row["cohort"]), *size, *figures])
    heads = ["Model", "Cohort", "n", "Effective n", "Largest weight", "AUC", "AUC, weighted"]
    return Table([*heads, "Observed / expected", "Observed / expected, weighted"], lines, 2)


def separability(record: Mapping[str, Any]) -> Table:
    """How much of a column's variance lies between training scanners, before and after ComBat."""
    found = record.get("separability") or {}
    rows = [[SOURCES.get(k, k), *(f"{100 * v[when]:.1f} %" for when in ("before", "after"))] for k, v in found.items()]
    return Table(["Variance between scanners (median column)", "Before ComBat", "After ComBat"], rows)


def harmonisation(record: Mapping[str, Any]) -> Table:
    """What ComBat does to the AUC, a row a signature and cohort."""
    rows = [
        [
            model_name(row["signature"]),
            cohort_name(row["cohort"]),
            number(row.get("auc_without")),
            number(row.get("auc_with")),
            with_ci(row.get("difference"), row.get("difference_ci")),
            str((record.get("unseen") or {}).get(row["cohort"], DASH)),
        ]
        for row in record.get("effect", ())
    ]
    heads = ["Signature", "Cohort", "AUC without", "AUC with ComBat", "Difference (95 % CI)"]
    return Table([*heads, "Patients of unseen scanners"], rows, 2)


def repeated(record: Mapping[str, Any]) -> Table:
    """Nested AUCs over other divisions of the same patients into folds."""
    rows = []
    for kind in ordered(record):
        aucs = [value for value in record[kind]["aucs"] if value is not None]
        span = f"{number(min(aucs))} to {number(max(aucs))}" if aucs else DASH
        figures = [number(record[kind].get("mean")), number(record[kind].get("sd")), span]
        rows.append([model_name(kind), str(len(aucs)), *figures])
    return Table(["Signature", "Divisions", "Mean nested AUC", "SD", "Lowest to highest"], rows)


def structure(record: Mapping[str, Any]) -> Table:
    """What was shown of the arrays before anything was fitted on them."""
    said = {True: "yes", False: "NO"}
    rows = [[str(r["name"]), said.get(r["passed"], DASH), str(r.get("detail", ""))] for r in record.get("checks", ())]
    return Table(["Shown before fitting", "Holds", "On"], rows, 3)


def shap(record: Mapping[str, Any]) -> Table:
    """Mean |SHAP value| by input, over all explained patients and by cohort."""
    cohorts = list(record.get("by_cohort") or {})
    rows = [
        [term_name(name), number(value), *(number(record["by_cohort"][cohort].get(name)) for cohort in cohorts)]
        for name, value in (record.get("mean_abs") or {}).items()
    ]
    return Table(["Input", "Mean |SHAP|, all", *(cohort_name(cohort) for cohort in cohorts)], rows)
