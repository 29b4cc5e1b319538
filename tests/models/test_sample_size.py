"""Sample sizes against published worked examples and against simulated patients."""

import math

import numpy as np
import pytest

from feature_store.errors import UsageError
from models.evaluation.auc import auc
from models.evaluation.calibration import calibration_slope_ci
from models.evaluation.sample_size import (
    development_size,
    expected_shrinkage,
    expected_widths,
    highest_r2,
    parameters_allowed,
    r2_of_auc,
    validation_size,
)


def test_development_as_published():
    """The worked example that comes with Riley's own program: R² 0.288, 24 parameters, prevalence 0.174."""
    size = development_size(24, 0.288, 0.174)
    assert (size.shrinkage, size.optimism, size.mean_risk, size.needed) == (623, 662, 221, 662)


def test_validation_as_published():
    """Riley et al. 2021, venous thrombosis: prevalence 0.018, AUC 0.8, log-odds N(−5, 2.5): 4544 and 4252 patients."""
    size = validation_size(0.8, 0.018, (-5.0, 2.5))
    assert size.auc == pytest.approx(4252, abs=1)
    assert size.calibration_slope == pytest.approx(4544, rel=0.01)  # theirs draws a million patients


def test_largest_r2_is_that_of_a_perfect_model():
    for prevalence in (0.05, 0.3, 0.5):
        null = prevalence * math.log(prevalence) + (1 - prevalence) * math.log(1 - prevalence)
        assert highest_r2(prevalence) == pytest.approx(1 - math.exp(2 * null), abs=1e-12)
    assert highest_r2(0.5) == pytest.approx(0.75, abs=1e-12)


@pytest.mark.parametrize(("area", "prevalence"), [(0.65, 0.4), (0.8, 0.1), (0.9, 0.5)])
def test_r2_of_an_auc_is_that_of_simulated_patients(area, prevalence):
    from scipy.stats import norm
    from statsmodels.api import Logit

    rng = np.random.default_rng(0)
    y = (rng.random(60_000) < prevalence).astype(int)
    x = rng.normal(size=y.size) + math.sqrt(2) * norm.ppf(area) * y
    assert auc(y, x) == pytest.approx(area, abs=0.008)
    fit = Logit(y, np.column_stack([np.ones_like(x), x])).fit(disp=0)
    assert r2_of_auc(area, prevalence) == pytest.approx(1 - math.exp(2 * (fit.llnull - fit.llf) / y.size), abs=0.008)


def test_an_auc_of_one_half_explains_nothing():
    assert r2_of_auc(0.5, 0.3) == pytest.approx(0, abs=1e-12)
    with pytest.raises(UsageError, match="no sample size"):
        development_size(3, r2_of_auc(0.5, 0.3), 0.3)
    with pytest.raises(UsageError):
        highest_r2(1.0)


def test_shrinkage_and_parameters_invert_the_criterion():
    size = development_size(24, 0.288, 0.174)
    assert expected_shrinkage(size.shrinkage, 24, 0.288) == pytest.approx(0.9, abs=2e-4)
    assert parameters_allowed(size.shrinkage, 0.288) == 24
    assert expected_shrinkage(50, 2000, 0.1) == 0.0
    assert expected_shrinkage(300, 10, 0.2) < expected_shrinkage(600, 10, 0.2) < 1


def test_expected_widths_are_reached_and_seen():
    rng = np.random.default_rng(1)
    eta = rng.normal(-0.5, 1.2, size=20_000)
    prevalence = float((1 / (1 + np.exp(-eta))).mean())
    y = rng.random(eta.size) < 1 / (1 + np.exp(-eta))
    area = auc(y, eta)
    size = validation_size(area, prevalence, eta)
    assert expected_widths(size.calibration_slope, area, prevalence, eta)["calibration_slope"] == pytest.approx(
        0.2, abs=1e-3
    )
    assert expected_widths(size.auc, area, prevalence, eta)["auc"] == pytest.approx(0.1, abs=1e-3)
    low, high = calibration_slope_ci(y[:1000], 1 / (1 + np.exp(-eta[:1000])))
    assert high - low == pytest.approx(expected_widths(1000, area, prevalence, eta)["calibration_slope"], rel=0.15)


@pytest.mark.parametrize("area", [1.0, 0.9999])
def test_a_perfect_model_is_validated_by_the_fewest_patients(area):
    size = validation_size(area, 0.25, (0.0, 1.0))
    assert size.auc == 8
    assert size.needed == max(size.observed_expected, size.calibration_slope)
