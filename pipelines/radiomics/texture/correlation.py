"""Maximal correlation coefficient (MCC): the second eigenvalue that PyRadiomics gets from a full solver.

PyRadiomics builds Q(i,j) = sum_k p(i,k) p(j,k) / (px(i) py(k) + eps), takes all eigenvalues of this
non-symmetric matrix for each direction, and keeps the root of the second largest: G³ work twice over.

p is symmetric, so without eps Q is similar to S², S(i,j) = p(i,j) / sqrt(px(i) px(j)), whose largest
eigenvalue is 1 with vector sqrt(px). Lanczos in the space orthogonal to it gives the next one, u, in a few
products with S. The quotient of u with the true Q (scaled alike) then takes in eps to first order.

Rare grey levels make eps felt beyond that: it moves eigenvalues by up to eps / min(px px). Then S is solved whole,
which tells how far apart its eigenvalues are, and u is refined on the true Q (inverse iteration from both sides).
Where neither is sure to be good to far below 1e-9 (tiny eigenvalues, where the solver's own rounding shows, small
matrices, where it costs nothing, eigenvalues nearer to each other than eps moves them), PyRadiomics' own way is taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.compiled import kernel

EPS = np.spacing(1)
SMALL = 12
"""Up to this many grey levels the full solver is as fast."""

SURE_LOW = 1e-5
"""Smaller eigenvalues carry the rounding of the solver that PyRadiomics uses."""

APART = 4
"""Eigenvalues keep their order when they are this many times as far apart as eps moves them."""


def maximal_correlations(p: NDArray[np.float64], px: NDArray[np.float64]) -> NDArray[np.float64]:
    """MCC of each direction. ``p`` [D, G, G] symmetric, ``px`` [D, G] its marginals; G of 2 or more."""
    if p.shape[1] <= SMALL:
        return _by_solver(p, px)
    squares = _by_lanczos(p, px)
    for d in np.flatnonzero(np.isnan(squares)):
        squares[d] = _by_refinement(p[d], px[d])
    unsure = np.isnan(squares)
    result = np.sqrt(squares)
    if unsure.any():
        result[unsure] = _by_solver(p[unsure], px[unsure])
    return result


def _by_solver(p: NDArray[np.float64], px: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.linalg.eigvals(_q(p, px))
    values.sort()
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(values[:, -2]).real)


def _by_refinement(p: NDArray[np.float64], px: NDArray[np.float64]) -> float:
    """Second eigenvalue of one direction's Q, or NaN where it is not sure."""
    there = px > 0
    if there.sum() <= SMALL:  # levels that meet none in this direction leave little behind
        return np.nan
    p, px = p[np.ix_(there, there)], px[there]
    product = np.outer(px, px)
    root = np.sqrt(px)
    values, vectors = np.linalg.eigh(p / np.outer(root, root))
    order = np.argsort(-np.abs(values))[:3]
    top, second, third = values[order] ** 2
    moved = EPS / product[p > 0].min()
    if second < SURE_LOW or min(top - second, second - third) < APART * moved:
        return np.nan
    # Q = A P with both symmetric: if x is a right eigenvector, P x is the left one
    q = (p / (product + EPS)) @ p
    x = vectors[:, order[1]] / root
    for _ in range(2):
        y = p @ x
        try:
            x = np.linalg.solve(q - (y @ (q @ x)) / (y @ x) * np.eye(len(px)), x)
        except np.linalg.LinAlgError:
            return np.nan
        x /= np.linalg.norm(x * root)
    y = p @ x
    value = float((y @ (q @ x)) / (y @ x))
    off = float(np.linalg.norm((q @ x - value * x) * root))
    if not (off < 1e-12 and abs(value - second) <= moved):
        return np.nan
    return value


@kernel
def _q(p: NDArray[np.float64], px: NDArray[np.float64]) -> NDArray[np.float64]:
    directions, levels, _ = p.shape
    q = np.zeros((directions, levels, levels))
    for d in range(directions):
        for a in range(levels):
            for k in range(levels):
                if p[d, a, k] != 0.0:
                    divisor = px[d, a] * px[d, k] + EPS
                    for b in range(levels):
                        q[d, a, b] += p[d, a, k] * p[d, k, b] / divisor
    return q


