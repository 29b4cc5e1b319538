"""LASSO with a cross-validated penalty (paper, "Feature Selection"): squared loss on the 0/1 outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.folds import stratified_folds

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Outcome = NDArray[np.int64]

N_LAMBDAS = 50
CHUNK = 5
PATIENCE = 10
N_FOLDS = 10
LambdaRule = Literal["best", "one_standard_error"]


@dataclass(frozen=True)
class Lasso:
    """A fitted path. ``lambdas`` (L,) descending; ``paths`` (L, p); ``cv_mean``, ``cv_sd`` (L,) of the inner folds.

    ``cv_mean`` is the mean squared error: the smallest is the best score. ``fallback`` says that the chosen
    penalty left no feature, so that the largest penalty with one was taken.
    """

    lambdas: Floats
    paths: Floats
    cv_mean: Floats
    cv_sd: Floats
    chosen: int
    fallback: bool

    @property
    def lambda_(self) -> float:
        return float(self.lambdas[self.chosen])

    @property
    def coefficients(self) -> Floats:
        return np.asarray(self.paths[self.chosen], dtype=np.float64)

    @property
    def at_edge(self) -> bool:
        """Whether the penalty is the smallest of its grid: a smaller one might have been better."""
        return self.chosen == N_LAMBDAS - 1


def fit_lasso(z: Floats, y: Outcome, seed: int, rule: LambdaRule = "best", who: Ints | None = None) -> Lasso:
    """Path over 50 penalties of ``y`` (n,) on z-scores ``z`` (n, p), the penalty by 10-fold cross-validation.

    Penalties fall from the smallest that leaves nothing to its 100th part (1,000th where there are more
    patients than features). Folds are stratified and depend on these patients only (fewer than ten where the
    rarer outcome is rarer). ``best`` takes the best mean score, ``one_standard_error`` the largest penalty
    within one standard error of it. The path ends early once ten penalties in a row are no better than
    the best: what lies below them is overfitted, and slow. Minimises |y − Xb|² / 2n + λ|b|₁. ``who``: as
    ``stratified_folds``.
    """
    n, p = z.shape
    target = y.astype(np.float64)
    largest = float(np.abs(z.T @ (target - target.mean())).max()) / n
    smallest = 1e-3 if n > p else 1e-2
    lambdas = largest * np.geomspace(1.0, smallest, N_LAMBDAS)
    folds = stratified_folds(y, N_FOLDS, seed, who)
    k = int(folds.max()) + 1
    held_out = [_HeldOut(z, target, folds == fold) for fold in range(k)]
    errors = np.empty((k, 0))
    for start in range(0, N_LAMBDAS, CHUNK):
        step = lambdas[start : start + CHUNK]
        errors = np.hstack([errors, np.vstack([fold.errors(step) for fold in held_out])])
        mean, sd = errors.mean(axis=0), errors.std(axis=0, ddof=1)
        best = int(mean.argmin())
        if len(mean) - 1 - best >= PATIENCE:
            break
    lambdas = lambdas[: len(mean)]
    paths = _Path(z, target).follow(lambdas)
    chosen = best
    if rule == "one_standard_error":
        chosen = int(np.flatnonzero(mean <= mean[best] + sd[best] / np.sqrt(k))[0])
    some = np.flatnonzero((paths != 0).any(axis=1))
    fallback = not (paths[chosen] != 0).any()
    if fallback and len(some):
        chosen = int(some[0])
    return Lasso(lambdas, paths, mean, sd, chosen, fallback)


class _Path:
    """A LASSO path that goes on, warm, from where it stopped."""

    def __init__(self, z: Floats, target: Floats) -> None:
        self.x_mean, self.y_mean = z.mean(axis=0), target.mean()
        self.columns, self.target = np.ascontiguousarray((z - self.x_mean).T), target - self.y_mean
        p, n = self.columns.shape
        self.products = self.columns @ self.columns.T / n if p < n else np.empty((0, 0))
        self.last = np.zeros(z.shape[1])
        self.penalty = float(np.abs(self.columns @ self.target).max()) / len(target)

    def follow(self, lambdas: Floats) -> Floats:
        """Coefficients (L, p) for descending ``lambdas``, all below those before."""
        from models.selection.descent import follow  # scoring has no use for a compiler

        before = max(self.penalty, lambdas[0])
        path = np.asarray(follow(self.columns, self.products, self.target, lambdas, self.last, before))
        self.last, self.penalty = path[-1].copy(), float(lambdas[-1])
        return path


class _HeldOut:
    """One fold of the cross-validation: its path without the held-out patients, and its errors on them."""

    def __init__(self, z: Floats, target: Floats, held: NDArray[np.bool_]) -> None:
        self.path = _Path(z[~held], target[~held])
        self.x = z[held] - self.path.x_mean
        self.y = target[held] - self.path.y_mean

    def errors(self, lambdas: Floats) -> Floats:
        """Mean squared errors (L,)."""
        predicted = self.x @ self.path.follow(lambdas).T
        return np.asarray(((predicted - self.y[:, None]) ** 2).mean(axis=0), dtype=np.float64)
