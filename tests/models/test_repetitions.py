"""Repeated nested cross-validation and leaving sites out: options that change nothing that is released."""

from dataclasses import replace

import numpy as np
import pytest

from models.repetitions import leave_one_site_out
from models.study import run_study
from models.study_patients import StudyPatients
from tests.models.study_fixtures import small_settings, small_tables

FIXED = {"classifiers": {"rad": "logistic_regression"}, "ablation": False}


@pytest.fixture(scope="module")
def tables():
    study = small_tables(n=120, p=12, clinical=False, effect=0.7)
    site = np.array(["a", "b", "c"])[np.arange(120) % 3]
    return replace(study, deep=None, patients=study.patients.assign(site=site))


@pytest.fixture(scope="module")
def more(tables):
    return run_study(tables, small_settings(**FIXED, nested_repeats=2, leave_one_site_out=True))


def test_both_stand_beside_the_same_signature(tables, more):
    plain = run_study(tables, small_settings(**FIXED))
    assert plain.metrics["repeated_nested"] is plain.metrics["leave_one_site_out"] is None
    found = more.metrics["repeated_nested"]["rad"]
    assert found["aucs"][0] == plain.metrics["signatures"]["rad"]["nested_auc"]
    assert len(set(found["aucs"])) == 2
    assert found["mean"] == pytest.approx(np.mean(found["aucs"]))
    assert more.metrics["signatures"] == plain.metrics["signatures"]
    left_out = more.metrics["leave_one_site_out"]
    rows = left_out["signatures"]["rad"]["sites"]
    assert [(row["site"], row["n"]) for row in rows] == [("a", 24), ("b", 24), ("c", 24)]
    assert all(row["net_benefit"] is not None and row["brier"] > 0 for row in rows)
    pooled = left_out["signatures"]["rad"]["pooled"]
    assert pooled["prediction_interval"][0] <= pooled["auc_ci"][0] < pooled["auc"]
    assert left_out["skipped"] == []


def test_a_site_is_judged_without_its_own_outcomes(tables, more):
    """Turning a site's outcomes round turns its AUC round: nothing of it was fitted."""
    settings = small_settings(**FIXED, leave_one_site_out=True)
    study, _ = tables.in_order()
    patients = StudyPatients.from_tables(study, study.radiomics)
    turned = patients.with_outcomes(np.where(patients.site == "b", 1 - patients.y, patients.y))
    before = more.metrics["leave_one_site_out"]["signatures"]["rad"]["sites"][1]
    after = leave_one_site_out(turned, settings)["signatures"]["rad"]["sites"][1]
    assert after["auc"] == pytest.approx(1 - before["auc"], abs=1e-12)


def test_one_site_alone_says_why_not(tables):
    study, _ = tables.in_order()
    alone = StudyPatients.from_tables(replace(study, patients=study.patients.assign(site="a")), study.radiomics)
    found = leave_one_site_out(alone, small_settings(leave_one_site_out=True))
    assert "Fewer than two" in found["reason"]
    assert found["skipped"] == ["a"]
