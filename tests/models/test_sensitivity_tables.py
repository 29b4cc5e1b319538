"""What a study's figures depend on, as the report's tables say it: each number under its own head."""

from __future__ import annotations

from typing import Any

from models.report import sensitivity_tables as tables
from models.report.tables import Table, clinical, components, features, matched

ROW = {"signature": "rad", "cohort": "external_test"}


def by_head(table: Table, row: int = 0) -> dict[str, str]:
    assert all(len(cells) == len(table.heads) for cells in table.rows)
    return dict(zip(table.heads, table.rows[row], strict=True))


def test_sample_size_counts_candidates_and_says_what_was_needed() -> None:
    criterion = {"assumed": "AUC 0.75", "needed": 9, "needed_shrinkage": 7, "needed_optimism": 8}
    criterion |= {"needed_mean_risk": 9, "expected_shrinkage": 0.123, "parameters_allowed": 4}
    said = by_head(tables.development_size({"criteria": [criterion]}))
    assert [said[head] for head in ("Shrinkage ≥ 0.9", "Optimism ≤ 0.05", "Mean risk ± 0.05")] == ["7", "8", "9"]
    assert (said["Patients needed"], said["Shrinkage expected here"]) == ("9", "0.12")
    assert tables.candidates({"candidate_parameters": {"deep": 3, "total": 3}}).rows == [
        ["Deep features", "3"],
        ["All", "3"],
    ]
    row = ROW | {"n": 70, "needed": 30, "needed_observed_expected": 10, "needed_calibration_slope": 30}
    row |= {"needed_auc": 20, "expected_widths": {"observed_expected": 0.1, "calibration_slope": 0.2, "auc": 0.3}}
    said = by_head(tables.validation_size([row]))
    assert [said[head] for head in ("Needed", "for O/E", "for the slope", "for the AUC")] == ["30", "10", "30", "20"]
    assert [said[head] for head in ("Width here: O/E", "slope", "AUC")] == ["0.10", "0.20", "0.30"]


def test_missing_values_are_listed_where_somebody_lacks_one_or_a_policy_was_declared() -> None:
    row: dict[str, Any] = {"variable": "body_mass", "policy": "complete", "declared": True}
    row |= {"patients": {"training": 10, "external_test": 5}, "missing": {"training": 2}, "left_out": {"training": 2}}
    whole = row | {"variable": "age", "policy": "median", "declared": False, "missing": {}, "left_out": {}}
    table = tables.missing_values([whole, row])
    assert len(table.rows) == 1
    said = by_head(table)
    assert (said["Variable"], said["Training"], said["External test"]) == ("body mass", "2 of 10", "0 of 5")
    assert (said["What becomes of who lacks it"], said["Left out"]) == (
        "patients without it were left out (declared)",
        "2",
    )


def test_incident_degeneration_stands_beside_the_papers_label() -> None:
    signatures = {"rad": {"nested_auc": 0.61, "cohorts": {"training": {}, "external_test": {"auc": 0.72}}}}
    row = ROW | {"n": 50, "events": 12, "n_unknown": 3, "auc": 0.65, "auc_ci": [0.5, 0.8]}
    table = tables.incident([row, row | {"cohort": "training"}], signatures)
    assert by_head(table)["AUC, the paper's label"] == "0.720"
    assert by_head(table, 1)["AUC, the paper's label"] == "0.610"
    assert by_head(table)["AUC, incident (95 % CI)"] == "0.650 (0.500–0.800)"


def test_weighted_figures_stand_beside_those_as_they_are() -> None:
    row = ROW | {"n": 50, "effective_n": 41.6, "largest_weight": 14.26, "n_held": 2, "auc": 0.7, "auc_weighted": 0.68}
    row |= {"observed_expected": 1.1, "observed_expected_weighted": 1.2}
    said = by_head(tables.censoring({"figures": [row]}))
    assert (said["AUC"], said["AUC, weighted"], said["Effective n"]) == ("0.700", "0.680", "42")
    assert said["Largest weight"] == "14.3 (2 held)"
    assert by_head(tables.censoring({"figures": [row | {"n_held": 0}]}))["Largest weight"] == "14.3"
    assert (said["Observed / expected"], said["Observed / expected, weighted"]) == ("1.10", "1.20")


