"""Nested cross-fitting: equal to doing it the long way, and blind to what it is judged on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from models.classifiers import Configuration, configurations, fast_score, fit
from models.crossfit import Plan, crossfit
from models.evaluation.auc import auc
from models.folds import stratified_folds
from models.protocol import SelectorSource, TrainingPatients, develop
from models.scale import fit_calibration, fit_scale
from models.selection.matrix import FeatureMatrix
from models.selection.recipes import RadRecipe
from models.study_patients import StudyPatients
from tests.models.study_fixtures import small_settings, small_tables

POINTS = tuple(configurations("quick", ["logistic_regression", "naive_bayes", "linear_svm"]))


@dataclass(frozen=True)
class Plain:
    """Inputs that need no fitting."""

    x: np.ndarray

    def inputs(self, fit_rows: np.ndarray, score_rows: np.ndarray, y: np.ndarray, seed: int) -> tuple:
        return self.x[fit_rows], self.x[score_rows]


@pytest.fixture(scope="module")
def training() -> TrainingPatients:
    study, _ = small_tables(effect=0.6).in_order()
    return StudyPatients.from_tables(study, study.radiomics).training()


def plan_of(y: np.ndarray, k: int = 4, **changes: object) -> Plan:
    return replace(Plan(y, stratified_folds(y, k, 0), POINTS, seed=0), **changes)


def test_equals_nested_cross_validation_done_the_long_way(training: TrainingPatients) -> None:
    y, matrix = training.y, training.radiomics
    assert matrix is not None
    plan = plan_of(y)
    source = SelectorSource(matrix, RadRecipe())
    found = crossfit(plan, source)

    inputs: dict[bytes, tuple] = {}  # only the selection is kept, so that the test does not last

    def scores(point: Configuration, fitted_on: np.ndarray, scored: np.ndarray) -> np.ndarray:
        key = fitted_on.tobytes() + scored.tobytes()
        if key not in inputs:
            inputs[key] = source.inputs(np.flatnonzero(fitted_on), np.flatnonzero(scored), y, 0)
        x, x_new = inputs[key]
        estimator = fit(point, x, y[fitted_on], 0)
        own = fast_score(point.classifier, estimator, x)
        unit = own.std() if point.classifier == "linear_svm" else 1.0
        return (fast_score(point.classifier, estimator, x_new) - own.mean()) / unit

    logits = np.empty(len(y))
    for o in range(4):
        outer = plan.folds == o
        mean_aucs, errors, inner = [], [], []
        for point in POINTS:
            out = np.full(len(y), np.nan)
            for i in set(range(4)) - {o}:
                fold = plan.folds == i
                out[fold] = scores(point, ~outer & ~fold, fold)
            inner.append(out)
            per_fold = [auc(y[plan.folds == i], out[plan.folds == i]) for i in range(4) if i != o]
            mean_aucs.append(np.mean(per_fold))
            errors.append(np.std(per_fold, ddof=1) / np.sqrt(3))
        limit = max(mean_aucs) - errors[int(np.argmax(mean_aucs))] - 1e-12
        tied = [p.classifier for p, a in zip(POINTS, mean_aucs, strict=True) if a >= limit]
        best = max((i for i, p in enumerate(POINTS) if p.classifier == tied[0]), key=lambda i: (mean_aucs[i], -i))
        scale = fit_scale(inner[best][~outer], y[~outer], plan.folds[~outer])
        logits[outer] = scale(scores(POINTS[best], ~outer, outer))
        np.testing.assert_allclose(found.inner_auc[o], mean_aucs, atol=1e-12)
        np.testing.assert_allclose(found.inner_logits[o, ~outer], scale(inner[best][~outer]), atol=1e-10)
        assert np.isnan(found.inner_logits[o, outer]).all()
    np.testing.assert_allclose(found.logits, logits, atol=1e-10)
    assert found.nested_auc == pytest.approx(auc(y, logits))
    assert sum(found.choices.values()) == 4


@pytest.mark.parametrize("fold", [0, 2])
def test_flipping_a_folds_outcomes_leaves_its_out_of_fold_signatures_as_they_were(
    training: TrainingPatients, fold: int
) -> None:
    """With the splits frozen; for both signs and for the combined model stacked on them."""
    folds = stratified_folds(training.y, 3, 0)
    held = folds == fold
    flipped = replace(training, y=np.where(held, 1 - training.y, training.y))
    points = list(POINTS)
    before, after = (develop(p, folds, small_settings(), points=points) for p in (training, flipped))
    assert set(before.crossfits) == {"rad", "dl", "combined"}
    for kind, fit_before in before.crossfits.items():
        fit_after = after.crossfits[kind]
        assert fit_before.logits[held].tobytes() == fit_after.logits[held].tobytes(), kind
        assert fit_before.logits[~held].tobytes() != fit_after.logits[~held].tobytes(), kind


def test_the_simplest_of_tied_classifiers_wins() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = np.column_stack([y + 0.8 * rng.normal(size=60)] * 2)  # one direction: all linear models rank alike
    found = crossfit(plan_of(y), Plain(x))
    assert found.chosen.classifier == "logistic_regression"
    strict = crossfit(plan_of(y, fixed="linear_svm"), Plain(x))
    assert strict.chosen.classifier == "linear_svm"
    assert set(strict.choices) == {"linear_svm"}
    assert [row["name"] for row in strict.table] == ["logistic_regression", "naive_bayes", "linear_svm"]


def test_a_classifier_that_is_truly_better_is_taken_though_it_is_less_simple() -> None:
    """And by a margin of nothing the best is taken, whatever luck has to do with it."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(160, 2))
    y = (np.abs(x[:, 0]) + 0.3 * rng.normal(size=160) > 0.7).astype(np.int64)  # no line tells these apart
    assert crossfit(plan_of(y), Plain(x)).chosen.classifier == "naive_bayes"
    noisy = (x[:, 0] + 2 * rng.normal(size=160) > 0).astype(np.int64)
    aucs = {row["name"]: row["cv_auc"] for row in crossfit(plan_of(noisy), Plain(x)).table}
    best = crossfit(plan_of(noisy, tie_margin=0.0), Plain(x)).chosen.classifier
    assert aucs[best] == max(aucs.values())
    assert crossfit(plan_of(noisy), Plain(x)).chosen.classifier == "logistic_regression"


