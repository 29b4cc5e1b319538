"""The leakage check passes where there is none, and fails where training has seen the test patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.leakage import leakage_check, mean_interval
from models.protocol import TrainingPatients
from models.study_patients import StudyPatients
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


def test_one_run_has_no_interval() -> None:
    assert mean_interval([0.6]) is None
    low, high = mean_interval([0.5, 0.6, 0.7])  # type: ignore[misc]
    assert (low + high) / 2 == pytest.approx(0.6)
    assert high - low == pytest.approx(2 * 4.302653 * 0.1 / np.sqrt(3), rel=1e-5)
