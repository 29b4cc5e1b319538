"""SHAP of the combined model against Shapley's own formula, and what a study says with it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import factorial

import numpy as np
import pytest

import models.shapley as shapley
from models.combined import CombinedSignature
from models.importance import stack_inputs
from models.protocol import Development, develop
from models.shapley import explain, shap_record
from models.study_patients import StudyPatients
from tests.models.study_fixtures import small_settings, small_tables


@pytest.fixture(scope="module")
def fitted() -> tuple[StudyPatients, Development]:
    """A combined model that is not linear, of both signs, age and a diagnosis of three categories (two terms)."""
    study = small_tables(120, p=12, q=8, effect=0.8)
    rng = np.random.default_rng(5)
    levels = np.array(["disc", "stenosis", "slip"])
    diagnosis = levels[
        np.where(study.outcome == 1, rng.choice([0, 1, 2], 120, p=[0.1, 0.2, 0.7]), rng.integers(0, 3, 120))
    ]
    study, _ = replace(study, clinical=study.clinical[["age"]].assign(diagnosis=diagnosis)).in_order()
    patients = StudyPatients.from_tables(study, study.radiomics)
    fixed = {"rad": "logistic_regression", "dl": "logistic_regression", "combined": "rbf_svm"}
    settings = small_settings(classifiers=fixed)
    training = patients.training()
    folds = np.arange(len(training.y)) % 3
    return patients, develop(training, folds, settings)


def brute_force(signature: CombinedSignature, x: np.ndarray, background: np.ndarray, groups: list[list[int]]):
    """Shapley's formula as it is written: every subset without i, weighted, and the mean over the background."""

    def value(known: tuple[int, ...]) -> float:
        mixed = background.copy()
        for group in known:
            mixed[:, groups[group]] = x[groups[group]]
        head = signature.head
        logits = head.scale(head.estimator.decision_function(signature.stack.apply(mixed)))
        return float(head.calibration(logits).mean())

    m = len(groups)
    found = np.zeros(m)
    for i in range(m):
        others = [j for j in range(m) if j != i]
        for size in range(m):
            weight = factorial(size) * factorial(m - size - 1) / factorial(m)
            for known in combinations(others, size):
                found[i] += weight * (value((*known, i)) - value(known))
    return found


def test_values_are_shapleys_own_formula(fitted):
    patients, development = fitted
    signature = development.signatures["combined"]
    x = stack_inputs(signature, patients, np.arange(7))
    background = stack_inputs(signature, patients, np.arange(30, 55))
    groups = {**{"rad-sign": [0], "dl-sign": [1]}, "age": [2], "diagnosis": [3, 4]}
    found = explain(signature, x, background)
    assert (found.names, found.method) == (tuple(groups), "exact")
    for row, values in zip(x, found.values, strict=True):
        np.testing.assert_allclose(values, brute_force(signature, row, background, list(groups.values())), atol=1e-10)
    log_odds = signature.head.calibration(signature.head.fast_logit(signature.stack.apply(x)))
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base, log_odds, atol=1e-9)


def test_many_inputs_are_explained_by_drawn_orders_that_add_up(fitted, monkeypatch):
    patients, development = fitted
    signature = development.signatures["combined"]
    x = stack_inputs(signature, patients, np.arange(6))
    background = stack_inputs(signature, patients, np.arange(30, 55))
    exact = explain(signature, x, background)
    monkeypatch.setattr(shapley, "MOST_EXACT", 3)
    drawn = explain(signature, x, background, seed=4)
    assert drawn.method == "permutation"
    np.testing.assert_allclose(drawn.values.sum(axis=1), exact.values.sum(axis=1), atol=1e-9)
    np.testing.assert_allclose(drawn.values, exact.values, atol=0.05)
    assert (drawn.values == explain(signature, x, background, seed=4).values).all()


def test_a_study_explains_its_held_out_patients(fitted):
    patients, development = fitted
    record, drawn = shap_record(patients, development, seed=0)
    assert (record, drawn) == shap_record(patients, development, seed=0)
    assert (record["method"], record["n"], record["n_background"]) == ("exact", 48, 72)
    weights = list(record["mean_abs"].values())
    assert weights == sorted(weights, reverse=True)
    assert set(record["by_cohort"]) == {"internal_validation", "external_test"}
    values = np.array(drawn["values"])
    np.testing.assert_allclose(np.abs(values).mean(axis=0), weights)
    assert drawn["names"] == list(record["mean_abs"])
    inputs = dict(zip(drawn["names"], np.array(drawn["inputs"], dtype=float).T, strict=True))
    assert np.isnan(inputs["diagnosis"]).all()  # no number
    assert np.corrcoef(inputs["rad-sign"], values[:, drawn["names"].index("rad-sign")])[0, 1] > 0.5


def test_the_background_is_training_patients_with_signs_out_of_fold(fitted, monkeypatch):
    """Held-out patients have no say in it: with others of them, a patient's contributions are the same."""
    patients, development = fitted
    everybody = np.array(shap_record(patients, development, seed=0)[1]["values"])
    fewer = replace(
        patients, partition=np.where(patients.partition == "external_test", "locked_test", patients.partition)
    )
    record, drawn = shap_record(fewer, development, seed=0)
    held_out = patients.partition[np.isin(patients.partition, ["internal_validation", "external_test"])]
    some = everybody[held_out == "internal_validation"]
    order = [list(record["mean_abs"]).index(name) for name in shap_record(patients, development, 0)[0]["mean_abs"]]
    np.testing.assert_allclose(np.array(drawn["values"])[:, order], some, atol=1e-12)
    of_signs = shapley._background(development.signatures["combined"], patients, development)[:, 0]
    np.testing.assert_array_equal(of_signs, development.crossfits["rad"].chosen_logits)


def test_nothing_is_explained_where_there_is_nothing(fitted):
    patients, development = fitted
    nobody = replace(patients, partition=np.full(len(patients.y), "training"))
    assert shap_record(nobody, development, 0) == (None, None)
    without = Development(signatures={"rad": development.signatures["rad"]})
    assert shap_record(patients, without, 0) == (None, None)
