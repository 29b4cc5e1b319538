"""Columns that are the outcome under another name, or number the patients, are named; measurements are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from models.clinical_columns import ClinicalColumns
from models.data_checks import not_external, sentences, twins
from models.selection.matrix import FeatureMatrix
from models.study import run_study
from models.study_result import StudyResult
from models.telling_columns import telling_columns
from tests.models.study_fixtures import small_settings, small_tables


def test_leaks_and_numbers_are_named_and_measurements_are_not() -> None:
    rng = np.random.default_rng(0)
    n = 60
    y = rng.permutation(np.arange(n) % 2)
    x = rng.normal(size=(n, 6))
    x[:, 0] += 1.5 * y
    x[:, 1] = 1 - y + rng.normal(0, 0.1, n)
    x[:, 2] = 4000 + rng.permutation(n)
    x[:, 3] = rng.choice(10**6, n, replace=False)
    x[:, 4] = rng.choice(10**6, n, replace=False)
    names = ("good", "leak", "uid", "case nr", "voxels", "noise")
    clinical = ClinicalColumns.from_frame(pd.DataFrame({"revision": np.where(y, "yes", "no")}), np.arange(40))
    found = telling_columns(y, np.arange(40), [FeatureMatrix(names, x), None], clinical)
    assert [row["name"].split("=")[0] for row in found["outcome"]] in (["leak", "revision"], ["revision", "leak"])
    assert found["numbering"] == ["uid", "case nr"]


def test_many_columns_and_few_patients_have_perfect_ones_by_chance() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 4000))
    found = telling_columns(np.arange(12) % 2, np.arange(12), [FeatureMatrix(tuple(map(str, range(4000))), x)], None)
    assert found["outcome"] == []


def test_twins_in_training_and_external_patients_of_a_training_site() -> None:
    x = np.random.default_rng(0).normal(size=(6, 5))
    x[3] = x[0]
    matrix = FeatureMatrix(tuple("abcde"), x)
    assert twins(np.arange(5), matrix) == 2
    assert twins(np.arange(3), matrix) == 0
    assert twins(np.arange(5), FeatureMatrix(("a",), x[:, :1])) == 0
    part = np.array(["training"] * 3 + ["external_test"] * 3)
    assert not_external(part, np.array(["a", "a", "b", "a", "c", "unknown"]), "unknown") == 1
    assert not_external(part, np.array(["unknown"] * 6), "unknown") == 0
    said = " ".join(sentences({"copies": 0, "heavy_tailed": {}, "batch_like": {}, "scales": {}, "twins": 2}, {}))
    assert said.startswith("2 training patients have the very features of another")


@pytest.fixture(scope="module")
def leaky() -> StudyResult:
    """A table in which one column is the outcome: every figure is perfect."""
    study = small_tables(clinical=False)
    radiomics = study.radiomics.assign(target=study.outcome.astype(float))
    clinical = pd.DataFrame({"note": [f"seen {i}" for i in range(80)], "age": np.arange(80) % 30})
    settings = small_settings(
        classifiers={"rad": "logistic_regression", "combined": "logistic_regression"}, ablation=False
    )
    return run_study(replace(study, radiomics=radiomics, deep=None, clinical=clinical), settings)


def test_a_study_on_its_own_outcome_ends_and_says_so_first(leaky: StudyResult) -> None:
    assert leaky.metrics["signatures"]["rad"]["cohorts"]["external_test"]["auc"] == 1
    assert any("Alone as good as the outcome itself: target (AUC 1.000)" in said for said in leaky.warnings)
    assert any("of sites that training has too" in said for said in leaky.warnings)
    assert leaky.metrics["warnings"] == leaky.warnings


def test_clinical_variables_that_could_not_be_used_are_named(leaky: StudyResult) -> None:
    assert any("not used: note (" in said for said in leaky.warnings)
