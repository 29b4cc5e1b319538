"""The one place that fills a cohort's part of metrics.json."""

import json

import numpy as np
import pytest

from models.evaluation.cohort_metrics import at_threshold, cohort_metrics
from models.evaluation.curves import curves

KEYS = {
    *("n", "events", "auc", "auc_ci", "accuracy", "accuracy_ci", "sensitivity", "sensitivity_ci"),
    *("specificity", "specificity_ci", "f1", "f1_ci", "brier"),
    *("calibration_slope", "calibration_intercept", "net_benefit"),
}


def test_every_key_and_strict_json():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    metrics = cohort_metrics(y, np.clip(0.3 * y + 0.6 * rng.random(60), 0, 1), 0.5, seed=1)
    assert set(metrics) == KEYS
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    for name in ("auc", "accuracy", "sensitivity", "specificity", "f1"):
        low, high = metrics[f"{name}_ci"]
        assert low <= metrics[name] <= high


@pytest.mark.parametrize(("y", "p"), [([1, 1, 1], [0.2, 0.5, 0.7]), ([0, 0], [0.2, 0.5]), ([1], [0.9]), ([], [])])
def test_one_class_or_nobody_is_null_and_no_crash(y, p):
    metrics = cohort_metrics(y, p, 0.5)
    assert set(metrics) == KEYS
    json.dumps(metrics, allow_nan=False)
    assert metrics["auc"] is metrics["auc_ci"] is metrics["calibration_slope"] is None
    assert metrics["n"] == len(y)
    if not sum(y):
        assert metrics["sensitivity"] is None


def test_separated_cohort_and_extreme_thresholds():
    metrics = cohort_metrics([0, 0, 1, 1], [0.0, 0.1, 0.9, 1.0], 1.0)
    assert metrics["auc"] == 1.0
    assert metrics["auc_ci"][0] < 1.0
    assert metrics["calibration_slope"] is None
    assert metrics["net_benefit"] is None
    json.dumps(metrics, allow_nan=False)


def test_high_risk_is_at_or_above_the_threshold():
    assert cohort_metrics([1, 0], [0.5, 0.4], 0.5)["sensitivity"] == 1.0


def test_at_a_declared_threshold_by_hand():
    """Four patients, a quarter as threshold: a false alarm costs a third of a hit."""
    found = at_threshold([1, 1, 0, 0], [0.25, 0.1, 0.9, 0.2], 0.25)
    assert (found["sensitivity"], found["specificity"]) == (0.5, 0.5)
    assert found["net_benefit"] == pytest.approx((1 - 1 / 3) / 4)
    assert found["net_benefit_treat_all"] == pytest.approx((2 - 2 / 3) / 4)
    assert at_threshold([1, 1], [0.5, 0.1], 0.25)["specificity"] is None


def test_training_that_was_calibrated_on_itself_costs_two_degrees_of_freedom():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 300)
    y = (rng.random(300) < p).astype(int)
    dfs = [curves(y, p, held_out=held_out)["hosmer_lemeshow"]["df"] for held_out in (True, False)]
    assert dfs == [10, 8]
