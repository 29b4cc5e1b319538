"""Where a figure comes from and whether it holds, as the report's tables say it."""

from __future__ import annotations

from typing import Any

from models.report.breakdown_tables import ablation, judged_cohorts, sites, subgroups

PARTS: list[dict[str, Any]] = [
    {
        "signature": "rad", "axis": "modality", "part": part, "use": use, "n_columns": 5, "cohort": "external_test",
        "auc": 0.7, "auc_ci": [0.6, 0.8], "difference": -0.05, "difference_ci": [-0.1, 0.01],
    }
    for part in ("CT", "MR")
    for use in ("alone", "without")
]  # fmt: skip


BESIDE = {"brier": 0.2, "calibration_slope": 0.91, "calibration_intercept": -0.12, "net_benefit": 0.05}
BESIDE |= {"net_benefit_treat_all": -0.02}
BESIDE_SAID = ["0.200", "0.91", "−0.12", "0.050 (−0.020)"]


def test_a_part_is_one_row_alone_and_without() -> None:
    table = ablation(PARTS, "external_test")
    assert [row[:2] for row in table.rows] == [["Rad-sign: CT against MR", ""], ["\u2003CT", "5"], ["\u2003MR", "5"]]
    assert table.rows[1][2:] == ["0.700 (0.600–0.800)", "−0.050 (−0.100 to 0.010)"]
    assert list(judged_cohorts(PARTS)) == ["External test"]
    unusable = {k: v for k, v in PARTS[0].items() if k in ("signature", "axis", "part", "use")}
    assert ablation([{**unusable, "reason": "No column"}], "external_test").rows[1][2:] == ["–", "–"]


def test_sites_end_with_what_the_next_one_may_expect() -> None:
    site = {"site": "a", "n": 30, "events": 9, "auc": 0.7, "auc_ci": [0.5, 0.9], "mean_risk": 0.3, **BESIDE}
    pooled = {"auc": 0.7, "auc_ci": [0.6, 0.8], "prediction_interval": [0.45, 0.88]}
    table = sites({"rad": {"sites": [site], "pooled": pooled}})
    assert all(len(row) == len(table.heads) for row in table.rows)
    assert table.rows[1] == ["\u2003a", "30 / 9", "0.700 (0.500–0.900)", *BESIDE_SAID, "0.30"]
    assert [row[2] for row in table.rows[2:]] == ["0.700 (0.600–0.800)", "0.450 to 0.880"]
    two = sites({"rad": {"sites": [site], "pooled": pooled | {"prediction_interval": None}}})
    assert two.rows[3][2] == "–"
    assert sites({}).rows == []


def test_subgroups_are_of_the_held_out_patients_of_one_signature() -> None:
    row = {"variable": "bmi", "level": "> 25", "signature": "rad", "cohort": "held_out", "n": 20, "events": 8}
    row |= {"auc": None, "auc_ci": None, "observed": 0.4, "observed_ci": [0.2, 0.6], "predicted": 0.35}
    enough = row | BESIDE | {"level": "≤ 25", "auc": 0.7, "auc_ci": [0.5, 0.9]}
    table = subgroups([row, {**row, "cohort": "training"}, {**row, "signature": "dl"}, enough], "rad")
    assert all(len(cells) == len(table.heads) for cells in table.rows)
    assert [cells[0] for cells in table.rows] == ["bmi", "\u2003> 25", "\u2003≤ 25"]
    assert table.rows[1][1:] == ["20 / 8", *["–"] * 5, "0.40 (0.20–0.60)", "0.35"]
    assert table.rows[2][2:7] == ["0.700 (0.500–0.900)", *BESIDE_SAID]
