"""Does a measurement come out the same when it is taken again: intraclass correlations and variation within subjects.

Two-way layouts of subjects by versions (readers, repeated readings, perturbations), one a feature. ICC(2,1)
and ICC(3,1) are Shrout and Fleiss's names (Psychol Bull 1979;86:420); McGraw and Wong (Psychol Methods
1996;1:30) call them ICC(A,1), absolute agreement, and ICC(C,1), consistency, both of a single measurement;
their Table 7 has the intervals used here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

ROUNDING = 1e-12
"""A spread under this share of the largest value is rounding and counts as none."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Reliability:
    """One number a feature, arrays of shape (features,); NaN where a number does not exist.

    ``n_subjects`` had a finite value in each of the ``n_versions``; only these count, feature by feature.
    ICCs are NaN with fewer than two such subjects or versions, and for a feature that is the same number in
    all of them: nothing varies that a version could agree on. The intervals (95 %) rest on normal residuals
    and are NaN where nothing but the versions differs.

    ``cv``: within-subject coefficient of variation, the root mean square over subjects of SD / |mean| of the
    subject's versions (Bland and Altman, BMJ 1996;313:106, for errors that grow with the value; SD with
    n − 1). ``cv_median``: the median over subjects in place of the root mean square, which one subject with
    a mean near zero can carry off. Both are NaN for a feature with values of both signs, or zero beside
    others, within one subject: a ratio to the mean needs a scale whose zero means none.
    ``sd_ratio`` = within-subject SD (root mean square) / SD of the subjects' means: like a CV, but of any scale; 0
    is perfect, above 1 versions differ more than subjects do.
    """

    n_subjects: Ints
    n_versions: int
    icc_2_1: Floats
    icc_2_1_low: Floats
    icc_2_1_high: Floats
    icc_3_1: Floats
    icc_3_1_low: Floats
    icc_3_1_high: Floats
    cv: Floats
    cv_median: Floats
    sd_ratio: Floats


@dataclass(frozen=True)
class MeanSquares:
    """Two-way analysis of variance without replication, a number a feature.

    ``n`` subjects, ``k`` versions; mean squares of subjects (n − 1 degrees of freedom), versions (k − 1)
    and residuals ((n − 1)(k − 1)).
    """

    n: Floats
    k: int
    subjects: Floats
    versions: Floats
    error: Floats


def reliability(values: Floats) -> Reliability:
    """``values`` (subjects, versions, features), NaN where missing. Nothing is imputed."""
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        complete = np.asarray(np.isfinite(values).all(axis=1), dtype=np.bool_)
        there = complete[:, None, :]
        low, high = np.where(there, values, np.inf).min(axis=(0, 1)), np.where(there, values, -np.inf).max(axis=(0, 1))
        # Shift and scale change no ICC, and so energies of 1e12 and means of 1e-9 are told from rounding alike.
        largest = np.maximum(np.abs(low), np.abs(high))
        spread = np.where(high - low > ROUNDING * largest, high - low, np.nan)
        scaled = (values - low) / spread
        squares = mean_squares(scaled, complete)
        agreement, consistency = _agreement(squares), _consistency(squares)
        cv, cv_median = _variation(values, complete)
        sd_ratio = _sd_ratio(scaled, complete)
    return Reliability(
        complete.sum(axis=0).astype(np.intp),
        values.shape[1],
        *agreement,
        *consistency,
        cv,
        cv_median,
        sd_ratio,
    )


def mean_squares(values: Floats, complete: NDArray[np.bool_]) -> MeanSquares:
    """Of ``values`` (subjects, versions, features) over each feature's ``complete`` subjects (subjects, features)."""
    k = values.shape[1]
    n = complete.sum(axis=0).astype(np.float64)
    there = complete[:, None, :]
    of_subject = np.where(complete, values.mean(axis=1), 0.0)
    of_version = np.where(there, values, 0.0).sum(axis=0) / n
    grand = of_subject.sum(axis=0) / n
    subjects = k * np.where(complete, (of_subject - grand) ** 2, 0.0).sum(axis=0) / (n - 1)
    versions = n * ((of_version - grand) ** 2).sum(axis=0) / (k - 1) if k > 1 else np.full_like(n, np.nan)
    residual = np.where(there, values - of_subject[:, None, :] - of_version[None] + grand, 0.0)
    error = (residual**2).sum(axis=(0, 1)) / ((n - 1) * (k - 1))
    return MeanSquares(n, k, subjects, versions, np.where(error > ROUNDING**2, error, 0.0 * error))


