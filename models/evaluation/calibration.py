"""Do predicted risks come true: slope, intercept, Brier score, a flexible curve, Hosmer–Lemeshow; Platt's scaling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import chi2, norm

from feature_store.errors import TooFewPatients, UsageError
from models.evaluation.inputs import BoolArray, FloatArray, Interval, logit, numbers, outcomes, probabilities


class CalibrationCurve(NamedTuple):
    """Observed risk beside predicted risk, each of shape (points,), with a pointwise band."""

    predicted: FloatArray
    observed: FloatArray
    low: FloatArray
    high: FloatArray


class HosmerLemeshow(NamedTuple):
    """Chi-square over groups of predicted risk."""

    statistic: float
    df: int
    p: float


def brier(y: ArrayLike, p: ArrayLike) -> float:
    """Mean squared difference between probability (n,) and outcome (n,) (Brier 1950). 0 is best."""
    events = outcomes(y)
    if not events.size:
        raise TooFewPatients("No patients.", action="The Brier score needs at least one.")
    return float(np.mean((probabilities(p, events) - events) ** 2))


def calibration_slope(y: ArrayLike, p: ArrayLike) -> float | None:
    """Slope of the logistic regression of the outcome on the predicted log odds (Cox 1958). 1 is best.

    Under 1: predictions are too extreme. None where it does not exist: one class, a constant prediction, or
    predictions that separate the classes (the slope is then infinite).
    """
    fit = _slope(y, p)
    return None if fit is None else fit[0]


def calibration_slope_ci(y: ArrayLike, p: ArrayLike, level: float = 0.95) -> Interval | None:
    """Wald interval of :func:`calibration_slope`; None where that is None."""
    fit = _slope(y, p)
    return None if fit is None else _wald(*fit, level)


def calibration_intercept(y: ArrayLike, p: ArrayLike) -> float | None:
    """Calibration in the large: intercept of the same regression with the slope fixed at 1 (an offset). 0 is best.

    Above 0: risks are predicted too low. None where all outcomes are of one class (it is then infinite).
    """
    fit = _intercept(y, p)
    return None if fit is None else fit[0]


def calibration_intercept_ci(y: ArrayLike, p: ArrayLike, level: float = 0.95) -> Interval | None:
    """Wald interval of :func:`calibration_intercept`; None where that is None."""
    fit = _intercept(y, p)
    return None if fit is None else _wald(*fit, level)


def fit_platt(scores: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Platt's scaling: (a, b) such that expit(a * score + b) is the probability of an event.

    ``scores`` (n,) on any scale (log odds, margins), ``y`` (n,). Maximum likelihood against Platt's smoothed
    targets (1999), (N+ + 1) / (N+ + 2) and 1 / (N- + 2), which keep a and b finite when the scores separate the
    classes; Newton's method with backtracking as in Lin, Lin and Weng (2007). Scores that are all equal give
    a = 0: everybody gets the smoothed prevalence.
    """
    events, x = _scored(scores, y)
    m = int(events.sum())
    n = events.size - m
    target = np.where(events, (m + 1) / (m + 2), 1 / (n + 2))
    if _constant(x):
        mean = float(target.mean())
        return 0.0, float(np.log(mean / (1 - mean)))
    return _line(x, target)


def fit_near_one(scores: ArrayLike, y: ArrayLike, sd: float) -> tuple[float, float]:
    """(a, b) as of :func:`fit_platt`, by the likelihood and a normal prior of this ``sd`` around 1 on a.

    For scores that are log odds already and need a correction only as far as the patients can tell one.
    """
    events, x = _scored(scores, y)
    if _constant(x) or events.all() or not events.any():
        return fit_platt(scores, y)
    return _line(x, events.astype(np.float64), sd)


def pairwise_slope(scores: ArrayLike, y: ArrayLike, strata: ArrayLike) -> float | None:
    """Slope of the log odds on the score, by pairs of an event and a non-event of the same stratum.

    Of such a pair, given that one of the two is the event, it is the one with the higher score with probability
    expit(a × difference): the conditional likelihood, in which what tells strata apart drops out; maximised as if
    pairs were independent (Liang 1987, consistent). ``strata`` (n,). None where the pairs have no finite maximum:
    none is there, all differ by nothing, or all are ordered the same way.
    """
    events, x = _scored(scores, y)
    groups = np.asarray(strata)
    differences = np.concatenate(
        [
            np.zeros(0),
            *(
                np.subtract.outer(*(x[(groups == g) & e] for e in (events, ~events))).ravel()
                for g in set(groups.tolist())
            ),
        ]
    )
    spread = float(np.sqrt((differences**2).mean())) if differences.size else 0.0
    if spread == 0 or (differences >= 0).all() or (differences <= 0).all():
        return None
    beta, _ = _newton((differences / spread)[:, None], np.ones_like(differences), np.zeros_like(differences))
    return float(beta[0]) / spread


