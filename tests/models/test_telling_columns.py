"""Columns that are the outcome under another name, or number the patients, are named; measurements are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from models.clinical_columns import ClinicalColumns
from models.data_checks import not_external, sentences, twins, uneven_sites
from models.protocol import Development
from models.selection.matrix import FeatureMatrix
from models.study import _not_used, run_study
from models.study_patients import StudyPatients
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


def test_sites_that_differ_in_their_share_of_events_are_named() -> None:
    site = np.repeat(["a", "b", "c"], 40)
    y = (np.arange(120) % 10 < np.repeat([2, 4, 7], 40)).astype(np.int64)
    shares = uneven_sites(y, site)
    assert shares == pytest.approx({"a": 0.2, "b": 0.4, "c": 0.7})
    assert uneven_sites(np.arange(120) % 2, site) == uneven_sites(y, np.repeat(["a"], 120)) == {}
    checks = {"copies": 0, "heavy_tailed": {}, "batch_like": {}, "scales": {}, "uneven_sites": shares}
    assert "from 20 % (a) to 70 % (c)" in " ".join(sentences(checks, {}))


def test_a_study_on_its_own_outcome_ends_and_says_so() -> None:
    """A table in which one column is the outcome: every figure is perfect, and no step stumbles over it."""
    study = small_tables(n=60, p=6, clinical=False)
    assert study.radiomics is not None
    radiomics = study.radiomics.assign(target=study.outcome.astype(float))
    found = run_study(replace(study, radiomics=radiomics, deep=None), small_settings(ablation=False))
    assert found.metrics["signatures"]["rad"]["cohorts"]["external_test"]["auc"] == 1
    assert any("Alone as good as the outcome itself: target (AUC 1.000)" in said for said in found.warnings)
    assert any("of sites that training has too" in said for said in found.warnings)
    assert found.metrics["warnings"] == found.warnings


def test_clinical_variables_that_could_not_be_used_and_a_study_without_signature_are_said() -> None:
    study = small_tables(n=40)
    assert study.clinical is not None
    study = replace(study, clinical=study.clinical.assign(note=[f"seen {i}" for i in range(40)], one=1))
    notes = _not_used(StudyPatients.from_tables(study, None), study, Development())
    assert notes[0].startswith("Clinical variables that are not used: note, one (")
    assert notes[1].startswith("No signature was made")