@kernel
def _by_lanczos(p: NDArray[np.float64], px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Second eigenvalue of Q a direction; NaN where it is not sure."""
    directions, levels, _ = p.shape
    most = min(levels - 1, 120)
    out = np.full(directions, np.nan)
    s = np.empty((levels, levels))
    basis = np.empty((most + 1, levels))
    alpha, beta = np.empty(most), np.empty(most)
    for d in range(directions):
        root, inverse = np.empty(levels), np.empty(levels)
        norm = 0.0
        for a in range(levels):
            root[a] = np.sqrt(px[d, a])
            inverse[a] = 1.0 / root[a] if root[a] > 0 else 0.0
            norm += px[d, a]
        for a in range(levels):
            for b in range(levels):
                s[a, b] = p[d, a, b] * inverse[a] * inverse[b]
        top = root / np.sqrt(norm)
        # start near the smooth second vector of an ordinary texture, with a little of everything
        start = np.empty(levels)
        seed = 12345.0
        for a in range(levels):
            seed = (seed * 16807.0) % 2147483647.0
            start[a] = root[a] * (a - 0.5 * levels) / levels + 0.02 * (seed / 2147483647.0 - 0.5)
        start -= np.dot(top, start) * top
        basis[0] = start / np.sqrt(np.dot(start, start))
        for step in range(most):
            w = np.dot(s, basis[step])
            alpha[step] = np.dot(w, basis[step])
            for _ in range(2):
                w -= np.dot(top, w) * top
                shares = np.dot(basis[: step + 1], w)
                w -= np.dot(shares, basis[: step + 1])
            beta[step] = np.sqrt(np.dot(w, w))
            k = step + 1
            ended = beta[step] < 1e-14 or k == most
            if (k >= 8 and k % 6 == 2) or ended:
                value, vector = _outermost(alpha, beta, k)
                residual = beta[step] * abs(vector[k - 1])
                if residual < 1e-9 * abs(value) or ended:
                    if residual < 1e-9 * abs(value) or k == levels - 1:
                        out[d] = _quotient(p[d], px[d], root, inverse, np.dot(vector, basis[:k]))
                    break
            basis[k] = w / beta[step]
    return out


@kernel
def _outermost(alpha: NDArray[np.float64], beta: NDArray[np.float64], k: int) -> tuple[float, NDArray[np.float64]]:
    """Eigenvalue of largest size of the tridiagonal matrix, and its vector."""
    reach = 0.0
    for a in range(k):
        row = abs(alpha[a])
        if a > 0:
            row += abs(beta[a - 1])
        if a < k - 1:
            row += abs(beta[a])
        reach = max(reach, row)
    high = _edge(alpha, beta, k, 1.0, reach)
    low = _edge(alpha, beta, k, -1.0, reach)
    sign = 1.0 if high >= low else -1.0
    size = max(high, low)
    # outside the spectrum the shifted matrix is definite: elimination needs no pivots
    shift = size + max(1e-14 * reach, 1e-300)
    vector = np.full(k, 1.0 / np.sqrt(k))
    pivot = np.empty(k)
    for _ in range(4):
        pivot[0] = shift - sign * alpha[0]
        for a in range(1, k):
            if abs(pivot[a - 1]) < 1e-300:
                pivot[a - 1] = 1e-300
            factor = -sign * beta[a - 1] / pivot[a - 1]
            pivot[a] = shift - sign * alpha[a] + factor * sign * beta[a - 1]
            vector[a] -= factor * vector[a - 1]
        if abs(pivot[k - 1]) < 1e-300:
            pivot[k - 1] = 1e-300
        vector[k - 1] /= pivot[k - 1]
        for a in range(k - 2, -1, -1):
            vector[a] = (vector[a] + sign * beta[a] * vector[a + 1]) / pivot[a]
        vector /= np.sqrt(np.dot(vector, vector))
    return sign * size, vector


@kernel
def _edge(alpha: NDArray[np.float64], beta: NDArray[np.float64], k: int, sign: float, reach: float) -> float:
    """Largest eigenvalue of ``sign`` times the tridiagonal matrix, by bisection."""
    low, high = -reach, reach * (1 + 1e-15) + 1e-300
    for _ in range(70):
        middle = 0.5 * (low + high)
        above = False
        pivot = middle - sign * alpha[0]
        if pivot <= 0:
            above = True
        else:
            for a in range(1, k):
                pivot = middle - sign * alpha[a] - beta[a - 1] * beta[a - 1] / pivot
                if pivot <= 0:
                    above = True
                    break
        if above:
            low = middle
        else:
            high = middle
        if high - low <= 1e-15 * reach:
            break
    return 0.5 * (low + high)


@kernel
def _quotient(
    p: NDArray[np.float64],
    px: NDArray[np.float64],
    root: NDArray[np.float64],
    inverse: NDArray[np.float64],
    u: NDArray[np.float64],
) -> float:
    """Rayleigh quotient of the true Q with u, or NaN where u is not good enough for it."""
    levels = len(px)
    right = np.dot(p, u * inverse)
    value, size = 0.0, 0.0
    image = np.zeros(levels)
    for a in range(levels):
        total = 0.0
        for k in range(levels):
            if p[a, k] != 0.0:
                total += p[a, k] * right[k] / (px[a] * px[k] + EPS)
        image[a] = total * root[a]
        value += u[a] * image[a]
        size += u[a] * u[a]
    value /= size
    residual = 0.0
    for a in range(levels):
        off = image[a] - value * u[a]
        residual += off * off
    # a residual r leaves an error of r² over the distance to the next eigenvalue, which can be small in real images
    # Near 1 stand grey levels that meet only each other: equal eigenvalues of S, told apart by eps alone.
    if value < SURE_LOW or value > 0.9999 or residual > (1e-8 * value) ** 2 * size:
        return np.nan
    return value
