"""Pooling over sites: against statsmodels, against the definition, and in simulated sites."""

import numpy as np
import pytest
from scipy.stats import t
from statsmodels.stats.meta_analysis import combine_effects

from feature_store.errors import UsageError
from models.evaluation.across_sites import back_to_auc, logit_auc, pool
from models.evaluation.auc import auc, delong_variance

# Effects and variances of the BCG trials (Colditz et al. 1994), the worked example of many textbooks.
BCG = [
    (-0.8893, 0.3256), (-1.5854, 0.1946), (-1.3481, 0.4154), (-1.4416, 0.0200), (-0.2175, 0.0512),
    (-0.7861, 0.0069), (-1.6209, 0.2230), (0.0120, 0.0040), (-0.4694, 0.0564), (-1.3713, 0.0730),
    (-0.3394, 0.0124), (0.4459, 0.5325), (-0.0173, 0.0714),
]  # fmt: skip


def test_equals_statsmodels_on_the_bcg_trials():
    x, v = np.array(BCG).T
    ours = pool(x, v)
    theirs = combine_effects(x, v, method_re="pm", use_t=True)
    assert ours.tau**2 == pytest.approx(theirs.tau2, abs=1e-6)
    assert ours.mean == pytest.approx(theirs.mean_effect_re, abs=1e-6)
    assert ours.ci == pytest.approx(theirs.conf_int()[3], abs=1e-5)  # random effects, Hartung and Knapp
    assert ours.i2 == pytest.approx(theirs.i2, abs=1e-9)
    reach = t.isf(0.025, 12) * np.sqrt(ours.tau**2 + ((ours.ci[1] - ours.mean) / t.isf(0.025, 12)) ** 2)
    assert ours.prediction == pytest.approx((ours.mean - reach, ours.mean + reach))


def test_sites_that_agree_have_no_spread_and_two_sites_predict_nothing():
    same = pool([0.5, 0.5, 0.5], [0.01, 0.02, 0.03])
    assert (same.tau, same.i2) == (0.0, 0.0)
    assert same.mean == pytest.approx(0.5)
    assert same.ci[0] < 0.5 < same.ci[1]
    assert pool([0.1, 0.9], [0.01, 0.01]).prediction is None
    for wrong in (([0.5], [0.1]), ([0.5, 0.6], [0.1, 0.0]), ([0.5, np.nan], [0.1, 0.1])):
        with pytest.raises(UsageError):
            pool(*wrong)


def test_the_prediction_interval_holds_the_next_site():
    """Six sites of 60 to 200 patients; true values between sites with SD 0.4: coverage over 400 draws."""
    rng = np.random.default_rng(3)
    held = covered = 0
    for _ in range(400):
        truth = rng.normal(1.0, 0.4, size=7)
        v = 1 / rng.integers(15, 50, size=6)
        found = pool(truth[:6] + rng.normal(size=6) * np.sqrt(v), v)
        assert found.prediction is not None
        held += found.prediction[0] <= truth[6] <= found.prediction[1]
        covered += found.ci[0] <= 1.0 <= found.ci[1]
    assert 0.91 <= held / 400 <= 0.985
    assert 0.92 <= covered / 400 <= 0.99


def test_logit_auc_and_back():
    rng = np.random.default_rng(0)
    y = np.repeat([1, 0], [20, 30])
    scores = rng.normal(size=50) + y
    estimate, variance = logit_auc(y, scores)
    area = auc(y, scores)
    assert estimate == pytest.approx(np.log(area / (1 - area)))
    assert variance == pytest.approx(delong_variance(y, scores) / (area * (1 - area)) ** 2)
    assert logit_auc([1, 0, 0], [0.3, 0.2, 0.1]) is None
    assert logit_auc([1, 1, 0, 0], [4, 3, 2, 1]) is None
    pooled = back_to_auc(pool([estimate, estimate], [variance, variance]))
    assert pooled["auc"] == pytest.approx(area)
    assert pooled["prediction_interval"] is None
