"""What stands beside the signatures: by part, by site and by kind of patient."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from models.ablation import ablation, axes_of
from models.classifiers import configurations
from models.clinical_columns import ClinicalColumns
from models.evaluation.auc import auc
from models.evaluation.calibration import calibration_slope
from models.evaluation.cohort_metrics import cohort_metrics
from models.evaluation.net_benefit import net_benefit, treat_all
from models.folds import stratified_folds
from models.protocol import develop
from models.sites import by_site, per_site
from models.study_patients import StudyPatients
from models.subgroups import subgroups
from tests.models.study_fixtures import small_settings, small_tables


def test_axes_are_read_from_names():
    names = (
        "ct.vertebral_body.all.original_shape_MeshVolume",
        "t1_sag.vertebral_body.all.wavelet-HHH_glcm_Contrast",
        "t2_sag.intervertebral_disc.all.original_glcm_Contrast",
        "something_else",
    )
    axes = axes_of(names)
    assert {axis: {part: len(columns) for part, columns in parts.items()} for axis, parts in axes.items()} == {
        "modality": {"CT": 1, "MR": 2},
        "sequence": {"ct": 1, "t1_sag": 1, "t2_sag": 1},
        "structure": {"vertebral_body": 2, "intervertebral_disc": 1},
        "family": {"shape": 1, "glcm": 2},
    }
    assert axes_of(("a", "b")) == {}


def test_the_part_that_was_planted_is_worth_most():
    """Only columns of CT know the outcome: alone they do as well, and without them nothing is left."""
    study = small_tables(n=200, p=24, clinical=False)
    sequence = np.array(["ct", "t1_sag", "t2_sag"])[np.arange(24) // 8]
    names = [f"{s}.vertebral_body.all.f{i:02d}" for i, s in enumerate(sequence)]
    study, _ = replace(study, deep=None, radiomics=study.radiomics.set_axis(names, axis=1)).in_order()
    patients = StudyPatients.from_tables(study, study.radiomics)
    settings = small_settings(classifiers={"rad": "logistic_regression"})
    training = patients.training()
    points = configurations("quick", ["logistic_regression"])
    development = develop(training, stratified_folds(training.y, 3, 0), settings, points=points)
    held = patients.partition != "training"
    rad = np.where(held, development.signatures["rad"].probabilities(patients.frame(np.arange(200))), np.nan)
    rows = ablation(patients, development, study.patients.assign(rad=rad), settings)
    found = {(r["axis"], r["part"], r["use"], r["cohort"]): r for r in rows}
    alone = found["sequence", "ct", "alone", "external_test"]
    without = found["sequence", "ct", "without", "external_test"]
    other = found["sequence", "t1_sag", "alone", "external_test"]
    assert alone["auc"] > 0.8 > 0.7 > max(without["auc"], other["auc"])
    assert (alone["n_columns"], without["n_columns"]) == (8, 16)
    external = study.patients["partition"] == "external_test"
    whole = auc(study.outcome[external], rad[external])
    assert without["difference"] == pytest.approx(without["auc"] - whole, abs=1e-12)
    assert without["difference_ci"][1] < 0


def test_sites_one_by_one_and_together():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    table = pd.DataFrame({"site": np.repeat(["a", "b", "c", "d"], 50), "outcome": y, "partition": "external_test"})
    table["rad"] = 1 / (1 + np.exp(-rng.normal(size=200) - y))
    table.loc[table["site"] == "d", "outcome"] = 1
    found = by_site(table, "rad", dict.fromkeys("abcd", 0.5))
    assert [row["site"] for row in found["sites"]] == ["a", "b", "c", "d"]
    assert found["sites"][0]["auc"] == auc(y[:50], table["rad"][:50])
    whole = cohort_metrics(y[:50], table["rad"][:50], 0.5)
    first, last = found["sites"][0], found["sites"][3]
    for name in ("brier", "calibration_slope", "calibration_intercept", "net_benefit"):
        assert first[name] == whole[name] is not None
    assert first["net_benefit_treat_all"] == treat_all(y[:50], 0.5)
    assert (last["auc"], last["events"], last["net_benefit"], last["brier"]) == (None, 50, None, None)
    assert last["reason"] == "fewer than 5 patients of one outcome"
    assert found["pooled"]["n_sites"] == 3
    low, high = found["pooled"]["prediction_interval"]
    assert low < found["pooled"]["auc"] < high
    assert per_site(table.assign(site="a"), {"rad": 0.5}) == {}


def test_subgroups_are_divided_at_the_training_median_and_small_ones_counted():
    rng = np.random.default_rng(1)
    n = 120
    partition = np.repeat(["training", "external_test"], 60)
    clinical = pd.DataFrame({"age": np.arange(n, dtype=float), "sex": rng.choice(["f", "m"], n)})
    clinical.loc[119, "age"] = np.nan
    y = np.arange(n) % 2
    predictions = pd.DataFrame({"partition": partition, "outcome": y, "rad": rng.random(n)})
    columns = ClinicalColumns.from_frame(clinical, np.arange(60))
    rows = {(r["variable"], r["level"], r["cohort"]): r for r in subgroups(columns, predictions, {"rad": 0.4})}
    older = rows["age", "> 29.5", "held_out"]
    assert (older["n"], older["events"]) == (59, 29)  # one without an age
    assert older["auc"] == pytest.approx(auc(y[60:119], predictions["rad"][60:119]))
    assert older["net_benefit"] == net_benefit(y[60:119], predictions["rad"][60:119], 0.4)
    assert older["calibration_slope"] == calibration_slope(y[60:119], predictions["rad"][60:119])
    assert ("age", "≤ 29.5", "held_out") not in rows
    assert rows["sex", "f", "training"]["n"] + rows["sex", "m", "training"]["n"] == 60
    few = subgroups(columns, predictions.assign(outcome=(np.arange(n) == 61).astype(int)), {"rad": 0.4})
    assert all(row["auc"] is None and 0 <= row["observed"] <= 1 for row in few)
    assert all(row["brier"] is None and "fewer than 5" in row["reason"] for row in few)
    assert subgroups(None, predictions, {"rad": 0.4}) == []
