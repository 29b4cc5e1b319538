"""Selection: each step against a plain way to do it, and what real tables throw at it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_selection import f_classif
from sklearn.linear_model import Lasso as PlainLasso

from feature_store.errors import FeatureTableError, TooFewPatients
from models.folds import check_enough, permuted_within, stratified_folds
from models.selection.correlation import uncorrelated
from models.selection.descent import follow
from models.selection.lasso import fit_lasso
from models.selection.matrix import FeatureMatrix
from models.selection.recipes import DeepRecipe, RadRecipe, f_test, principal_components
from models.selection.repeatability import robust_radiomics
from models.selection.robustness import RobustnessRule
from models.selection.scaling import robust_scaling, usable_columns
from tests.models.study_fixtures import small_tables


def z_scores(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / x.std(axis=0)


def blocks(n: int, p: int, seed: int) -> np.ndarray:
    """Columns in correlated blocks of six."""
    rng = np.random.default_rng(seed)
    base = np.repeat(rng.normal(size=(n, -(-p // 6))), 6, axis=1)[:, :p]
    return z_scores(base + rng.uniform(0.05, 0.6, p) * rng.normal(size=(n, p)))


def slowly_uncorrelated(z: np.ndarray, threshold: float) -> list[int]:
    """The rule as it is stated, nothing kept between steps."""
    r = np.abs(np.corrcoef(z.T))
    kept = list(range(z.shape[1]))
    while True:
        sub = r[np.ix_(kept, kept)].copy()
        np.fill_diagonal(sub, 0)
        if sub.max() <= threshold:
            return kept
        a, b = sorted(np.unravel_index(sub.argmax(), sub.shape))
        del kept[a if sub[a].sum() > sub[b].sum() else b]


@pytest.mark.parametrize("seed", range(5))
def test_correlation_filter_is_the_stated_rule(seed: int) -> None:
    z = blocks(60, 80, seed)
    kept = uncorrelated(z, 0.9)
    assert kept.tolist() == slowly_uncorrelated(z, 0.9)
    r = np.abs(np.corrcoef(z[:, kept].T)) - np.eye(len(kept))
    assert r.max() <= 0.9
    assert len(kept) < 80


def test_of_a_correlated_pair_the_one_closer_to_the_rest_goes() -> None:
    rng = np.random.default_rng(0)
    lonely, shared = rng.normal(size=(2, 4000))
    twin = shared + 0.1 * rng.normal(size=4000)
    close_to_rest = shared + 0.1 * rng.normal(size=4000) + 0.5 * lonely
    z = z_scores(np.column_stack([close_to_rest, twin + 0.2 * rng.normal(size=4000), lonely]))
    assert np.abs(np.corrcoef(z.T))[0, 1] > 0.85
    assert uncorrelated(z, 0.85).tolist() == [1, 2]


def test_f_test_equals_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 70)
    x = rng.normal(size=(70, 200))
    x[:, :10] += 0.8 * y[:, None]
    _, p = f_classif(x, y)
    passed, none = f_test(z_scores(x), y, 0.05)
    assert passed.tolist() == np.flatnonzero(p < 0.05).tolist()
    assert not none


def test_five_smallest_p_go_on_where_none_passes() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 50)
    x = rng.normal(size=(50, 30))
    _, p = f_classif(x, y)
    kept, none = f_test(z_scores(x), y, 1e-12)
    assert none
    assert sorted(kept.tolist()) == sorted(np.argsort(p)[:5].tolist())


def test_lasso_is_scikit_learns_at_the_chosen_penalty_and_best_on_the_folds() -> None:
    rng = np.random.default_rng(3)
    z = z_scores(rng.normal(size=(90, 30)))
    y = (z[:, 0] + z[:, 1] + rng.normal(size=90) > 0).astype(np.int64)
    lasso = fit_lasso(z, y, seed=0)
    plain = PlainLasso(alpha=lasso.lambda_, tol=1e-12, max_iter=100_000).fit(z, y)
    np.testing.assert_allclose(lasso.coefficients, plain.coef_, atol=1e-6)
    assert (lasso.coefficients != 0).tolist() == (plain.coef_ != 0).tolist()
    folds = stratified_folds(y, 10, 0)
    by_hand = []
    for penalty in lasso.lambdas[[lasso.chosen, 3]]:
        errors = []
        for fold in range(10):
            held = folds == fold
            model = PlainLasso(alpha=penalty, tol=1e-9, max_iter=100_000).fit(z[~held], y[~held])
            errors.append(((model.predict(z[held]) - y[held]) ** 2).mean())
        by_hand.append(np.mean(errors))
    np.testing.assert_allclose(by_hand, lasso.cv_mean[[lasso.chosen, 3]], rtol=1e-6)
    assert lasso.cv_mean[lasso.chosen] == lasso.cv_mean.min()
    sparser = fit_lasso(z, y, seed=0, rule="one_standard_error")
    assert sparser.lambda_ >= lasso.lambda_


@pytest.mark.parametrize(("n", "p"), [(60, 200), (120, 40)])
def test_every_point_of_a_path_is_optimal_to_rounding(n: int, p: int) -> None:
    """Correlated blocks, columns that are one another's sums, one constant: no coefficient hangs on a tolerance."""
    z = blocks(n, p, seed=4)
    z[:, 7] = z[:, 8] + z[:, 20]
    z -= z.mean(axis=0)
    z[:, 11] = 0.0
    target = (z[:, 0] - z[:, 30] + np.random.default_rng(4).normal(size=n) > 0).astype(np.float64)
    target -= target.mean()
    largest = np.abs(z.T @ target).max() / n
    lambdas = largest * np.geomspace(0.99, 0.01, 30)
    columns = np.ascontiguousarray(z.T)
    none = np.empty((0, 0))
    path = follow(columns, none, target, lambdas, np.zeros(p), largest)
    for penalty, beta in zip(lambdas, path, strict=True):
        covariance = columns @ (target - z @ beta) / n
        assert np.abs(covariance).max() <= penalty * (1 + 1e-8)
        np.testing.assert_allclose(covariance[beta != 0], penalty * np.sign(beta[beta != 0]), rtol=1e-6)
    first = follow(columns, columns @ columns.T / n, target, lambdas[:12], np.zeros(p), largest)
    second = follow(columns, none, target, lambdas[12:], first[-1], lambdas[11])
    np.testing.assert_allclose(np.vstack([first, second]), path, atol=1e-9)