def _consistency(m: MeanSquares) -> tuple[Floats, Floats, Floats]:
    """ICC(3,1) = ICC(C,1) with its interval."""
    k, df, df_error = m.k, m.n - 1, (m.n - 1) * (m.k - 1)
    icc = (m.subjects - m.error) / (m.subjects + (k - 1) * m.error)
    f = m.subjects / m.error
    tail = (1 - CONFIDENCE) / 2
    low = f / stats.f.isf(tail, df, df_error)
    high = f * stats.f.isf(tail, df_error, df)
    exact = m.error == 0
    return (
        np.asarray(icc),
        np.where(exact, icc, (low - 1) / (low + k - 1)),
        np.where(exact, icc, (high - 1) / (high + k - 1)),
    )


def _agreement(m: MeanSquares) -> tuple[Floats, Floats, Floats]:
    """ICC(2,1) = ICC(A,1) with its interval; the degrees of freedom of the denominator are Satterthwaite's."""
    n, k = m.n, m.k
    icc = (m.subjects - m.error) / (m.subjects + (k - 1) * m.error + k * (m.versions - m.error) / n)
    a = k * icc / (n * (1 - icc))
    b = 1 + k * icc * (n - 1) / (n * (1 - icc))
    df = (a * m.versions + b * m.error) ** 2 / (
        (a * m.versions) ** 2 / (k - 1) + (b * m.error) ** 2 / ((n - 1) * (k - 1))
    )
    tail = (1 - CONFIDENCE) / 2
    lower, upper = stats.f.isf(tail, n - 1, df), stats.f.isf(tail, df, n - 1)
    others = k * m.versions + (k * n - k - n) * m.error
    low = n * (m.subjects - lower * m.error) / (lower * others + n * m.subjects)
    high = n * (upper * m.subjects - m.error) / (others + n * upper * m.subjects)
    exact = (m.error == 0) & (m.versions <= ROUNDING**2)
    return np.asarray(icc), np.where(exact, icc, low), np.where(exact, icc, high)


def _variation(values: Floats, complete: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """``cv`` and ``cv_median``, see :class:`Reliability`; a subject whose versions are all zero does not vary."""
    if values.shape[1] < 2:
        nothing = np.full(values.shape[2], np.nan)
        return nothing, nothing
    low, high = values.min(axis=1), values.max(axis=1)
    zero = (low == 0) & (high == 0)
    of_subject = np.where(zero, 0.0, values.std(axis=1, ddof=1) / np.abs(values.mean(axis=1)))
    signed = (complete & ~zero & (low <= 0) & (high >= 0)).any(axis=0) | ~complete.any(axis=0)
    squares = np.where(complete, of_subject**2, 0.0).sum(axis=0) / complete.sum(axis=0)
    median = _nanmedian(np.where(complete, of_subject, np.nan))
    return np.where(signed, np.nan, np.sqrt(squares)), np.where(signed, np.nan, median)


def _sd_ratio(values: Floats, complete: NDArray[np.bool_]) -> Floats:
    if values.shape[1] < 2:
        return np.full(values.shape[2], np.nan)
    n = complete.sum(axis=0)
    within = np.where(complete, values.var(axis=1, ddof=1), 0.0).sum(axis=0) / n
    means = np.where(complete, values.mean(axis=1), 0.0)
    between = np.where(complete, (means - means.sum(axis=0) / n) ** 2, 0.0).sum(axis=0) / (n - 1)
    return np.asarray(np.sqrt(within / between), dtype=np.float64)


def _nanmedian(table: Floats) -> Floats:
    """Median over rows of each column's numbers; NaN, without a warning, where there are none."""
    ordered = np.sort(table, axis=0)  # NaN last
    n = np.isfinite(table).sum(axis=0)
    if not len(table):
        return np.full(table.shape[1], np.nan)
    columns = np.arange(table.shape[1])
    middle = (ordered[np.maximum(n - 1, 0) // 2, columns] + ordered[np.minimum(n // 2, len(table) - 1), columns]) / 2
    return np.where(n > 0, middle, np.nan)
