"""AUC and DeLong's intervals: against the pairwise definition, scikit-learn, simulation, and at the edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from feature_store.errors import TooFewPatients, UsageError
from models.evaluation.auc import auc, delong_ci, delong_paired, delong_variance, newcombe_ci
from models.evaluation.roc import roc_band, roc_curve

Z = float(norm.isf(0.025))


def kernel(y, scores):
    """Every event against every non-event: 1 above, 1/2 tied, 0 below (m, n)."""
    difference = scores[y == 1][:, None] - scores[y == 0][None, :]
    return (difference > 0) + 0.5 * (difference == 0)


def brute_covariance(y, *scores):
    """DeLong's covariance matrix of several AUCs, straight from the pairwise definition."""
    kernels = [kernel(y, s) for s in scores]
    events = np.array([k.mean(axis=1) for k in kernels])
    others = np.array([k.mean(axis=0) for k in kernels])
    return np.atleast_2d(np.cov(events)) / events.shape[1] + np.atleast_2d(np.cov(others)) / others.shape[1]


def draw(seed, n=83, ties=False, separation=1.0):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(int)
    y[:2], y[2:4] = 1, 0
    a = rng.normal(size=n) + separation * y
    b = 0.5 * a + rng.normal(size=n)
    return (y, np.round(a), np.round(b)) if ties else (y, a, b)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("ties", [False, True])
def test_equal_to_the_pairwise_definition(seed, ties):
    y, a, b = draw(seed, n=20 + 13 * seed, ties=ties)
    covariance = brute_covariance(y, a, b)
    assert auc(y, a) == pytest.approx(kernel(y, a).mean(), abs=1e-12)
    assert auc(y, a) == pytest.approx(roc_auc_score(y, a), abs=1e-12)
    assert delong_variance(y, a) == pytest.approx(covariance[0, 0], abs=1e-12)

    area, sd = kernel(y, a).mean(), np.sqrt(covariance[0, 0])
    ends = np.log(area / (1 - area)) + np.array([-1, 1]) * Z * sd / (area * (1 - area))
    assert delong_ci(y, a) == pytest.approx(1 / (1 + np.exp(-ends)), abs=1e-12)

    paired = delong_paired(y, a, b)
    sd = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference = kernel(y, a).mean() - kernel(y, b).mean()
    assert paired.difference == pytest.approx(difference, abs=1e-12)
    assert paired.ci == pytest.approx((difference - Z * sd, difference + Z * sd), abs=1e-12)
    assert paired.p == pytest.approx(2 * norm.sf(abs(difference) / sd), abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=40))
def test_only_the_order_counts_and_turning_it_turns_the_area(pairs):
    y = np.array([event for event, _ in pairs])
    scores = np.array([score for _, score in pairs], dtype=float)
    if y.all() or not y.any():
        with pytest.raises(TooFewPatients):
            auc(y, scores)
        return
    assert auc(y, np.exp(3 * scores) - 7) == auc(y, scores)
    assert auc(y, -scores) == pytest.approx(1 - auc(y, scores), abs=1e-12)
    low, high = delong_ci(y, scores)
    assert 0 <= low <= auc(y, scores) <= high <= 1
    assert high - low > 0


def test_intervals_cover_and_the_paired_test_keeps_its_size():
    """Binormal scores, AUC 0.75, 83 patients, 2,000 draws: coverage 93 to 97 %, type-I error 3.5 to 6.5 %."""
    truth = 0.75
    shift = float(np.sqrt(2) * norm.ppf(truth))
    rng = np.random.default_rng(20240)
    covered = rejected = 0
    for _ in range(2000):
        y = np.repeat([1, 0], [33, 50])
        shared = rng.normal(size=83)
        a, b = (np.sqrt(0.5) * (shared + rng.normal(size=83)) + shift * y for _ in range(2))
        low, high = delong_ci(y, a)
        covered += low <= truth <= high
        rejected += delong_paired(y, a, b).p < 0.05
    assert 0.93 <= covered / 2000 <= 0.97
    assert 0.035 <= rejected / 2000 <= 0.065