def test_harmonisation_says_what_it_does_and_to_whom() -> None:
    effect = ROW | {"auc_without": 0.7, "auc_with": 0.75, "difference": 0.05, "difference_ci": [-0.01, 0.11]}
    record = {"effect": [effect], "unseen": {"external_test": 7}}
    record["separability"] = {"radiomics": {"before": 0.25, "after": 0.001}}
    said = by_head(tables.harmonisation(record))
    assert (said["AUC without"], said["AUC with ComBat"], said["Patients of unseen scanners"]) == (
        "0.700",
        "0.750",
        "7",
    )
    assert said["Difference (95 % CI)"] == "0.050 (−0.010 to 0.110)"
    assert tables.separability(record).rows == [["Radiomics", "25.0 %", "0.1 %"]]


def test_other_divisions_and_what_was_shown_before_fitting() -> None:
    said = by_head(tables.repeated({"rad": {"aucs": [0.6, 0.7, 0.65], "mean": 0.65, "sd": 0.05}}))
    assert (said["Divisions"], said["Lowest to highest"]) == ("3", "0.600 to 0.700")
    checks = [{"name": "folds", "passed": True, "detail": "3"}, {"name": "rows", "passed": False}]
    assert [row[1] for row in tables.structure({"checks": checks}).rows] == ["yes", "NO"]


def test_shap_keeps_its_order_and_names_inputs_in_words() -> None:
    record = {"mean_abs": {"rad-sign": 0.8, "body_mass": 0.2}}
    record["by_cohort"] = {"external_test": {"rad-sign": 0.9, "body_mass": 0.1}}
    table = tables.shap(record)
    assert table.rows == [["Rad-sign", "0.800", "0.900"], ["body mass", "0.200", "0.100"]]
    assert tables.shap({}).rows == []


def test_features_say_where_and_what_they_measure() -> None:
    name = "t2_ax.psoas_major.all.original_shape_Sphericity"
    table = features([{"name": name, "coefficient": -0.2}], {name: 0.5}, lambda feature: feature[-10:].lower())
    assert by_head(table) == {
        "Feature": "original_shape_Sphericity",
        "Measured in": "axial T2, psoas major",
        "What it measures": "sphericity",
        "Coefficient": "−0.2000",
        "Importance": "0.5000",
    }
    parts = [{"name": "PC1", "coefficient": 0.1}, {"name": "PC2", "coefficient": -0.3}]
    assert components(parts)
    assert not components([*parts, {"name": "PCR"}])
    # What nothing is known of has no column; the largest comes first.
    assert features(parts, {}, None) == Table(["Feature", "Coefficient"], [["PC2", "−0.3000"], ["PC1", "0.1000"]], 1)


def test_a_variable_alone_and_together() -> None:
    alone = {"odds_ratio": 2.0, "ci": [1.1, 3.0], "p": 0.02}
    both = {"variable": "sex=male", "odds_ratio": 1.5, "ci": [0.9, 2.0], "p": 0.2, "model": "multivariable"}
    table = clinical(
        [both | {"univariable": alone, "selected": True}, {"variable": "bmi", **alone, "model": "univariable"}]
    )
    assert table.rows[0] == ["sex: male", "2.00 (1.10–3.00)", "0.020", "1.50 (0.90–2.00)", "0.200", "yes"]
    assert table.rows[1] == ["bmi", "2.00 (1.10–3.00)", "0.020", "–", "–", "no"]


def test_signatures_at_the_surgeons_own_specificity() -> None:
    found = {"sensitivity": 0.8, "difference": 0.2, "ci": [0.05, 0.3], "p": 0.01}
    table = matched({"kappa_ab": 0.5, "A": {"specificity": 0.6, "sensitivity": 0.6, "matched_dl": found}})
    assert table.rows == [["Surgeon A", "DL-sign", "0.60", "0.60", "0.80", "0.20 (0.05–0.30)", "0.010"]]