def intercept_beside(scores: ArrayLike, y: ArrayLike, slope: float) -> float:
    """b of the likelihood where a is given; both classes must be there."""
    events, x = _scored(scores, y)
    beta, _ = _newton(np.ones((x.size, 1)), events.astype(np.float64), slope * x)
    return float(beta[0])


def _scored(scores: ArrayLike, y: ArrayLike) -> tuple[BoolArray, FloatArray]:
    events = outcomes(y)
    x = numbers(scores, events)
    if not events.size:
        raise TooFewPatients("No patients.", action="A scale needs patients with outcomes.")
    if not np.isfinite(x).all():
        raise UsageError("Scores must be finite.", action="Pass log odds or margins, not probabilities of 0 and 1.")
    return events, x


def _constant(x: FloatArray) -> bool:
    return float(x.std()) == 0 or float(np.ptp(x)) <= 1e-12 * float(np.abs(x).max())


def _line(x: FloatArray, target: FloatArray, sd: float | None = None) -> tuple[float, float]:
    """Fitted on standardised scores, so that a scale of 1e6 or 1e-6 costs no digits, then turned back."""
    spread, centre = float(x.std()), float(x.mean())
    pull = None if sd is None else (spread, 1 / (sd * spread) ** 2)
    beta, _ = _newton(np.column_stack([(x - centre) / spread, np.ones_like(x)]), target, np.zeros_like(x), pull)
    a = float(beta[0]) / spread
    return a, float(beta[1]) - a * centre


def calibration_curve(
    y: ArrayLike, p: ArrayLike, *, points: int = 101, span: float = 0.75, level: float = 0.95
) -> CalibrationCurve | None:
    """Flexible calibration curve: loess of the outcome on the predicted probability (Austin and Steyerberg 2014).

    Locally linear, tricube weights over the nearest ``span`` of the patients (Cleveland 1979, without his
    robustness iterations, which would throw out events). The band is pointwise, from the smoother's own weights
    and binomial variance. ``points`` equally spaced predictions between the smallest and the largest. None where
    fewer than three distinct predictions or one class only is there.
    """
    events = outcomes(y)
    x = probabilities(p, events)
    if np.unique(x).size < 3 or events.all() or not events.any():
        return None
    grid = np.linspace(float(x.min()), float(x.max()), points)
    weights = _loess_weights(x, grid, span)
    observed = np.clip(weights @ events.astype(np.float64), 0, 1)
    risk = np.interp(x, grid, observed)
    half = float(norm.isf((1 - level) / 2)) * np.sqrt(weights**2 @ (risk * (1 - risk)))
    return CalibrationCurve(grid, observed, np.clip(observed - half, 0, 1), np.clip(observed + half, 0, 1))


def hosmer_lemeshow(y: ArrayLike, p: ArrayLike, *, groups: int = 10, held_out: bool = True) -> HosmerLemeshow | None:
    """Hosmer and Lemeshow's test (1980) over groups of equal size by predicted risk, for comparison with others.

    Degrees of freedom: the number of groups on held-out patients, two less on those the model was fitted on.
    Equal predictions stay in one group, so that there may be fewer groups. None under three groups or where
    a group's expected events are 0 or all. It says little: its power grows with n, and it depends on the groups.
    """
    events = outcomes(y)
    x = probabilities(p, events)
    if not events.size:
        return None
    edges = np.unique(np.quantile(x, np.linspace(0, 1, groups + 1)[1:-1]))
    group = np.searchsorted(edges, x, side="left")
    size = np.bincount(group)
    kept = size > 0
    expected = np.bincount(group, weights=x)[kept]
    observed = np.bincount(group, weights=events.astype(np.float64))[kept]
    size = size[kept]
    spread = expected * (1 - expected / size)
    if size.size < 3 or not (spread > 0).all():
        return None
    statistic = float(((observed - expected) ** 2 / spread).sum())
    df = int(size.size) - (0 if held_out else 2)
    return HosmerLemeshow(statistic, df, float(chi2.sf(statistic, df)))


