"""Splits of patients: one stratified plan, a pure function of the outcomes and a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feature_store.errors import TooFewPatients

Ints = NDArray[np.intp]

MIN_CLASS = 4
"""The fewest patients of the rarer outcome: below, a model without two of the folds sees one of a kind."""


def rarer_class(outcome: NDArray[np.generic]) -> int:
    """How many patients have the rarer outcome (0 where there is one outcome only)."""
    return int(min(np.count_nonzero(outcome == 1), np.count_nonzero(outcome == 0)))


def check_enough(outcome: NDArray[np.generic]) -> None:
    """TooFewPatients where the training patients cannot carry nested cross-validation."""
    if rarer_class(outcome) < MIN_CLASS:
        events = int(np.count_nonzero(outcome == 1))
        raise TooFewPatients(
            f"Training has {events} patients with the outcome and {len(outcome) - events} without.",
            action=f"At least {MIN_CLASS} of each are needed; add training patients.",
        )


def stratified_folds(outcome: NDArray[np.generic], n_folds: int, seed: int, who: Ints | None = None) -> Ints:
    """Fold number (0 … K−1) of each patient, shape (n,).

    K is ``n_folds``, or the size of the rarer class where that is smaller (but at least 2), so that each
    fold holds both outcomes. Each class is shuffled and dealt round; the second class is dealt on from
    where the first ended, which keeps fold sizes within one patient.

    ``who`` (n,): which patient each row is, where some were drawn more than once. Patients are then dealt, and all
    rows of one lie in one fold.
    """
    if who is not None:
        _, first, place = np.unique(who, return_index=True, return_inverse=True)
        return stratified_folds(outcome[first], n_folds, seed)[place]
    k = max(2, min(n_folds, rarer_class(outcome)))
    rng = np.random.default_rng(seed)
    folds = np.empty(len(outcome), dtype=np.intp)
    start = 0
    for value in (1, 0):
        rows = np.flatnonzero(outcome == value)
        folds[rng.permutation(rows)] = (np.arange(len(rows)) + start) % k
        start = (start + len(rows)) % k
    return folds


def permuted_within(outcome: NDArray[np.int64], groups: NDArray[np.generic], seed: int) -> NDArray[np.int64]:
    """Outcomes shuffled within each group (partition and site), so that each group keeps its prevalence."""
    rng = np.random.default_rng(seed)
    permuted = outcome.copy()
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        permuted[rows] = outcome[rng.permutation(rows)]
    return permuted
