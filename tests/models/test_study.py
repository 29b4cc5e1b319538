"""A whole study: metrics as contracted, blind to test patients, indifferent to order, usable on odd tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_store.errors import FeaturesMissing, FeatureTableError, SettingsError, TooFewPatients
from models.artefacts import save
from models.evaluation.auc import auc
from models.study import run_study
from models.study_result import StudyResult
from models.study_settings import StudySettings
from models.study_tables import StudyTables, from_files
from tests.models.study_fixtures import MemoryBlobs, small_settings, small_tables

HELD_OUT_KEYS = {
    *("n", "events", "auc", "auc_ci", "accuracy", "sensitivity", "specificity", "f1"),
    *("brier", "calibration_slope", "calibration_intercept", "net_benefit"),
}


@pytest.fixture(scope="module")
def result() -> StudyResult:
    study = small_tables()
    rng = np.random.default_rng(0)
    reads = pd.DataFrame({name: rng.integers(0, 2, len(study.patients)) for name in "ABC"})
    return run_study(replace(study, reads=reads), small_settings(permutations=2, permutation_folds=3))


def hashes(result: StudyResult) -> dict[str, str]:
    return {kind: save(signature, MemoryBlobs()) for kind, signature in result.signatures.items()}  # type: ignore[arg-type]


def test_metrics_are_the_contract(result: StudyResult) -> None:
    metrics = json.loads(json.dumps(result.metrics, allow_nan=False))
    assert set(metrics) == {
        *("signatures", "classifiers", "baselines", "delong", "clinical", "surgeons"),
        *("baseline_table", "leakage_check", "curves", "sites", "subgroups", "ablation", "data_checks"),
        *("recommendation", "harmonisation", "flow", "sample_size", "censoring", "incident"),
        *("repeated_nested", "leave_one_site_out", "missing_values", "shap", "warnings"),
    }
    assert set(metrics["signatures"]) == {"rad", "dl", "combined"}
    for kind, signature in metrics["signatures"].items():
        assert {"classifier", "n_features", "lambda", "nested_auc", "threshold", "features", "cohorts"} <= set(
            signature
        )
        assert len(signature["features"]) == signature["n_features"] >= 1
        assert all({"name", "coefficient"} <= set(feature) for feature in signature["features"])
        cohorts = signature["cohorts"]
        assert set(cohorts) == {
            *("training", "internal_validation", "external_test", "external_test/a", "external_test/b"),
        }
        assert set(cohorts["training"]) == {
            *("n", "events", "apparent_auc", "nested_sensitivity", "nested_specificity"),
        }
        assert all(set(cohorts[name]) >= HELD_OUT_KEYS for name in cohorts if name != "training")
        assert cohorts["external_test"]["at_harm_ratio"]["threshold"] == signature["harm_ratio_threshold"] == 0.25
        assert metrics["curves"][kind]["training"]["hosmer_lemeshow"]["df"] <= 8
        assert metrics["classifiers"][kind][0]["name"] == "logistic_regression"
        assert len(metrics["classifiers"][kind]) == 14
        assert all({"name", "cv_auc", "cv_auc_sd", "params"} == set(row) for row in metrics["classifiers"][kind])
    assert set(metrics["baselines"]) == {"clinical"}  # no column here says a size
    assert "external_test" in metrics["baselines"]["clinical"]
    pair = metrics["delong"][0]
    assert set(pair) == {"a", "b", "cohort", "auc_difference", "ci", "p"}
    assert {row["cohort"] for row in metrics["delong"]} == {"internal_validation", "external_test"}
    assert {"variable", "odds_ratio", "ci", "p", "selected"} <= set(metrics["clinical"][0])
    assert -1 <= metrics["surgeons"]["kappa_ab"] <= 1
    check = metrics["leakage_check"]
    assert (check["signature"], check["cohort"], check["n_permutations"]) == ("combined", "external_test", 2)
    assert set(check) >= {"passed", "permuted_auc_mean", "permuted_auc_ci"}
    assert check["passed"] is (check["permuted_auc_ci"][0] <= 0.5)


def test_predictions_are_nested_for_training_and_frozen_elsewhere(result: StudyResult) -> None:
    study = small_tables()
    table = pd.concat([study.radiomics, study.deep, study.clinical], axis=1)
    predictions = result.predictions
    assert predictions["patient_id"].tolist() == study.patients["patient_id"].tolist()
    training = (predictions["partition"] == "training").to_numpy()
    for kind, signature in result.signatures.items():
        frozen = signature.probabilities(table)
        column = predictions[kind].to_numpy()
        assert column[~training].tobytes() == frozen[~training].tobytes()
        y = predictions["outcome"].to_numpy()
        figures = result.metrics["signatures"][kind]
        assert auc(y[training], column[training]) == pytest.approx(figures["nested_auc"])
        assert auc(y[training], frozen[training]) == pytest.approx(figures["cohorts"]["training"]["apparent_auc"])
        assert (column >= 0).all()
        assert (column <= 1).all()


def test_a_planted_effect_is_found(result: StudyResult) -> None:
    chosen = {feature["name"] for feature in result.metrics["signatures"]["rad"]["features"]}
    assert len(chosen & {f"ct.vertebral_body.all.f{i:02d}" for i in range(3)}) >= 2
    assert result.metrics["signatures"]["combined"]["nested_auc"] > 0.75
    assert result.metrics["signatures"]["combined"]["cohorts"]["external_test"]["auc"] > 0.75


def test_one_patient_scores_as_many_and_says_what_moved_it(result: StudyResult) -> None:
    study = small_tables()
    table = pd.concat([study.radiomics, study.deep, study.clinical], axis=1)
    for signature in result.signatures.values():
        together = signature.probabilities(table)
        for row in (0, 40, 79):
            answer = signature.score(table.iloc[row].to_dict())
            assert answer.probability == together[row]
            assert answer.high_risk == (together[row] >= signature.head.threshold)
            effects = [abs(moved["effect"]) for moved in answer.moved_by]
            assert 1 <= len(effects) <= 5
            assert effects == sorted(effects, reverse=True)
            assert {"name", "value", "effect"} == set(answer.moved_by[0])
    combined = result.signatures["combined"]
    names = {moved["name"] for moved in combined.score(table.iloc[0].to_dict()).moved_by}
    assert names <= {"rad-sign", "dl-sign", "age", "sex", "osteoporosis"}
    assert {"rad-sign", "dl-sign"} <= names


def test_an_effect_is_the_change_of_log_odds(result: StudyResult) -> None:
    signature = result.signatures["rad"]
    row = small_tables().radiomics.iloc[5].to_dict()  # type: ignore[union-attr]
    answer = signature.score(row)
    moved = answer.moved_by[0]
    medians = dict(zip(signature.selector.columns, signature.selector.scaling.medians, strict=True))  # type: ignore[attr-defined]
    without = signature.score({**row, moved["name"]: medians[moved["name"]]})
    odds = [np.log(p / (1 - p)) for p in (answer.probability, without.probability)]
    assert moved["effect"] == pytest.approx(odds[0] - odds[1], abs=1e-9)


def test_missing_features_are_named_not_guessed(result: StudyResult) -> None:
    signature = result.signatures["rad"]
    row = small_tables().radiomics.iloc[0].to_dict()  # type: ignore[union-attr]
    with pytest.raises(FeaturesMissing, match="not there"):
        signature.score({})
    with pytest.raises(FeaturesMissing, match="missing"):
        signature.score(dict.fromkeys(row))
    some = {**row, signature.features[0]: None}
    assert 0 < signature.score(some).probability < 1


def test_rubbish_in_test_rows_changes_nothing_fitted(result: StudyResult) -> None:
    study = small_tables()
    held_out = (study.patients["partition"] != "training").to_numpy()
    poisoned: dict[str, Any] = {}
    for source in ("radiomics", "deep"):
        table = getattr(study, source).copy()
        table.loc[held_out] = np.where(np.arange(table.shape[1]) % 2, 1e300, np.nan)
        poisoned[source] = table
    assert study.clinical is not None
    clinical = study.clinical.astype(object)
    clinical.loc[held_out] = "rubbish"
    patients = study.patients.copy()
    patients.loc[held_out, "outcome"] = 1
    patients.loc[held_out, "site"] = "elsewhere"
    after = run_study(StudyTables(patients, clinical=clinical, **poisoned), small_settings())
    assert hashes(after) == hashes(result)
    for kind in ("rad", "dl", "combined"):
        assert after.metrics["signatures"][kind]["nested_auc"] == result.metrics["signatures"][kind]["nested_auc"]
    external = after.metrics["signatures"]["rad"]["cohorts"]["external_test"]
    assert external["auc"] is None
    assert "same outcome" in external["reason"]


def test_order_of_rows_and_columns_does_not_matter(result: StudyResult) -> None:
    study = small_tables()
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(study.patients))
    shuffled = {
        source: (t := getattr(study, source)).iloc[rows][rng.permutation(t.columns)].reset_index(drop=True)
        for source in ("radiomics", "deep", "clinical")
    }
    after = run_study(StudyTables(study.patients.iloc[rows].reset_index(drop=True), **shuffled), small_settings())
    assert hashes(after) == hashes(result)
    assert after.predictions["patient_id"].tolist() == study.patients["patient_id"].iloc[rows].tolist()
    assert after.predictions["combined"].to_numpy() == pytest.approx(result.predictions["combined"].to_numpy()[rows])


def test_a_fixed_classifier_is_taken_and_an_unknown_one_refused() -> None:
    study = replace(small_tables(), deep=None, clinical=None)
    fixed = run_study(study, small_settings(classifiers={"rad": "linear_svm"}))
    assert fixed.metrics["signatures"]["rad"]["classifier"] == "linear_svm"
    assert set(fixed.signatures) == {"rad"}
    with pytest.raises(SettingsError):
        run_study(study, small_settings(classifiers={"rad": "oracle"}))
    with pytest.raises(ValueError, match="no such signature kind"):
        StudySettings(classifiers={"radiomics": "mlp"})


def test_few_patients_work_or_say_why_not() -> None:
    few = run_study(replace(small_tables(n=20, p=12), deep=None), small_settings(n_folds=10))
    assert set(few.signatures) == {"rad", "combined"}
    lonely = small_tables(n=20)
    patients = lonely.patients.assign(outcome=np.where(np.arange(20) < 2, 1, 0))
    with pytest.raises(TooFewPatients, match="2 patients with the outcome") as caught:
        run_study(replace(lonely, patients=patients), small_settings())
    assert caught.value.action


def test_training_alone_is_a_study_without_held_out_figures() -> None:
    study = replace(small_tables(n=40, p=10), deep=None, clinical=None)
    alone = run_study(
        replace(study, patients=study.patients.assign(partition="training")),
        small_settings(permutations=2, permutation_folds=3),
    )
    assert set(alone.metrics["signatures"]["rad"]["cohorts"]) == {"training"}
    assert alone.metrics["delong"] == []
    assert alone.metrics["leakage_check"]["cohort"] == "training (nested)"


def test_clinical_variables_alone_make_no_signature_but_a_reference() -> None:
    study = replace(small_tables(), radiomics=None, deep=None)
    alone = run_study(study, small_settings())
    assert alone.metrics["signatures"] == {}
    assert 0 < alone.metrics["baselines"]["clinical"]["external_test"]["auc"] <= 1
    assert alone.metrics["leakage_check"]["passed"] is None


def test_size_alone_stands_beside_the_signatures() -> None:
    study = small_tables(n=60, p=10)
    assert study.radiomics is not None
    rng = np.random.default_rng(0)
    sized = study.radiomics.assign(
        **{"ct.vertebral_body.all.original_shape_MeshVolume": study.outcome + rng.normal(size=60)}
    )
    result = run_study(replace(study, radiomics=sized, deep=None, clinical=None), small_settings())
    size = result.metrics["baselines"]["size"]
    assert size["external_test"]["auc"] is not None
    assert 0 <= size["training"]["nested_auc"] <= 1
    assert ("rad", "size") in {(row["a"], row["b"]) for row in result.metrics["delong"]}


def test_names_in_several_tables_are_told_apart() -> None:
    study = small_tables(n=60, p=10)
    assert study.radiomics is not None
    assert study.deep is not None
    clash = study.deep.set_axis([f"ct.vertebral_body.all.f{i:02d}" for i in range(study.deep.shape[1])], axis=1)
    result = run_study(replace(study, deep=clash), small_settings())
    assert any("several tables" in warning for warning in result.warnings)
    assert len(set(result.signatures["combined"].features)) == len(result.signatures["combined"].features)
    assert all(":" in name for name in result.signatures["rad"].features)


def test_tables_that_do_not_fit_are_refused() -> None:
    study = small_tables(n=20)
    assert study.radiomics is not None
    with pytest.raises(FeatureTableError, match="19 rows for 20"):
        replace(study, radiomics=study.radiomics.iloc[1:])
    with pytest.raises(FeatureTableError, match="no feature table"):
        StudyTables(study.patients)
    with pytest.raises(FeatureTableError, match="twice"):
        replace(study, patients=study.patients.assign(patient_id="p"))


# --- files -------------------------------------------------------------------------------------
def write_files(folder: Path) -> dict[str, Path]:
    study = small_tables(n=30, p=4)
    ids = [f"{i:04d}" for i in range(30)]
    outcome = study.patients.assign(patient_id=ids, cohort=study.patients["partition"]).drop(columns=["partition"])
    outcome.to_csv(folder / "outcome.csv", index=False)
    assert study.radiomics is not None
    study.radiomics.assign(patient_id=ids, diagnostics_Versions="3.0.1", outcome=1).iloc[::-1].to_csv(
        folder / "radiomics.csv", index=False
    )
    assert study.clinical is not None
    study.clinical.assign(patient_id=ids).iloc[:28].to_parquet(folder / "clinical.parquet")
    return {
        name: folder / f
        for name, f in zip(
            ("outcome", "radiomics", "clinical"), ("outcome.csv", "radiomics.csv", "clinical.parquet"), strict=True
        )
    }


def test_files_are_joined_by_text_ids(tmp_path: Path) -> None:
    tables = from_files(**write_files(tmp_path))
    study = small_tables(n=30, p=4)
    assert tables.patients["patient_id"].iloc[7] == "0007"
    assert tables.radiomics is not None
    assert study.radiomics is not None
    pd.testing.assert_frame_equal(tables.radiomics, study.radiomics)  # to the last bit, from CSV
    assert tables.clinical is not None
    assert tables.clinical.iloc[28:].isna().all(axis=None)
    assert any("lacks 2 of 30 patients" in warning for warning in tables.warnings)
    assert any("2 columns of radiomics.csv are no features" in warning for warning in tables.warnings)


def test_a_word_in_one_row_leaves_the_other_numbers_as_they_were(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    clean = from_files(**files).radiomics
    text = files["radiomics"].read_text(encoding="utf-8").splitlines()
    header = text[0].split(",")
    column = header.index("ct.vertebral_body.all.f03")
    cells = text[1].split(",")
    cells[column] = "rubbish"
    files["radiomics"].write_text("\n".join([text[0], ",".join(cells), *text[2:]]))
    dirty = from_files(**files).radiomics
    assert clean is not None
    assert dirty is not None
    assert np.isnan(dirty["ct.vertebral_body.all.f03"].iloc[-1])
    assert dirty.iloc[:-1].to_numpy().tobytes() == clean.iloc[:-1].to_numpy().tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("patient_id,outcome\n1,0\n", "no column cohort"),
        ("patient_id,outcome,cohort\n1,2,training\n", "1 outcomes are neither"),
        ("patient_id,outcome,cohort\n1,0,train\n", "1 rows have a cohort"),
        ("patient_id,outcome,cohort\n1,0,training\n1,1,training\n", "1 patients are there twice"),
        ("id,outcome,cohort\n1,0,training\n", "none is patient_id"),
        ("", "cannot be read"),
    ],
)
def test_outcome_files_that_cannot_be_used_say_why(tmp_path: Path, content: str, message: str) -> None:
    files = write_files(tmp_path)
    files["outcome"].write_text(content)
    with pytest.raises(FeatureTableError, match=message) as caught:
        from_files(**files)
    assert caught.value.file == "outcome.csv"
    assert caught.value.action


def test_real_table(shared_data: Path) -> None:
    """worc_desmoid's first 300 columns: 70/30 split, seed 0."""
    table = pd.read_csv(shared_data / "tables" / "worc_desmoid.csv")
    rng = np.random.default_rng(0)
    outcome = table["Target"].to_numpy()
    partition = np.full(len(table), "training", dtype=object)
    for value in (0, 1):
        rows = rng.permutation(np.flatnonzero(outcome == value))
        partition[rows[: round(0.3 * len(rows))]] = "internal_validation"
    patients = pd.DataFrame(
        {"patient_id": table["ID"].astype(str), "site": "a", "partition": partition, "outcome": outcome}
    )
    study = StudyTables(patients, radiomics=table.drop(columns=["ID", "Target"]).iloc[:, :300])
    result = run_study(study, small_settings())
    held_out = result.metrics["signatures"]["rad"]["cohorts"]["internal_validation"]
    assert held_out["n"] == len(table) - (partition == "training").sum()
    assert held_out["auc"] > 0.6
    assert abs(held_out["auc"] - result.metrics["signatures"]["rad"]["nested_auc"]) < 0.2
