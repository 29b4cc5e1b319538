"""The leakage check passes where there is none, and fails where training has seen the test patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from models.leakage import leakage_check, mean_interval
from models.protocol import TrainingPatients
from models.study_patients import StudyPatients
from models.study_tables import StudyTables
from tests.models.study_fixtures import small_settings, small_tables

SETTINGS = small_settings(permutations=6, permutation_folds=3)


@pytest.fixture(scope="module")
def patients() -> StudyPatients:
    study, _ = replace(small_tables(n=120, p=60), deep=None, clinical=None).in_order()
    return StudyPatients.from_tables(study, study.radiomics)


def test_passes_though_the_effect_is_strong(patients: StudyPatients) -> None:
    check = leakage_check(patients, "rad", SETTINGS)
    assert check.metrics["passed"]
    assert len(check.aucs) == 6
    assert check.metrics["permuted_auc_mean"] == pytest.approx(np.mean(check.aucs))
    assert leakage_check(patients, "rad", SETTINGS).aucs == check.aucs


def test_fails_where_training_has_seen_the_test_patients(
    patients: StudyPatients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StudyPatients, "training", lambda self: TrainingPatients(self.y, self.radiomics))
    check = leakage_check(patients, "rad", SETTINGS)
    assert check.metrics["passed"] is False
    assert check.metrics["permuted_auc_ci"][0] > 0.5


def of_sites(outcome: np.ndarray, shift: np.ndarray, site: np.ndarray) -> StudyPatients:
    """Columns that know the site and nothing of the outcome."""
    n = len(outcome)
    x = np.random.default_rng(1).normal(size=(n, 12)) + shift[:, None] * (np.arange(12) < 4)
    table = pd.DataFrame({"patient_id": [f"p{i:03d}" for i in range(n)], "site": site, "outcome": outcome})
    table["partition"] = np.where(np.arange(n) % 5 < 3, "training", "external_test")
    study = StudyTables(table, radiomics=pd.DataFrame(x, columns=[f"ct.f{i:02d}" for i in range(12)]))
    return StudyPatients.from_tables(study, study.radiomics)


def test_sites_that_differ_in_scanner_and_prevalence_are_no_leak() -> None:
    """Permuting within sites leaves each its share of events: over all pairs, a scanner's mark predicts them."""
    place = np.arange(180) % 3
    outcome = (np.random.default_rng(0).random(180) < 0.2 + 0.3 * place).astype(np.int64)
    settings = small_settings(permutations=8, permutation_folds=3, seed=100)
    check = leakage_check(of_sites(outcome, 1.5 * place, np.array(["a", "b", "c"])[place]), "rad", settings)
    assert check.metrics["passed"]
    assert abs(check.metrics["permuted_auc_mean"] - 0.5) < 0.1


def test_sites_of_one_outcome_each_leave_nothing_to_permute() -> None:
    place = np.arange(60) % 2
    check = leakage_check(of_sites(place.astype(np.int64), place, np.array(["a", "b"])[place]), "rad", SETTINGS)
    assert (check.metrics["passed"], check.metrics["n_permutations"], check.aucs) == (None, 0, [])
    assert "No site" in check.metrics["reason"]


def test_one_run_has_no_interval() -> None:
    assert mean_interval([0.6]) is None
    low, high = mean_interval([0.5, 0.6, 0.7])  # type: ignore[misc]
    assert (low + high) / 2 == pytest.approx(0.6)
    assert high - low == pytest.approx(2 * 4.302653 * 0.1 / np.sqrt(3), rel=1e-5)
