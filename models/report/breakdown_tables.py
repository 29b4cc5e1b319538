"""Tables of where a signature's figure comes from and whether it holds: parts, sites, subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.report.style import cohort_name, model_name, part_name, words
from models.report.tables import DASH, INDENT, Table, number, ordered, with_ci

AXES = {
    "modality": "CT against MR",
    "sequence": "by sequence",
    "structure": "by structure",
    "family": "by family of features",
    "source": "by source",
}


BESIDE = ("Brier", "Slope", "Intercept", "Net benefit (all treated)")


def ablation(rows: Sequence[Mapping[str, Any]], cohort: str) -> Table:
    """On one held-out cohort, a heading a signature and axis, under it a row a part: it alone, and all without it."""
    found: dict[tuple[str, str], dict[str, dict[str, Mapping[str, Any]]]] = {}
    for row in rows:
        if row.get("cohort", cohort) == cohort:
            parts = found.setdefault((row["signature"], row["axis"]), {})
            parts.setdefault(row["part"], {})[row["use"]] = row
    lines = []
    for signature, axis in sorted(found, key=lambda key: ordered([k[0] for k in found]).index(key[0])):
        lines.append([f"{model_name(signature)}: {AXES.get(axis, axis)}", *[""] * 3])
        for part, uses in found[signature, axis].items():
            alone, without = uses.get("alone", {}), uses.get("without", {})
            figures = [
                str(alone.get("n_columns", DASH)),
                with_ci(alone.get("auc"), alone.get("auc_ci")),
                with_ci(without.get("difference"), without.get("difference_ci")),
            ]
            lines.append([f"{INDENT}{part_name(part)}", *figures])
    return Table(["Part", "Columns", "AUC with it alone", "Difference without it"], lines)


def sites(by_kind: Mapping[str, Any]) -> Table:
    """Each site's patients, then all sites as a sample: mean, and where the next site's AUC is expected.

    ``by_kind``: ``metrics.sites`` of one cohort, or what leaving one site out gave.
    """
    lines = []
    for kind in ordered(by_kind):
        lines.append([model_name(kind), *[""] * 7])
        for row in by_kind[kind].get("sites", ()):
            size = f"{row['n']} / {row['events']}"
            area = with_ci(row.get("auc"), row.get("auc_ci"))
            lines.append([f"{INDENT}{row['site']}", size, area, *_beside(row), number(row.get("mean_risk"), 2)])
        pooled = by_kind[kind].get("pooled")
        if pooled:
            area = with_ci(pooled.get("auc"), pooled.get("auc_ci"))
            lines.append([f"{INDENT}all sites, random effects", "", area, *[""] * 5])
            expected = pooled.get("prediction_interval")
            between = DASH if expected is None else f"{number(expected[0])} to {number(expected[1])}"
            lines.append([f"{INDENT}a site not seen yet, 95 % prediction", "", between, *[""] * 5])
    return Table(["Site", "n / events", "AUC (95 % CI)", *BESIDE, "Mean risk"], lines)


def subgroups(rows: Sequence[Mapping[str, Any]], kind: str) -> Table:
    """Held-out patients of one signature, a heading a variable, under it a row a subgroup. Nothing is tested here."""
    lines: list[list[str]] = []
    variable = None
    for row in rows:
        if row["signature"] == kind and row["cohort"] == "held_out":
            if row["variable"] != variable:
                variable = row["variable"]
                lines.append([words(variable), *[""] * 8])
            risks = [with_ci(row["observed"], row["observed_ci"], 2), number(row["predicted"], 2)]
            size = f"{row['n']} / {row['events']}"
            area = with_ci(row.get("auc"), row.get("auc_ci"))
            lines.append([f"{INDENT}{words(row['level'])}", size, area, *_beside(row), *risks])
    return Table(["Patients", "n / events", "AUC (95 % CI)", *BESIDE, "Observed risk", "Predicted"], lines)


def _beside(row: Mapping[str, Any]) -> list[str]:
    """Brier score, calibration slope and intercept, net benefit with that of treating everybody in brackets."""
    worth = number(row.get("net_benefit"))
    if row.get("net_benefit") is not None:
        worth += f" ({number(row.get('net_benefit_treat_all'))})"
    shape = [number(row.get(name), 2) for name in ("calibration_slope", "calibration_intercept")]
    return [number(row.get("brier")), *shape, worth]


def judged_cohorts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Table]:
    """An ablation table for each cohort it was judged on, by the cohort's name in words."""
    names = dict.fromkeys(row["cohort"] for row in rows if "cohort" in row)
    return {cohort_name(name): ablation(rows, name) for name in names}
