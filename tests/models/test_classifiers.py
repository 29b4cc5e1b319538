"""The fourteen classifiers: all there, all fit, the same score for one patient as for many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from feature_store.errors import SettingsError
from models import classifiers
from models.artefact_payload import dump_estimator, load_estimator
from models.classifiers import FAMILIES, Configuration, configurations, fit, grid_scores, raw_score
from models.evaluation.auc import auc


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6))
    return x, (x[:, 0] + x[:, 1] + 0.7 * rng.normal(size=120) > 0.2).astype(np.int64)


def test_the_papers_fourteen_with_real_grids() -> None:
    assert set(FAMILIES) == {
        "logistic_regression",
        "naive_bayes",
        "linear_svm",
        "polynomial_svm",
        "sigmoid_svm",
        "rbf_svm",
        "decision_tree",
        "random_forest",
        "extra_trees",
        "xgboost",
        "adaboost",
        "lightgbm",
        "mlp",
        "gradient_boosting",
    }
    assert all(len(family.standard) >= 8 for family in FAMILIES.values())
    assert all(1 <= len(family.quick) <= 3 for family in FAMILIES.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_learns_scores_alike_and_survives_keeping(name: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = data
    estimator = fit(configurations("quick", [name])[-1], x[:80], y[:80], seed=0)
    together = raw_score(name, estimator, x[80:])
    assert auc(y[80:], together) > 0.7
    apart = np.concatenate([raw_score(name, estimator, row[None, :]) for row in x[80:]])
    assert together.tobytes() == apart.tobytes()
    kept = dump_estimator(estimator)
    assert raw_score(name, load_estimator(kept), x[80:]).tobytes() == together.tobytes()
    again = fit(configurations("quick", [name])[-1], x[:80].copy(), y[:80].copy(), seed=0)
    assert dump_estimator(again) == kept


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.staged])
def test_one_fit_for_all_boosting_rounds_is_the_same_as_many(name: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = data
    points = configurations("standard", [name])[:4]
    shared, failed = grid_scores(points, x[:80], y[:80], x[80:], seed=0)
    assert not failed
    for point, scores in zip(points, shared, strict=True):
        alone, _ = grid_scores([point], x[:80], y[:80], x[80:], seed=0)
        np.testing.assert_allclose(scores, alone[0], atol=1e-12)


def test_a_classifier_that_fails_is_reported_and_the_others_go_on(
    data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(params: dict[str, Any], seed: int) -> Any:
        raise RuntimeError("no convergence")

    family = FAMILIES["naive_bayes"]
    monkeypatch.setitem(
        classifiers.FAMILIES, "naive_bayes", type(family)("naive_bayes", broken, family.standard, family.quick)
    )
    x, y = data
    points = configurations("quick", ["logistic_regression", "naive_bayes"])
    scores, failed = grid_scores(points, x[:80], y[:80], x[80:], seed=0)
    assert set(failed.values()) == {"RuntimeError: no convergence"}
    assert np.isnan(scores[3:]).all()
    assert np.isfinite(scores[:3]).all()


def test_an_unknown_classifier_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="'svm'"):
        configurations("quick", ["svm"])
    assert Configuration("mlp", {"alpha": 1.0}) == Configuration("mlp", {"alpha": 1.0})
