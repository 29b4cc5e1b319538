"""Greedy recursive deletion of correlated features (paper, "Feature Selection")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


def uncorrelated(z: Floats, threshold: float) -> Ints:
    """Columns of ``z`` (n × p, mean 0 and population SD 1) left when no pair has |r| above ``threshold``.

    The most correlated pair goes first; of that pair the column with the larger mean |r| to the rest that
    is still there is deleted (the later column where both are equal); repeated until no pair is left.
    Each row's largest |r| is kept up to date, so that a deletion costs O(p) and not O(p²).
    Returns sorted column indices.
    """
    n, p = z.shape
    if p < 2:
        return np.arange(p)
    r = np.abs(z.T @ z) / n
    np.fill_diagonal(r, 0.0)
    sums = r.sum(axis=1)
    partner = r.argmax(axis=1)
    largest = r[np.arange(p), partner]
    alive = np.ones(p, dtype=bool)
    while True:
        a = int(largest.argmax())
        if not largest[a] > threshold:
            return np.flatnonzero(alive)
        b = int(partner[a])
        a, b = min(a, b), max(a, b)
        drop = a if sums[a] > sums[b] else b
        alive[drop] = False
        sums -= r[drop]
        r[drop] = 0.0
        r[:, drop] = 0.0
        largest[drop] = -1.0
        for row in np.flatnonzero((partner == drop) & alive & (largest > threshold)):
            partner[row] = r[row].argmax()
            largest[row] = r[row, partner[row]]
