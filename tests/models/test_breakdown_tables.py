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


def test_a_part_is_one_row_alone_and_without() -> None:
    table = ablation(PARTS, "external_test")
    assert [row[:2] for row in table.rows] == [["Rad-sign: CT against MR", ""], ["\u2003CT", "5"], ["\u2003MR", "5"]]
    assert table.rows[1][2:] == ["0.700 (0.600–0.800)", "−0.050 (−0.100 to 0.010)"]
    assert list(judged_cohorts(PARTS)) == ["External test"]
    unusable = {k: v for k, v in PARTS[0].items() if k in ("signature", "axis", "part", "use")}
    assert ablation([{**unusable, "reason": "No column"}], "external_test").rows[1][2:] == ["–", "–"]


def test_sites_end_with_what_the_next_one_may_expect() -> None:
    site = {"site": "a", "n": 30, "events": 9, "auc": 0.7, "auc_ci": [0.5, 0.9], "mean_risk": 0.3}
    pooled = {"auc": 0.7, "auc_ci": [0.6, 0.8], "prediction_interval": [0.45, 0.88]}
    table = sites({"rad": {"sites": [site], "pooled": pooled}})
    assert table.rows[1][:3] == ["\u2003a", "30 / 9", "0.700 (0.500–0.900)"]
    assert [row[2] for row in table.rows[2:]] == ["0.700 (0.600–0.800)", "0.450 to 0.880"]
    two = sites({"rad": {"sites": [site], "pooled": pooled | {"prediction_interval": None}}})
    assert two.rows[3][2] == "–"
    assert sites({}).rows == []


def test_subgroups_are_of_the_held_out_patients_of_one_signature() -> None:
    row = {"variable": "bmi", "level": "> 25", "signature": "rad", "cohort": "held_out", "n": 20, "events": 8}
    row |= {"auc": None, "auc_ci": None, "observed": 0.4, "observed_ci": [0.2, 0.6], "predicted": 0.35}
    table = subgroups([row, {**row, "cohort": "training"}, {**row, "signature": "dl"}], "rad")
    assert table.rows == [["bmi: > 25", "20 / 8", "–", "0.40 (0.20–0.60)", "0.35"]]
