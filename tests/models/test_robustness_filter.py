"""The filter in front of selection: noisy features go, stable ones stay, and what was not measured is not judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.errors import FeatureTableError
from models.report.render import write_report
from models.selection.repeatability import robust_radiomics
from models.selection.robustness import (
    COLUMNS,
    PERTURBATION,
    READERS,
    RobustnessRule,
    checked,
    read_robustness,
    robust_names,
    robustness_rows,
)
from models.study import run_study
from models.study_settings import StudySettings
from models.study_tables import StudyTables, from_files
from tests.models.study_fixtures import small_settings, small_tables

RULE = RobustnessRule()


def measured(
    noise: dict[str, float], kind: str = PERTURBATION, n: int = 30, patients: str = "training"
) -> pd.DataFrame:
    """Each feature is a patient's own number (SD 1 around 10) and noise of that SD in six versions."""
    rng = np.random.default_rng(0)
    own = rng.normal(10, 1, (n, 1, len(noise)))
    values = own + rng.normal(size=(n, 6, len(noise))) * np.array(list(noise.values()))
    return robustness_rows(kind, list(noise), values, patients)


def test_noisy_features_go_and_stable_ones_stay() -> None:
    table = measured({"r.a": 0.1, "r.b": 0.2, "r.noise1": 1.5, "r.noise2": 3.0})
    kept, record, notes = robust_names(["r.a", "r.b", "r.noise1", "r.noise2"], table, RULE)
    assert kept == ["r.a", "r.b"]
    assert (record["given"], record["kept"], record["dropped"], record["unmeasured"]) == (4, 2, 2, 0)
    (rule,) = record["rules"]
    assert (rule["kind"], rule["measure"], rule["failed"], rule["n_subjects"]) == (PERTURBATION, "icc_2_1", 2, [30, 30])
    assert notes == [
        "2 of 4 features had an ICC(2,1) under 0.75 in 30 training patients with region and image changed a little, "
        "and are left out."
    ]


def test_a_feature_must_pass_in_every_kind_and_every_measure() -> None:
    names = ["r.a", "r.b", "r.c"]
    table = pd.concat([measured({n: 0.1 for n in names}), measured({"r.a": 0.1, "r.b": 2.0}, READERS)])
    assert robust_names(names, table, RULE)[0] == ["r.a", "r.c"]
    varied = measured({"r.a": 0.05, "r.b": 0.3, "r.c": 0.3})
    assert robust_names(names, varied, RULE)[0] == names
    assert robust_names(names, varied, RobustnessRule(max_cv=0.015))[0] == ["r.a"]
    no_cv = varied.assign(cv=[0.005, np.nan, 0.03])  # changes its sign: no CV, judged by its ICC alone
    kept, record, _ = robust_names(names, no_cv, RobustnessRule(max_cv=0.015))
    assert kept == ["r.a", "r.b"]
    assert record["rules"][1]["without_value"] == 1


def test_agreement_or_consistency() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (40, 1, 1)) + np.array([0.0, 3.0])[None, :, None] + rng.normal(0, 0.1, (40, 2, 1))
    table = pd.concat([robustness_rows(READERS, ["r.biased"], values, "training"), measured({"r.a": 0.1}, READERS)])
    assert robust_names(["r.a", "r.biased"], table, RULE)[0] == ["r.a"]
    assert robust_names(["r.a", "r.biased"], table, RobustnessRule(icc="icc_3_1"))[0] == ["r.a", "r.biased"]


def test_features_that_nothing_was_measured_of() -> None:
    table = measured({"r.a": 0.1, "r.b": 3.0})
    kept, record, notes = robust_names(["r.a", "r.b", "q.c"], table, RULE)
    assert kept == ["r.a", "q.c"]
    assert (record["unmeasured"], record["unmeasured_are"]) == (1, "kept")
    assert "Of 1 features no robustness was measured; they are kept." in notes
    assert robust_names(["r.a", "r.b", "q.c"], table, RobustnessRule(unmeasured="drop"))[0] == ["r.a"]


def test_features_without_an_icc_fail_where_their_region_was_measured() -> None:
    values = np.random.default_rng(0).normal(0, 1, (20, 1, 3)) + np.zeros((20, 4, 3))
    values[:, :, 1] = 5.0  # the same everywhere
    values[3:, 1, 2] = np.nan  # only three patients had it in every version
    table = robustness_rows(PERTURBATION, ["r.a", "r.constant", "r.missing"], values, "training")
    assert robust_names(["r.a", "r.constant", "r.missing"], table, RULE)[0] == ["r.a"]