def test_lasso_is_never_empty() -> None:
    fallbacks = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        lasso = fit_lasso(z_scores(rng.normal(size=(40, 4))), rng.permutation(np.arange(40) % 2), seed=0)
        assert np.count_nonzero(lasso.coefficients) >= 1
        fallbacks += lasso.fallback
    assert fallbacks  # on noise the best penalty often leaves nothing


def test_unusable_constant_and_duplicate_columns_are_dropped_and_counted() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(20, 6))
    x[:, 1] = 3.0
    x[:, 2] = x[:, 0]
    x[:12, 3] = np.nan
    x[:, 4] = 1e9 + 1e-8 * rng.normal(size=20)
    usable = usable_columns(x)
    assert usable.columns.tolist() == [0, 5]
    assert (usable.unusable, usable.constant, usable.duplicate) == (1, 2, 1)


def test_heavy_tails_do_not_reach_the_lasso() -> None:
    rng = np.random.default_rng(5)
    y = np.arange(80) % 2
    x = rng.normal(size=(80, 20))
    x[:, 0] += 1.2 * y
    x[0, 1:10] = 1e12
    selector = RadRecipe().fit(FeatureMatrix(tuple(f"f{i:02d}" for i in range(20)), x), y, seed=0)
    assert "f00" in selector.names
    assert selector.lambda_ < 1
    z = robust_scaling(x, 3.5).apply(x)
    assert np.abs(z).max() < 10
    np.testing.assert_allclose(z.std(axis=0), 1)


def test_a_column_that_is_mostly_one_value_keeps_what_it_says_beside_an_outlier() -> None:
    """Quartiles coincide and one value is 10³⁰⁰: neither a scale of 0, nor one that only this patient sees."""
    rng = np.random.default_rng(11)
    y = np.arange(90) % 2
    x = rng.normal(size=(90, 8))
    x[:, 0] = np.where((rng.random(90) < 0.4) & (y == 1), rng.uniform(1, 2, 90), 0.0)
    x[4, 0] = 1e300
    x[:, 1] = 0.0
    x[3, 1] = 1e-300
    z = robust_scaling(x, 3.5).apply(x)
    assert np.isfinite(z).all()
    np.testing.assert_allclose(z.std(axis=0), 1)
    assert "f0" in RadRecipe().fit(FeatureMatrix(tuple(f"f{i}" for i in range(8)), x), y, seed=0).names


@pytest.mark.parametrize("recipe", [RadRecipe(), DeepRecipe()])
def test_one_patient_equals_many_to_the_bit_with_missing_values(recipe: RadRecipe | DeepRecipe) -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(50, 90))
    y = np.arange(50) % 2
    x[:, :5] += y[:, None]
    x[rng.random(x.shape) < 0.05] = np.nan
    matrix = FeatureMatrix(tuple(f"f{i:02d}" for i in range(90)), x)
    selector = recipe.fit(matrix, y, seed=0)
    raw = matrix.columns(selector.columns)
    together = selector.transform(raw)
    assert np.isfinite(together).all()
    apart = np.vstack([selector.transform(raw[i : i + 1]) for i in range(50)])
    assert together.tobytes() == apart.tobytes()
    assert together.shape == (50, len(selector.names))