def test_noise_is_not_flattered() -> None:
    """Mean nested AUC over noise; the winner's own cross-validated AUC is the flattering one."""
    nested, winning = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        y = rng.permutation(np.arange(60) % 2)
        matrix = FeatureMatrix(tuple(f"f{i:03d}" for i in range(80)), rng.normal(size=(60, 80)))
        found = crossfit(plan_of(y, k=3), SelectorSource(matrix, RadRecipe()))
        nested.append(found.nested_auc)
        winning.append(max(row["cv_auc"] for row in found.table))
    assert 0.4 < np.mean(nested) < 0.56
    assert np.mean(winning) > np.mean(nested)


def test_scales_keep_the_ranking_even_where_it_is_wrong_by_chance() -> None:
    y = np.arange(40) % 2
    scores = -y + 0.1 * np.arange(40)
    folds = np.arange(40) // 10
    scale = fit_scale(scores, y, folds)
    assert scale.flat
    assert (np.argsort(scale(scores)) == np.argsort(scores)).all()
    informative = fit_scale(y + 0.6 * np.sin(np.arange(40.0)), y, folds)
    assert not informative.flat
    calibration = fit_calibration(scale(scores), y)
    assert calibration.slope > 0


def test_a_small_penalty_parameter_does_not_make_the_fold_a_score() -> None:
    """Margins of a support vector machine with a tiny C differ between folds by 2, and between patients by 1e-4."""
    rng = np.random.default_rng(2)
    y = np.repeat([1, 0], [31, 33])
    x = rng.normal(size=(64, 4)) + 0.8 * y[:, None]
    tiny = (Configuration("linear_svm", {"C": 1e-5}),)
    found = crossfit(replace(plan_of(y), points=tiny), Plain(x))
    assert found.nested_auc > 0.85
    assert not found.scale.flat


def test_a_scale_carries_no_prevalence() -> None:
    """Otherwise out-of-fold log-odds would rank each fold by how few events the others had."""
    rng = np.random.default_rng(0)
    for share in (0.2, 0.8):
        y = (rng.random(4000) < share).astype(np.int64)
        scores = y + rng.normal(size=4000)  # d' = 1: log-odds beyond the prevalence = score - 1/2
        scale = fit_scale(scores, y, np.arange(4000) % 10)
        assert scale.slope == pytest.approx(1.0, abs=0.15)
        assert scale.intercept == pytest.approx(-0.5, abs=0.15)