def _slope(y: ArrayLike, p: ArrayLike) -> tuple[float, float] | None:
    events = outcomes(y)
    x = logit(probabilities(p, events))
    if events.all() or not events.any() or np.ptp(x) < 1e-6 or _separated(events, x):
        return None
    # On standardised log odds, as in fit_platt: predictions that hardly differ would make the equations singular.
    spread = float(x.std())
    design = np.column_stack([(x - x.mean()) / spread, np.ones_like(x)])
    beta, covariance = _newton(design, events.astype(np.float64), np.zeros_like(x))
    return float(beta[0]) / spread, float(np.sqrt(covariance[0, 0])) / spread


def _intercept(y: ArrayLike, p: ArrayLike) -> tuple[float, float] | None:
    events = outcomes(y)
    x = logit(probabilities(p, events))
    if events.all() or not events.any():
        return None
    beta, covariance = _newton(np.ones((x.size, 1)), events.astype(np.float64), x)
    return float(beta[0]), float(np.sqrt(covariance[0, 0]))


def _separated(events: BoolArray, x: FloatArray) -> bool:
    """Whether one cut divides the classes, ties at the cut allowed (then the likelihood has no maximum)."""
    high, low = x[events], x[~events]
    return bool(high.min() >= low.max() or low.min() >= high.max())


def _wald(estimate: float, sd: float, level: float) -> Interval:
    half = float(norm.isf((1 - level) / 2)) * sd
    return estimate - half, estimate + half


def _newton(
    x: FloatArray, target: FloatArray, offset: FloatArray, pull: tuple[float, float] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Logistic regression of targets within 0 to 1 on ``x`` (n, k) with an offset: coefficients and covariance.

    ``pull``: a value that the first coefficient is drawn to, and the precision (1 / variance) with which it is.
    """
    centre, precision = pull or (0.0, 0.0)
    first = np.zeros(x.shape[1])
    first[0] = precision

    def loss(beta: FloatArray) -> float:
        eta = x @ beta + offset
        return float((np.logaddexp(0, eta) - target * eta).sum()) + precision * float(beta[0] - centre) ** 2 / 2

    beta: FloatArray = np.zeros(x.shape[1])
    current = loss(beta)
    for _ in range(100):
        p = expit(x @ beta + offset)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-12 * np.eye(x.shape[1]) + np.diag(first)
        step = np.linalg.solve(hessian, x.T @ (target - p) - first * (beta - centre))
        scale = 1.0
        while (following := loss(beta + scale * step)) > current and scale > 1e-10:
            scale /= 2
        if scale <= 1e-10:
            break
        beta, current = beta + scale * step, following
        if np.abs(scale * step).max() < 1e-10:
            break
    p = expit(x @ beta + offset)
    covariance = np.asarray(
        np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x + 1e-12 * np.eye(x.shape[1]) + np.diag(first)),
        dtype=np.float64,
    )
    return beta, covariance


def _loess_weights(x: FloatArray, grid: FloatArray, span: float) -> FloatArray:
    """Rows (points, n) that, times the outcomes, give the local linear fit at each point of the grid."""
    near = max(3, int(np.ceil(span * x.size)))
    distance = np.abs(grid[:, None] - x[None, :])
    reach = np.partition(distance, min(near, x.size) - 1, axis=1)[:, min(near, x.size) - 1][:, None]
    # Many equal predictions make the window empty beside themselves: it reaches the next ones, slightly.
    reach = np.maximum(reach, 1e-3 * float(np.ptp(x))) * (1 + 1e-9)
    w = np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
    away = x[None, :] - grid[:, None]
    total = w.sum(axis=1, keepdims=True)
    mean = (w * away).sum(axis=1, keepdims=True) / total
    spread = (w * (away - mean) ** 2).sum(axis=1, keepdims=True)
    steady = spread > 1e-12 * float(np.ptp(x)) ** 2
    slope = np.where(steady, -mean / np.where(steady, spread, 1.0), 0.0)
    rows: FloatArray = w / total + w * (away - mean) * slope
    return rows