def test_occluding_a_column_is_scoring_with_its_median() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(40, 12))
    y = np.arange(40) % 2
    x[:, 0] += y
    matrix = FeatureMatrix(tuple(f"f{i:02d}" for i in range(12)), x)
    for recipe in (RadRecipe(alpha=0.9), DeepRecipe()):
        selector = recipe.fit(matrix, y, seed=0)
        raw = matrix.columns(selector.columns)[3]
        occluded = selector.without_each(raw)
        for column in range(len(raw)):
            changed = raw.copy()
            changed[column] = selector.scaling.medians[column]
            np.testing.assert_allclose(occluded[column], selector.transform(changed[None, :])[0], atol=1e-12)


def test_principal_components_have_unit_variance_either_way_round() -> None:
    rng = np.random.default_rng(8)
    for n, p in ((30, 80), (80, 30)):
        z = z_scores(rng.normal(size=(n, 5)) @ rng.normal(size=(5, p)) + 0.1 * rng.normal(size=(n, p)))
        scores = z @ principal_components(z, 8)
        np.testing.assert_allclose(scores.T @ scores / n, np.eye(8), atol=1e-8)


def test_what_a_reader_must_know_of_a_selection_is_said_by_name() -> None:
    rng = np.random.default_rng(10)
    y = np.arange(60) % 2
    lone = FeatureMatrix(("alone",), (y + rng.normal(size=60))[:, None])
    selector = RadRecipe().fit(lone, y, seed=0)
    assert selector.trace is not None
    assert any("One feature was selected, alone" in note for note in selector.trace.notes)
    assert any(f"λ = {selector.lambda_:.2g}" in note for note in selector.trace.notes) is selector.trace.lasso.at_edge
    x = rng.standard_t(1.2, size=(60, 6)) ** 3 * 1e6
    x[:, 0] += 3e6 * y
    tails = RadRecipe(alpha=0.999).fit(FeatureMatrix(tuple("abcdef"), x), y, seed=0)
    assert tails.trace is not None
    (note,) = [note for note in tails.trace.notes if "heavy-tailed" in note]
    assert tails.names
    assert all(name in note.partition("clipped: ")[2] for name in tails.names)
    z = robust_scaling(x, 3.5)
    assert z.heavy_tailed(x).all()
    assert not z.heavy_tailed(np.clip(x, z.centre - z.scale, z.centre + z.scale)).any()


def test_column_order_does_not_matter() -> None:
    rng = np.random.default_rng(9)
    frame = pd.DataFrame(blocks(60, 40, 9), columns=[f"f{i}" for i in range(40)])
    y = rng.integers(0, 2, 60)
    shuffled = frame[rng.permutation(frame.columns)]
    first, second = (RadRecipe().fit(FeatureMatrix.from_frame(f), y, seed=0) for f in (frame, shuffled))
    assert first.names == second.names
    assert first.coefficients.tobytes() == second.coefficients.tobytes()


def test_nothing_usable_is_an_error_with_counts() -> None:
    matrix = FeatureMatrix(("a", "b"), np.column_stack([np.ones(10), np.full(10, np.nan)]))
    with pytest.raises(FeatureTableError, match="1 mostly missing, 1 constant"):
        RadRecipe().fit(matrix, np.arange(10) % 2, seed=0)


def test_folds_are_stratified_balanced_and_a_function_of_outcome_and_seed() -> None:
    y = (np.arange(97) % 3 == 0).astype(np.int64)
    folds = stratified_folds(y, 10, seed=1)
    assert np.ptp(np.bincount(folds)) <= 1
    assert np.ptp(np.bincount(folds[y == 1])) <= 1
    assert (folds == stratified_folds(y, 10, seed=1)).all()
    assert (folds != stratified_folds(y, 10, seed=2)).any()
    assert stratified_folds(np.array([1, 1, 1, 0, 0, 0, 0, 0, 0]), 10, 0).max() == 2
    with pytest.raises(TooFewPatients):
        check_enough(np.array([1, 1, 1, 0, 0, 0, 0, 0, 0]))


def test_permuting_keeps_each_groups_prevalence() -> None:
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 2, 200), rng.integers(0, 4, 200).astype(str)
    permuted = permuted_within(y, groups, seed=3)
    assert (permuted != y).any()
    for group in "0123":
        assert permuted[groups == group].sum() == y[groups == group].sum()


def test_features_that_change_with_the_segmentation_are_left_out() -> None:
    study = small_tables(p=6)
    rng = np.random.default_rng(0)
    rows = study.rows("training")[:20]
    assert study.radiomics is not None
    again = study.radiomics.iloc[rows].copy()
    again.iloc[:, 4:] = rng.normal(size=(20, 2))
    ids = study.patients.iloc[rows]["patient_id"].to_numpy()
    again.insert(0, "patient_id", ids)
    again.insert(1, "segmentation", "reader_b")
    found = robust_radiomics(type(study)(study.patients, radiomics=study.radiomics, repeats=again), RobustnessRule())
    assert found.table is not None
    assert list(found.table.columns) == list(study.radiomics.columns[:4])
    assert "2 of 6" in found.notes[0]