def test_a_region_of_few_patients_is_not_judged() -> None:
    table = pd.concat([measured({"r.a": 0.1, "r.b": 3.0}), measured({"q.c": 3.0}, n=4)])
    kept, record, _ = robust_names(["r.a", "r.b", "q.c"], table, RULE)
    assert kept == ["r.a", "q.c"]
    assert record["unmeasured"] == 1
    _, record, notes = robust_names(["q.c"], measured({"q.c": 3.0}, n=4), RULE)
    assert record["rules"] == []
    assert "not judged" in notes[0]


def test_unknown_features_are_counted_and_refused() -> None:
    table = measured({"r.a": 0.1, "r.x": 0.1, "r.y": 0.1})
    with pytest.raises(FeatureTableError, match="2 of 3 rows"):
        robust_names(["r.a"], table, RULE)
    nowhere = robustness_rows(PERTURBATION, ["r.gone"], np.full((9, 3, 1), np.nan), "training")
    assert robust_names(["r.a"], pd.concat([measured({"r.a": 0.1}), nowhere]), RULE)[0] == ["r.a"]


def test_nothing_robust_is_an_error() -> None:
    with pytest.raises(FeatureTableError, match="None of 2"):
        robust_names(["r.a", "r.b"], measured({"r.a": 4.0, "r.b": 4.0}), RULE)


def test_patients_who_may_be_test_patients_are_said_so() -> None:
    notes = robust_names(["r.a"], measured({"r.a": 0.1}, patients="unassigned"), RULE)[2]
    assert "does not say that all its patients are training patients (unassigned)" in notes[-1]
    assert "training patients" not in notes[0]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_table_as_a_file(tmp_path: Path, suffix: str) -> None:
    table, path = measured({"r.a": 0.1, "r.b": 3.0}), tmp_path / f"r.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path, index=False)
    pd.testing.assert_frame_equal(read_robustness(path), table, check_dtype=False, rtol=1e-12)
    for broken, said in (
        (table.drop(columns="cv"), "no column cv"),
        (table.assign(kind="guess"), "2 rows have an unknown kind"),
        (pd.concat([table, table]), "2 repeat a feature"),
        (table.assign(icc_2_1="high"), "1 columns are no numbers"),
    ):
        broken.to_csv(path, index=False) if suffix == "csv" else broken.to_parquet(path, index=False)
        with pytest.raises(FeatureTableError, match=said):
            read_robustness(path)
    path.write_text("\0")
    with pytest.raises(FeatureTableError, match=r"no column|cannot be read"):
        read_robustness(path)
    with pytest.raises(FeatureTableError, match="no such file"):
        read_robustness(tmp_path / "none.csv")


# --- repeats, through the same filter ----------------------------------------------------------
def repeats_of(study: StudyTables, rows: np.ndarray, noisy: list[int], segmentation: str = "b") -> pd.DataFrame:
    assert study.radiomics is not None
    again = study.radiomics.iloc[rows].copy()
    again.iloc[:, noisy] = np.random.default_rng(len(segmentation)).normal(size=(len(rows), len(noisy)))
    again.insert(0, "patient_id", study.patients.iloc[rows]["patient_id"].to_numpy())
    again.insert(1, "segmentation", segmentation)
    return again


def test_repeats_of_test_patients_count_nothing() -> None:
    study = small_tables(p=6)
    training, test = study.rows("training")[:20], study.rows("external_test")
    repeats = pd.concat([repeats_of(study, training, []), repeats_of(study, test, [1, 2, 3])])
    found = robust_radiomics(replace(study, repeats=repeats), RULE)
    assert found.record is not None
    assert found.record["rules"][0]["n_subjects"] == [20, 20]
    assert found.record["dropped"] == 0
    few = robust_radiomics(replace(study, repeats=repeats_of(study, test, [1])), RULE)
    assert few.record is None
    assert "0 training patients have repeated segmentations of 6" in few.notes[0]


def test_two_readings_are_held_against_each_other() -> None:
    study = small_tables(p=6)
    rows = study.rows("training")[:20]
    both = pd.concat([repeats_of(study, rows, [4], "a"), repeats_of(study, rows, [4, 5], "bb")])
    found = robust_radiomics(replace(study, repeats=both), RULE)
    assert found.table is not None
    assert study.radiomics is not None
    assert list(found.table.columns) == list(study.radiomics.columns[:4])
    assert found.record is not None
    assert found.record["rules"][0]["n_versions"] == 2


