"""LASSO paths by coordinate descent over a working set, finished exactly on the support; compiled.

The strong rules (Tibshirani et al. 2012) say which columns can matter at the next penalty; descent goes over these
on their Gram matrix, then the equations of the support are solved directly. A solution stands once its signs agree
and no column violates the optimality conditions, so which coefficients are zero does not hang on a tolerance.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FIRST_TOLERANCE, LAST_TOLERANCE = 1e-3, 1e-9
"""Largest change of a coefficient in a sweep, in units of the penalty, before the support is looked at."""
MAX_SWEEPS = 2000
SLACK = 1e-9
"""Relative excess of a column's covariance over the penalty that is taken for rounding."""
FLAT = 1e-12
"""Variance under which a column is constant, as one may be among the patients of a fold."""


@njit(cache=True)
def follow(columns: Floats, products: Floats, target: Floats, lambdas: Floats, start: Floats, before: float) -> Floats:
    """Coefficients (L, p) that minimise |y − Xb|² / 2n + λ|b|₁ for each of ``lambdas``, descending.

    ``columns`` (p, n): X transposed, every column centred; ``target`` (n,) centred. ``products`` (p, p): XᵀX / n, or
    (0, 0) to compute what is needed, which is less where columns outnumber patients. ``start`` (p,): the solution at
    the penalty ``before``, from which the path goes on (zeros at one that leaves nothing).
    """
    p, n = columns.shape
    path = np.empty((len(lambdas), p))
    beta = start.copy()
    covariance = columns @ (target - beta @ columns) / n
    place = np.full(p, -1)  # of each column in the working set
    working = np.empty(min(p, 64), dtype=np.int64)
    gram = np.empty((len(working), len(working)))
    size = 0
    for step in range(len(lambdas)):
        penalty = lambdas[step]
        strong = 2 * penalty - before
        for j in range(p):
            if place[j] < 0 and (beta[j] != 0 or abs(covariance[j]) >= strong):
                working, gram, size = _enter(j, columns, products, place, working, gram, size)
        while True:
            _solve(beta, covariance, working[:size], gram, penalty)
            residual = target - beta @ columns
            covariance = columns @ residual / n
            violated = False
            for j in range(p):
                if place[j] < 0 and abs(covariance[j]) > penalty * (1 + SLACK):
                    working, gram, size = _enter(j, columns, products, place, working, gram, size)
                    violated = True
            if not violated:
                break
        path[step] = beta
        before = penalty
    return path


@njit(cache=True)
def _enter(
    j: int,
    columns: Floats,
    products: Floats,
    place: NDArray[np.int64],
    working: NDArray[np.int64],
    gram: Floats,
    size: int,
) -> tuple[NDArray[np.int64], Floats, int]:
    """Column j joins the working set, with its row and column of the Gram matrix."""
    if size == len(working):
        room = min(2 * size, len(place))
        wider, larger = np.empty(room, dtype=np.int64), np.empty((room, room))
        wider[:size] = working
        larger[:size, :size] = gram
        working, gram = wider, larger
    working[size] = j
    place[j] = size
    n = columns.shape[1]
    for i in range(size + 1):
        value = products[j, working[i]] if len(products) else np.dot(columns[working[i]], columns[j]) / n
        gram[i, size] = value
        gram[size, i] = value
    return working, gram, size + 1


@njit(cache=True)
def _solve(beta: Floats, covariance: Floats, working: NDArray[np.int64], gram: Floats, penalty: float) -> None:
    """The minimum over the working set, in place; ``covariance`` of its columns is right on entry and on leaving."""
    size = len(working)
    b, c = np.empty(size), np.empty(size)
    for i in range(size):
        b[i], c[i] = beta[working[i]], covariance[working[i]]
    xy = c.copy()  # covariance with the target, b undone
    for i in range(size):
        if b[i] != 0:
            for k in range(size):
                xy[k] += gram[i, k] * b[i]
    tolerance = FIRST_TOLERANCE * penalty
    for _ in range(MAX_SWEEPS):
        largest = 0.0
        for i in range(size):
            if gram[i, i] < FLAT:
                continue
            old = b[i]
            raised = c[i] + gram[i, i] * old
            new = np.sign(raised) * max(abs(raised) - penalty, 0.0) / gram[i, i]
            if new != old:
                b[i] = new
                largest = max(largest, abs(new - old))
                for k in range(size):
                    c[k] -= gram[i, k] * (new - old)
        if largest <= tolerance:
            if _finish(b, xy, gram, penalty) or tolerance <= LAST_TOLERANCE * penalty:
                break
            tolerance *= 0.1
    for i in range(size):
        beta[working[i]] = b[i]


@njit(cache=True)
def _finish(b: Floats, xy: Floats, gram: Floats, penalty: float) -> bool:
    """Solve G b = xy − λ sign(b) on the support of ``b``; kept and True where signs and optimality hold."""
    support = np.flatnonzero(b)
    k = len(support)
    inside, right = np.empty((k, k)), np.empty(k)
    for i in range(k):
        right[i] = xy[support[i]] - penalty * np.sign(b[support[i]])
        for m in range(k):
            inside[i, m] = gram[support[i], support[m]]
    try:
        solved = np.linalg.solve(inside, right)
    except Exception:  # columns of the support depend on each other; numba knows no narrower clause
        return False
    for m in range(k):
        if np.sign(solved[m]) != np.sign(b[support[m]]):
            return False
    for j in range(len(b)):
        covariance = xy[j]
        for m in range(k):
            covariance -= gram[j, support[m]] * solved[m]
        allowed = penalty * (1 + SLACK)
        if abs(covariance) > allowed or (b[j] != 0 and covariance * np.sign(b[j]) < penalty * (1 - SLACK)):
            return False
    for m in range(k):
        b[support[m]] = solved[m]
    return True
