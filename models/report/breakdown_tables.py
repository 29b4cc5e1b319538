"""Tables of where a signature's figure comes from and whether it holds: parts, sites, subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.report.style import cohort_name, model_name
from models.report.tables import DASH, Table, number, ordered, with_ci

AXES = {
    "modality": "CT against MR",
    "sequence": "By sequence",
    "structure": "By structure",
    "family": "By family of features",
    "source": "By source",
}


def ablation(rows: Sequence[Mapping[str, Any]], cohort: str) -> Table:
    """A row a part, on one held-out cohort: what it gives alone, and what is lost without it."""
    found: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("cohort", cohort) == cohort:
            found.setdefault((row["signature"], row["axis"], row["part"]), {})[row["use"]] = row
    lines = []
    for signature, axis, part in sorted(found, key=lambda key: (ordered([k[0] for k in found]).index(key[0]), key[1:])):
        alone, without = (found[signature, axis, part].get(use, {}) for use in ("alone", "without"))
        lines.append(
            [
                model_name(signature),
                AXES.get(axis, axis),
                part.replace("_", " "),
                str(alone.get("n_columns", DASH)),
                with_ci(alone.get("auc"), alone.get("auc_ci")),
                with_ci(without.get("difference"), without.get("difference_ci")),
            ]
        )
    return Table(["Signature", "", "Part", "Columns", "AUC with it alone", "Difference without it"], lines, 3)


def sites(record: Mapping[str, Any]) -> Table:
    """Each site's held-out patients, then all sites as a sample: mean, and where the next site's AUC is expected."""
    lines = []
    held_out = record.get("held_out") or {}
    for kind in ordered(held_out):
        lines.append([model_name(kind), *[""] * 5])
        for row in held_out[kind].get("sites", ()):
            size = f"{row['n']} / {row['events']}"
            scores = [number(row.get(name), 2) for name in ("calibration_slope", "calibration_intercept")]
            area = with_ci(row.get("auc"), row.get("auc_ci"))
            lines.append([f"\u2003{row['site']}", size, area, *scores, number(row.get("mean_risk"))])
        pooled = held_out[kind].get("pooled")
        if pooled:
            area = with_ci(pooled.get("auc"), pooled.get("auc_ci"))
            expected = with_ci(pooled.get("auc"), pooled.get("prediction_interval")).partition(" ")[2]
            lines.append(["\u2003all sites, random effects", "", f"{area}; next site {expected or DASH}", "", "", ""])
    return Table(["Site", "n / events", "AUC (95 % CI)", "Slope", "Intercept", "Mean risk"], lines)


def subgroups(rows: Sequence[Mapping[str, Any]], kind: str) -> Table:
    """Held-out patients of one signature, a row a subgroup. Nothing is tested here."""
    lines = []
    for row in rows:
        if row["signature"] == kind and row["cohort"] == "held_out":
            name = f"{row['variable'].replace('_', ' ')}: {row['level']}"
            risks = [with_ci(row["observed"], row["observed_ci"], 2), number(row["predicted"], 2)]
            size = f"{row['n']} / {row['events']}"
            lines.append([name, size, with_ci(row.get("auc"), row.get("auc_ci")), *risks])
    return Table(["Patients", "n / events", "AUC (95 % CI)", "Observed risk", "Predicted risk"], lines)


def judged_cohorts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Table]:
    """An ablation table for each cohort it was judged on, by the cohort's name in words."""
    names = dict.fromkeys(row["cohort"] for row in rows if "cohort" in row)
    return {cohort_name(name): ablation(rows, name) for name in names}