def test_newcombe_at_both_ends_and_its_definition():
    assert newcombe_ci(1.0, 10, 20)[1] == 1.0
    assert newcombe_ci(0.0, 10, 20)[0] == 0.0
    assert newcombe_ci(0.0, 10, 20)[1] == pytest.approx(1 - newcombe_ci(1.0, 10, 20)[0], abs=1e-9)
    # Independently: the limits are roots of a polynomial (the definition times (2 - A)(1 + A)).
    for area, m, n in [(0.5, 5, 9), (0.8, 10, 20), (0.97, 33, 50), (1.0, 4, 26)]:
        a = np.polynomial.Polynomial([0, 1])
        star = (m + n) / 2 - 1
        variance = a * (1 - a) * ((2 - a) * (1 + a) + star * (1 - a) * (1 + a) + star * a * (2 - a))
        roots = ((area - a) ** 2 * m * n * (2 - a) * (1 + a) - Z**2 * variance).roots()
        within = np.sort(roots[(abs(roots.imag) < 1e-9) & (roots.real > -1e-9) & (roots.real < 1 + 1e-9)].real)
        assert newcombe_ci(area, m, n) == pytest.approx((within[0], within[-1]), abs=1e-7)


def test_newcombe_covers_where_delong_has_no_width():
    """AUC 0.97 with 8 events and 22 others: a perfect sample is common, and the interval must still cover."""
    shift = float(np.sqrt(2) * norm.ppf(0.97))
    rng = np.random.default_rng(7)
    y = np.repeat([1, 0], [8, 22])
    perfect = covered = 0
    for _ in range(400):
        scores = rng.normal(size=30) + shift * y
        low, high = delong_ci(y, scores)
        perfect += auc(y, scores) == 1
        covered += low <= 0.97 <= high
    assert perfect > 40
    assert covered / 400 >= 0.92


@pytest.mark.parametrize("y", [[1, 0], [1, 0, 0, 0], [1, 1, 1, 0]])
def test_a_single_patient_of_a_class_has_a_wide_interval(y):
    scores = np.arange(len(y))[::-1].astype(float)
    assert np.isnan(delong_variance(y, scores))
    low, high = delong_ci(y, scores)
    assert low < 0.5
    assert high == 1.0
    assert delong_paired(y, scores, -scores).p is None


def test_constant_and_opposite_scores():
    y = np.repeat([1, 0], [10, 10])
    perfect, constant = y.astype(float), np.zeros(20)
    low, high = delong_ci(y, constant)
    assert low < 0.5 < high
    assert delong_paired(y, perfect, perfect * 3) == (0.0, (0.0, 0.0), 1.0)
    opposite = delong_paired(y, perfect, -perfect)
    assert opposite.difference == 1.0
    assert opposite.p is None
    assert 0 < opposite.ci[0] < opposite.ci[1] == 1.0


def test_what_cannot_be_measured_is_a_named_error():
    with pytest.raises(TooFewPatients, match="one class"):
        auc([1, 1, 1], [1, 2, 3])
    with pytest.raises(TooFewPatients):
        delong_ci([], [])
    with pytest.raises(UsageError, match="1 of 2 scores are NaN"):
        auc([0, 1], [0.5, float("nan")])
    with pytest.raises(UsageError, match="0 or 1"):
        auc([0, 2], [1, 2])
    with pytest.raises(UsageError):
        auc([0, 1], [1, 2, 3])


@pytest.mark.parametrize("ties", [False, True])
def test_roc_curve_encloses_the_area_and_its_band_holds_it(ties):
    y, a, _ = draw(3, ties=ties)
    curve = roc_curve(y, a)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(auc(y, a), abs=1e-12)
    theirs = sklearn_roc_curve(y, a, drop_intermediate=False)
    assert curve.fpr == pytest.approx(theirs[0], abs=1e-12)
    assert curve.tpr == pytest.approx(theirs[1], abs=1e-12)

    band = roc_band(y, a, seed=2)
    assert (band.low <= band.high).all()
    assert np.trapezoid(band.low, band.fpr) < auc(y, a) < np.trapezoid(band.high, band.fpr)
    assert (band.low == roc_band(y, a, seed=2).low).all()
    # Pointwise limits of the sensitivity at a false positive rate of 0.2, by resampling the plain way.
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(500):
        rows = np.concatenate([rng.choice(np.flatnonzero(y == c), (y == c).sum()) for c in (1, 0)])
        fpr, tpr, _ = sklearn_roc_curve(y[rows], a[rows], drop_intermediate=False)
        drawn.append(tpr[fpr <= 0.2 + 1e-12].max() if not ties else np.interp(0.2, fpr, tpr))
    assert (band.low[20], band.high[20]) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.08)
