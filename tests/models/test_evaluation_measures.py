"""Proportions, calibration, net benefit, agreement and thresholds, each against something independent."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import chi2
from sklearn.calibration import _SigmoidCalibration
from sklearn.metrics import brier_score_loss, cohen_kappa_score, f1_score, roc_curve
from statsmodels.discrete.conditional_models import ConditionalLogit
from statsmodels.nonparametric.smoothers_lowess import lowess
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from feature_store.errors import TooFewPatients, UsageError
from models.evaluation import agreement, calibration, net_benefit, proportions, thresholds


@pytest.fixture(params=range(4))
def cohort(request):
    rng = np.random.default_rng(request.param)
    truth = rng.normal(-0.3, 1.0, size=160)
    y = (rng.random(160) < expit(truth)).astype(int)
    return y, expit(1.4 * truth + 0.3 * rng.normal(size=160) - 0.2)


# --- proportions -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("k", "n", "published"),  # Newcombe, Statistics in Medicine 1998, 17:857, Table I, method 3
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_published(k, n, published):
    assert proportions.wilson(k, n) == pytest.approx(published, abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_statsmodels(case):
    assert proportions.wilson(*case) == pytest.approx(proportion_confint(*case, method="wilson"), abs=1e-12)


def test_wilson_edges():
    assert proportions.wilson(0, 0) == (0.0, 1.0)
    assert proportions.wilson(7, 7)[1] == 1.0
    with pytest.raises(UsageError):
        proportions.wilson(3, 2)


def test_f1_and_its_bootstrap_equal_resampling_patients(cohort):
    y, p = cohort
    high = (p >= 0.4).astype(int)
    assert proportions.f1_score(y, high) == pytest.approx(f1_score(y, high), abs=1e-12)

    rng = np.random.default_rng(1)
    events, others = np.flatnonzero(y), np.flatnonzero(1 - y)
    resampled = []
    for _ in range(1500):
        rows = np.concatenate([rng.choice(events, events.size), rng.choice(others, others.size)])
        resampled.append(proportions.f1_score(y[rows], high[rows]))
    assert proportions.bootstrap_f1(y, high, 0) == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.015)
    assert proportions.bootstrap_f1(y, high, 5) == proportions.bootstrap_f1(y, high, 5)
    assert proportions.bootstrap_f1(y, high, 5) != proportions.bootstrap_f1(y, high, 6)


def test_f1_that_does_not_exist():
    assert proportions.f1_score([0, 0], [0, 0]) is None
    assert proportions.bootstrap_f1([0, 0], [0, 0], 0) is None
    assert proportions.f1_score([0, 1], [0, 0]) == 0.0


# --- calibration -------------------------------------------------------------------------------
def test_slope_and_intercept_equal_statsmodels(cohort):
    y, p = cohort
    x = np.log(p / (1 - p))
    slope = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial()).fit(tol=1e-12)
    intercept = sm.GLM(y, np.ones_like(x), family=sm.families.Binomial(), offset=x).fit(tol=1e-12)
    assert calibration.calibration_slope(y, p) == pytest.approx(slope.params[1], abs=1e-8)
    assert calibration.calibration_slope_ci(y, p) == pytest.approx(slope.conf_int()[1], abs=1e-6)
    assert calibration.calibration_intercept(y, p) == pytest.approx(intercept.params[0], abs=1e-8)
    assert calibration.calibration_intercept_ci(y, p) == pytest.approx(intercept.conf_int()[0], abs=1e-6)
    assert calibration.brier(y, p) == pytest.approx(brier_score_loss(y, p), abs=1e-12)


def test_known_risk_has_slope_one_and_intercept_zero():
    rng = np.random.default_rng(3)
    risk = rng.beta(2, 3, size=60_000)
    y = rng.random(60_000) < risk
    assert calibration.calibration_slope(y, risk) == pytest.approx(1, abs=0.04)
    assert calibration.calibration_intercept(y, risk) == pytest.approx(0, abs=0.04)
    # Log odds twice as extreme: half the slope. All odds halved: an intercept of log 2.
    x = np.log(risk / (1 - risk))
    assert calibration.calibration_slope(y, expit(2 * x)) == pytest.approx(0.5, abs=0.02)
    assert calibration.calibration_intercept(y, expit(x - np.log(2))) == pytest.approx(np.log(2), abs=0.04)


def test_a_slope_of_predictions_that_hardly_differ():
    """The same ranking squeezed into a millionth of its spread has a slope a million times as steep."""
    rng = np.random.default_rng(5)
    log_odds = rng.normal(size=2000)
    y = rng.random(2000) < expit(log_odds)
    squeezed = calibration.calibration_slope(y, expit(1.0 + 1e-5 * log_odds))
    assert squeezed == pytest.approx(1e5 * calibration.calibration_slope(y, expit(log_odds)), rel=1e-4)
    assert calibration.calibration_slope(y, expit(1.0 + 1e-8 * log_odds)) is None


def test_calibration_that_does_not_exist_is_none():
    separated = [0.1, 0.2, 0.8, 0.9]
    assert calibration.calibration_slope([0, 0, 1, 1], separated) is None
    assert calibration.calibration_slope([1, 1, 0, 0], separated) is None
    assert calibration.calibration_slope([0, 1, 0, 1], [0.3] * 4) is None
    assert calibration.calibration_slope([1, 1, 1, 1], separated) is None
    assert calibration.calibration_intercept([1, 1, 1, 1], separated) is None
    assert calibration.calibration_intercept([0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0]) == pytest.approx(0, abs=1e-6)
    with pytest.raises(UsageError, match="0 to 1"):
        calibration.brier([0, 1], [0.2, 1.2])


def test_platt_equals_scikit_learn(cohort):
    y, p = cohort
    scores = 3 * np.log(p / (1 - p)) + 1
    theirs = _SigmoidCalibration().fit(scores, y)
    a, b = calibration.fit_platt(scores, y)
    assert (a, b) == pytest.approx((-theirs.a_, -theirs.b_), abs=2e-3)


def test_a_prior_draws_the_slope_towards_one():
    """The penalised maximum, found by a general optimiser; with many patients the prior is outweighed."""
    rng = np.random.default_rng(8)
    x = 2.0 * rng.normal(size=60)
    y = (rng.random(60) < expit(0.4 * x - 0.3)).astype(int)

    def loss(ab, sd):
        eta = ab[0] * x + ab[1]
        return (np.logaddexp(0, eta) - y * eta).sum() + ((ab[0] - 1) / sd) ** 2 / 2

    def best(sd):
        return minimize(loss, [1.0, 0.0], args=(sd,), method="BFGS", options={"gtol": 1e-9}).x

    for sd in (0.25, 1e6):
        assert calibration.fit_near_one(x, y, sd) == pytest.approx(best(sd), abs=1e-5)
    free = best(1e6)[0]
    assert free < best(0.25)[0] < 1
    assert calibration.fit_near_one(np.tile(x, 200), np.tile(y, 200), 0.25)[0] == pytest.approx(free, abs=0.01)
    separated = calibration.fit_near_one(np.arange(20.0), np.arange(20) >= 8, 0.1)
    assert separated[0] == pytest.approx(1, abs=0.1)


def test_a_slope_of_pairs_is_the_conditional_likelihood_of_one_pair_a_stratum():
    """Against statsmodels, where a stratum is a pair; what shifts a whole stratum tells nothing."""
    rng = np.random.default_rng(3)
    pairs = 400
    x = rng.normal(size=(pairs, 2))
    second = rng.random(pairs) < expit(1.3 * (x[:, 1] - x[:, 0]))
    y = np.column_stack([~second, second]).astype(int)
    strata = np.repeat(np.arange(pairs), 2)
    theirs = ConditionalLogit(y.ravel(), x.ravel()[:, None], groups=strata).fit(disp=0).params[0]
    assert calibration.pairwise_slope(x.ravel(), y.ravel(), strata) == pytest.approx(theirs, rel=1e-5)
    shifted = (x + 100 * rng.normal(size=(pairs, 1))).ravel()
    assert calibration.pairwise_slope(shifted, y.ravel(), strata) == pytest.approx(theirs, rel=1e-5)


def test_a_slope_of_pairs_finds_the_true_one_in_folds():
    rng = np.random.default_rng(4)
    folds, x = np.arange(20_000) % 20, rng.normal(size=20_000)
    shift = rng.normal(size=20)[folds]
    y = rng.random(20_000) < expit(0.8 * x + shift)
    assert calibration.pairwise_slope(x, y, folds) == pytest.approx(0.8, abs=0.05)
    slope = 0.8
    intercept = calibration.intercept_beside(x, y, slope)
    assert expit(slope * x + intercept).mean() == pytest.approx(y.mean(), abs=1e-9)


def test_a_slope_of_pairs_that_does_not_exist_is_none():
    y, folds = np.arange(8) % 2, np.arange(8) // 4
    assert calibration.pairwise_slope(y + 0.1 * np.arange(8), y, folds) is None  # all one way
    assert calibration.pairwise_slope(-1.0 * y, y, folds) is None
    assert calibration.pairwise_slope(np.ones(8), y, folds) is None
    assert calibration.pairwise_slope(np.arange(8.0), y, np.arange(8)) is None  # nobody to compare with


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_platt_survives_separation_and_scale(scale):
    y = np.repeat([0, 1], [30, 10])
    scores = np.concatenate([np.linspace(-3, -1, 30), np.linspace(1, 3, 10)]) * scale
    a, b = calibration.fit_platt(scores, y)
    reference_a, reference_b = calibration.fit_platt(scores / scale, y)
    assert (a * scale, b) == pytest.approx((reference_a, reference_b), rel=1e-6)
    p = expit(a * scores + b)
    assert p[y == 1].min() > 0.5 > p[y == 0].max()
    assert p.max() < 0.999


def test_platt_of_a_constant_score_is_the_smoothed_prevalence():
    a, b = calibration.fit_platt(np.full(40, 2.5), np.repeat([0, 1], [30, 10]))
    assert a == 0
    assert expit(b) == pytest.approx((10 * 11 / 12 + 30 / 32) / 40)
    with pytest.raises(UsageError, match="finite"):
        calibration.fit_platt([np.inf, 0.0], [1, 0])


def test_flexible_curve_equals_loess(cohort):
    y, p = cohort
    curve = calibration.calibration_curve(y, p, span=0.75)
    theirs = lowess(y.astype(float), p, frac=0.75, it=0, xvals=curve.predicted)
    assert curve.observed == pytest.approx(np.clip(theirs, 0, 1), abs=2e-3)
    assert (curve.low <= curve.observed).all()
    assert (curve.observed <= curve.high).all()


def test_flexible_curve_band_covers_the_truth():
    """Known risk, so that the true curve is the diagonal: pointwise coverage in the middle, over 60 draws."""
    rng = np.random.default_rng(11)
    covered = []
    for _ in range(60):
        risk = rng.uniform(0.1, 0.9, size=150)
        curve = calibration.calibration_curve(rng.random(150) < risk, risk)
        middle = slice(20, 81)
        covered.append(((curve.low <= curve.predicted) & (curve.predicted <= curve.high))[middle].mean())
    assert 0.88 <= np.mean(covered) <= 0.99


def test_flexible_curve_edges():
    assert calibration.calibration_curve([0, 1, 1], [0.2, 0.2, 0.4]) is None
    assert calibration.calibration_curve([1, 1, 1], [0.2, 0.3, 0.4]) is None
    tied = calibration.calibration_curve([0, 1] * 30, np.repeat([0.2, 0.5, 0.51], 20))
    assert np.isfinite(tied.observed).all()


def test_hosmer_lemeshow_by_hand(cohort):
    y, p = cohort
    order = np.argsort(p)
    statistic = 0.0
    for rows in np.array_split(order, 10):
        expected, size = p[rows].sum(), len(rows)
        statistic += (y[rows].sum() - expected) ** 2 / expected + (expected - y[rows].sum()) ** 2 / (size - expected)
    test = calibration.hosmer_lemeshow(y, p)
    assert test.statistic == pytest.approx(statistic)
    assert test.df == 10
    assert test.p == pytest.approx(chi2.sf(statistic, 10))
    assert calibration.hosmer_lemeshow(y, p, held_out=False).df == 8
    assert calibration.hosmer_lemeshow(y, np.full(y.size, 0.3)) is None


# --- net benefit -------------------------------------------------------------------------------
def test_net_benefit_is_counted(cohort):
    y, p = cohort
    curve = net_benefit.decision_curve(y, p)
    for t, model, everybody in zip(*curve, strict=True):
        high = p >= t
        counted = ((high & (y == 1)).sum() - (high & (y == 0)).sum() * t / (1 - t)) / y.size
        assert model == pytest.approx(counted, abs=1e-12)
        assert net_benefit.treat_all(y, t) == pytest.approx(everybody, abs=1e-12)
        assert net_benefit.net_benefit(y, p, t) == pytest.approx(model, abs=1e-15)
    # Treating everybody is worth nothing at a threshold equal to the prevalence.
    assert net_benefit.treat_all(y, y.mean()) == pytest.approx(0, abs=1e-12)


def test_net_benefit_refuses_certainty():
    with pytest.raises(UsageError):
        net_benefit.net_benefit([0, 1], [0.1, 0.9], 1.0)


# --- agreement ---------------------------------------------------------------------------------
def test_kappa_equals_statsmodels_and_scikit_learn(cohort):
    y, p = cohort
    b = (p > 0.5).astype(int)
    ours = agreement.cohen_kappa(y, b)
    theirs = cohens_kappa(np.array([[((y == i) & (b == j)).sum() for j in (0, 1)] for i in (0, 1)]))
    assert ours.kappa == pytest.approx(cohen_kappa_score(y, b), abs=1e-12)
    assert ours.ci == pytest.approx((theirs.kappa_low, theirs.kappa_upp), abs=1e-12)


def test_kappa_edges():
    assert agreement.cohen_kappa([1, 1, 1], [1, 1, 1]) == (None, None)
    assert agreement.cohen_kappa([1, 0, 1], [1, 0, 1]).kappa == pytest.approx(1)
    assert agreement.cohen_kappa([1, 0], [0, 1]).kappa == pytest.approx(-1)
    assert agreement.cohen_kappa([], []) == (None, None)
    with pytest.raises(UsageError):
        agreement.cohen_kappa([1, 0], [1, 0, 1])


def test_mcnemar_equals_statsmodels(cohort):
    y, p = cohort
    a, b = (p > 0.5) == y, (p > 0.2) == y
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    ours = agreement.mcnemar_exact(a, b)
    assert (ours.only_a, ours.only_b) == (table[0][1], table[1][0])
    assert ours.p == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-12)
    assert agreement.mcnemar_exact(a, a).p == 1.0


# --- thresholds --------------------------------------------------------------------------------
def test_youden_reaches_the_best_of_the_roc_curve(cohort):
    y, p = cohort
    threshold = thresholds.youden_threshold(y, p)
    false_positive, true_positive, _ = roc_curve(y, p, drop_intermediate=False)
    reached = (p >= threshold)[y == 1].mean() - (p >= threshold)[y == 0].mean()
    assert reached == pytest.approx((true_positive - false_positive).max(), abs=1e-12)
    assert not np.isin(threshold, p)


def test_youden_ties_and_edges():
    # Cuts below 0.2 and below 0.8 are equally good: the lower one misses nobody.
    assert thresholds.youden_threshold([0, 1, 0, 1], [0.1, 0.3, 0.5, 0.7]) == pytest.approx(0.2)
    assert thresholds.youden_threshold([0, 1], [0.4, 0.4]) == 0.4
    with pytest.raises(TooFewPatients):
        thresholds.youden_threshold([1, 1], [0.1, 0.2])


def test_harm_ratio():
    assert thresholds.harm_ratio_threshold(9) == pytest.approx(0.1)
    assert thresholds.harm_ratio_threshold(1) == 0.5
    with pytest.raises(UsageError):
        thresholds.harm_ratio_threshold(0)