def test_a_missing_value_costs_its_patient_that_feature_and_no_other() -> None:
    study = small_tables(p=6)
    repeats = repeats_of(study, study.rows("training")[:20], [])
    repeats.iloc[:3, 4] = np.nan
    found = robust_radiomics(replace(study, repeats=repeats), RULE)
    assert found.record is not None
    assert found.record["rules"][0]["n_subjects"] == [17, 20]
    assert found.record["dropped"] == 0


def test_ambiguous_repeats_are_refused() -> None:
    study = small_tables(p=6)
    rows = study.rows("training")[:20]
    twice = pd.concat([repeats_of(study, rows, []), repeats_of(study, rows[:2], [])])
    with pytest.raises(FeatureTableError, match="2 rows of the repeats"):
        robust_radiomics(replace(study, repeats=twice), RULE)
    same_id = study.patients.assign(patient_id=[f"p{i // 3}" for i in range(80)], site=[f"s{i % 3}" for i in range(80)])
    with pytest.raises(FeatureTableError, match="Two sites"):
        robust_radiomics(replace(study, patients=same_id, repeats=repeats_of(study, rows, [])), RULE)


# --- the whole study ---------------------------------------------------------------------------
def test_a_study_leaves_unstable_features_out_and_says_so_everywhere(tmp_path: Path) -> None:
    study = small_tables(n=60, p=20, clinical=False)
    assert study.radiomics is not None
    names = list(study.radiomics.columns)
    noise = {name: 3.0 if i in (0, 1, 10, 11) else 0.1 for i, name in enumerate(names[:18])}
    radiomics = tmp_path / "radiomics.parquet"
    pd.concat([study.patients[["patient_id"]], study.radiomics], axis=1).to_parquet(radiomics)
    outcome = study.patients.rename(columns={"partition": "cohort"})
    outcome.to_csv(tmp_path / "outcome.csv", index=False)
    measured(noise).to_parquet(tmp_path / "robustness.parquet")
    files = {"outcome": tmp_path / "outcome.csv", "robustness": tmp_path / "robustness.parquet"}
    tables = from_files(radiomics=radiomics, **files)
    result = run_study(tables, small_settings(icc_form="icc_3_1"))
    record = result.metrics["robustness"]
    assert (record["given"], record["dropped"], record["unmeasured"]) == (20, 4, 2)
    assert record["rules"][0]["measure"] == "icc_3_1"
    gone = {names[i] for i in (0, 1, 10, 11)}
    assert not gone & {feature["name"] for feature in result.metrics["signatures"]["rad"]["features"]}
    assert names[2] in {feature["name"] for feature in result.metrics["signatures"]["rad"]["features"]}
    assert any("4 of 18 features had an ICC(3,1) under 0.75" in warning for warning in result.warnings)
    assert result.settings.icc_form == "icc_3_1"
    text = write_report(result, tmp_path / "out", "t").read_text(encoding="utf-8")
    assert "Before any selection 4 of 20 radiomics features were left out" in text
    assert "small changes" in text
    unfiltered = robust_radiomics(replace(tables, robustness=None), RULE)
    assert unfiltered.record is None
    assert unfiltered.table is tables.radiomics


def test_names_that_tables_share_are_renamed_everywhere() -> None:
    study = small_tables(n=60, p=6, q=6, clinical=False)
    assert study.radiomics is not None
    assert study.deep is not None
    names = list(study.radiomics.columns)
    study = replace(study, deep=study.deep.set_axis(names, axis=1))
    repeats = repeats_of(study, study.rows("training")[:20], [4])
    noise = {name: 2.0 if i == 5 else 0.1 for i, name in enumerate(names)}
    renamed = replace(study, repeats=repeats, robustness=measured(noise)).with_distinct_names()
    found = robust_radiomics(renamed, RULE)
    assert found.table is not None
    assert list(found.table.columns) == [f"radiomics:{name}" for name in names[:4]]


def test_settings_are_part_of_the_hash() -> None:
    assert StudySettings(max_cv=0.2).hash() != StudySettings().hash() != StudySettings(icc_form="icc_3_1").hash()
    assert StudySettings(icc_cutoff=0.9).robustness_rule() == RobustnessRule(min_icc=0.9)
    assert tuple(checked(measured({"r.a": 0.1})).columns) == COLUMNS
