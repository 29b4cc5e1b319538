"""Those who were not followed up, and what was there before surgery: flow, weights and incident degeneration."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from models.censoring import censoring_record, observed_weights
from models.evaluation.auc import auc
from models.evaluation.weighted import effective_size, weighted_auc, weighted_observed_expected
from models.incident import incident_record
from models.study_figures import flow_steps
from models.study_tables import from_files


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_auc_equals_scikit_learn_and_whole_weights_equal_copies(ties):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    scores = np.round(rng.normal(size=60) + y, 0 if ties else 9)
    w = rng.integers(1, 4, 60)
    assert weighted_auc(y, scores, w) == pytest.approx(roc_auc_score(y, scores, sample_weight=w), abs=1e-12)
    assert weighted_auc(y, scores, w) == pytest.approx(auc(np.repeat(y, w), np.repeat(scores, w)), abs=1e-12)
    assert weighted_auc(y, scores, np.ones(60)) == pytest.approx(auc(y, scores), abs=1e-12)
    assert effective_size(np.ones(60)) == pytest.approx(60)
    p = 1 / (1 + np.exp(-scores))
    copies = np.repeat(y, w).sum() / np.repeat(p, w).sum()
    assert weighted_observed_expected(y, p, w) == pytest.approx(copies, abs=1e-12)


def test_weights_give_back_the_auc_of_everybody():
    """Old patients are lost more often and are predicted worse: the weighted AUC is nearer to that of all 4,000."""
    rng = np.random.default_rng(1)
    n = 4000
    old = rng.random(n) < 0.5
    y = (rng.random(n) < 0.4).astype(int)
    scores = rng.normal(size=n) + np.where(old, 0.3, 2.0) * y
    risk = 1 / (1 + np.exp(-scores))
    seen = rng.random(n) < np.where(old, 0.25, 0.9)
    clinical = pd.DataFrame({"age": np.where(old, 80.0, 50.0) + rng.normal(size=n)})
    predictions = pd.DataFrame({"partition": "external_test", "outcome": y, "rad": risk})[seen].reset_index(drop=True)
    record = censoring_record(clinical[seen].reset_index(drop=True), clinical[~seen], predictions, ["rad"])
    assert record is not None
    row = record["figures"][0]
    truth = auc(y, scores)
    assert abs(row["auc_weighted"] - truth) < 0.02 < abs(row["auc"] - truth)
    assert row["effective_n"] < row["n"]
    weights = observed_weights(clinical[seen], clinical[~seen])
    assert weights is not None
    assert weights.mean() == pytest.approx(1.0, abs=0.05)


def test_only_extreme_weights_are_held_and_little_of_the_bias_is_left():
    """Age alone decides who is lost, and so strongly that a few patients stand for ten others and more."""
    rng = np.random.default_rng(0)
    n = 100_000
    age, other = rng.normal(size=(2, n))
    y = (rng.random(n) < 1 / (1 + np.exp(-(age + other)))).astype(int)
    risk = 1 / (1 + np.exp(-(age + other)))
    seen = rng.random(n) < 1 / (1 + np.exp(0.5 + 1.2 * age))
    clinical = pd.DataFrame({"age": age})
    predictions = pd.DataFrame({"partition": "external_test", "outcome": y, "rad": risk})[seen]
    record = censoring_record(clinical[seen], clinical[~seen], predictions, ["rad"])
    assert record is not None
    row, truth = record["figures"][0], auc(y, risk)
    assert abs(row["auc_weighted"] - truth) < 0.2 * abs(row["auc"] - truth)
    assert row["n_held"] == record["n_held"] > 0
    assert row["n_held"] < 0.005 * row["n"]
    assert row["largest_weight"] == record["largest_weight"] > record["held_at"] == 10
    assert 0.4 * row["n"] < row["effective_n"] < row["n"]


def test_nobody_lost_and_too_few():
    predictions = pd.DataFrame({"partition": "training", "outcome": [0, 1], "rad": [0.2, 0.7]})
    assert censoring_record(None, None, predictions, ["rad"]) is None
    few = censoring_record(pd.DataFrame({"age": [1, 2]}), pd.DataFrame({"age": [3]}), predictions, ["rad"])
    assert few is not None
    assert (few["n_lost"], few["figures"]) == (1, [])


def test_files_say_who_has_no_outcome_and_what_is_incident(tmp_path: Path):
    n = 12
    outcome = pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(n)],
            "outcome": [0, 1] * 5 + [None, None],
            "cohort": "training",
            "incident": [0, 1, 0, None] + [0, 1] * 4,
            "scanner": ["a", "b"] * 6,
        }
    )
    outcome.to_csv(tmp_path / "outcome.csv", index=False)
    clinical = outcome[["patient_id"]].assign(age=np.arange(n) + 50.0).iloc[1:]
    clinical.to_csv(tmp_path / "clinical.csv", index=False)
    study = from_files(outcome=tmp_path / "outcome.csv", clinical=tmp_path / "clinical.csv")
    assert study.flow == {"cases": 12, "no outcome": 2, "in no feature table": 1}
    assert study.lost is not None
    assert study.lost["age"].tolist() == [60.0, 61.0]
    assert study.patients["scanner"].tolist()[:2] == ["b", "a"]
    steps = flow_steps(study.flow, study.patients["partition"].to_numpy(dtype=str))
    assert [step["n"] for step in steps] == [12, 9, 9]
    assert steps[1]["excluded"] == {"no outcome": 2, "in no feature table": 1}
    predictions = study.patients[["partition", "outcome"]].assign(rad=np.linspace(0.1, 0.9, 9))
    rows = incident_record(study.patients["incident"], predictions, ["rad"])
    assert (rows[0]["n"], rows[0]["events"], rows[0]["n_unknown"]) == (8, 4, 1)
    assert incident_record(None, predictions, ["rad"]) == []
