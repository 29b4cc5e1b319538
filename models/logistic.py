"""Logistic regression for inference: coefficients with their covariance, also where the data separate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

TOO_LARGE = 12.0
"""A coefficient per standard deviation above this means that the likelihood has no maximum."""


@dataclass(frozen=True)
class LogisticFit:
    """``coefficients`` (k,) and ``covariance`` (k, k) without the intercept; ``firth`` where the penalty was needed."""

    coefficients: Floats
    covariance: Floats
    firth: bool

    def interval(self, term: int, level: float = 0.95) -> tuple[float, float]:
        """Wald interval of a coefficient."""
        half = float(stats.norm.isf((1 - level) / 2) * np.sqrt(self.covariance[term, term]))
        return float(self.coefficients[term]) - half, float(self.coefficients[term]) + half

    def p_value(self, terms: list[int]) -> float:
        """Wald test that the coefficients of ``terms`` are all 0 (a categorical variable has several)."""
        beta = self.coefficients[terms]
        statistic = float(beta @ np.linalg.solve(self.covariance[np.ix_(terms, terms)], beta))
        return float(stats.chi2.sf(statistic, len(terms)))


def fit_logistic(x: Floats, y: NDArray[np.int64]) -> LogisticFit:
    """Maximum likelihood of ``y`` (n,) on ``x`` (n, k; linearly independent columns that vary) and an intercept.

    Where the columns separate the outcomes, so that no maximum exists, Firth's penalised likelihood
    (Firth 1993, Heinze and Schemper 2002) instead, which always has one.
    """
    mean, sd = x.mean(axis=0), x.std(axis=0)
    design = np.column_stack([np.ones(len(y)), (x - mean) / sd])
    beta, information, converged = _newton(design, y, firth=False)
    firth = not converged or bool((np.abs(beta[1:]) > TOO_LARGE).any())
    if firth:
        beta, information, _ = _newton(design, y, firth=True)
    covariance = np.linalg.inv(information)[1:, 1:]
    return LogisticFit(beta[1:] / sd, covariance / np.outer(sd, sd), firth)


def independent_columns(x: Floats) -> list[int]:
    """Columns of ``x`` (n, k) that vary and are no linear combination of an intercept and the earlier ones."""
    kept: list[int] = []
    basis = [np.full(len(x), 1 / np.sqrt(len(x)))]
    for column in range(x.shape[1]):
        rest = x[:, column].astype(np.float64)
        length = float(np.linalg.norm(rest))
        for _ in range(2):  # twice: once loses digits where columns nearly coincide
            for direction in basis:
                rest = rest - direction * float(direction @ rest)
        if np.linalg.norm(rest) > 1e-8 * max(length, 1e-300):
            basis.append(rest / np.linalg.norm(rest))
            kept.append(column)
    return kept


def _newton(x: Floats, y: NDArray[np.int64], firth: bool) -> tuple[Floats, Floats, bool]:
    """Coefficients, Fisher information and whether the score reached zero."""
    beta = np.zeros(x.shape[1])
    current = -np.inf
    for _ in range(100):
        eta = np.clip(x @ beta, -30, 30)
        p = 1 / (1 + np.exp(-eta))
        weighted = x * (p * (1 - p))[:, None]
        information = weighted.T @ x + 1e-10 * np.eye(x.shape[1])
        score = x.T @ (y - p)
        if firth:
            leverage = np.einsum("ij,ji->i", weighted, np.linalg.solve(information, x.T))
            score = score + x.T @ (leverage * (0.5 - p))
        if np.abs(score).max() < 1e-8 * len(y):
            return beta, information, True
        step = np.linalg.solve(information, score)
        current = _likelihood(x, y, beta, firth)
        scale = 1.0
        while scale > 1e-6 and _likelihood(x, y, beta + scale * step, firth) < current - 1e-12:
            scale /= 2
        beta = beta + scale * step
        if not firth and np.abs(beta).max() > 2 * TOO_LARGE:
            break
    return beta, information, False


def _likelihood(x: Floats, y: NDArray[np.int64], beta: Floats, firth: bool) -> float:
    eta = np.clip(x @ beta, -30, 30)
    value = float((y * eta - np.logaddexp(0, eta)).sum())
    if firth:
        p = 1 / (1 + np.exp(-eta))
        value += 0.5 * float(np.linalg.slogdet((x * (p * (1 - p))[:, None]).T @ x + 1e-10 * np.eye(x.shape[1]))[1])
    return value
