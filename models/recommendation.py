"""Which signature to release: the simplest that nothing beats out of fold, and what beats or equals it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from feature_store.errors import TooFewPatients
from feature_store.vocabulary import Partition
from models.evaluation.auc import auc, delong_ci, delong_paired

SIMPLEST_FIRST = (("rad", "dl"), ("combined",))
"""Rad-sign and DL-sign are equally simple; the combined model holds them both."""
REFERENCES = ("size", "clinical")


class Recommendation(NamedTuple):
    """``kind``, and the signatures it was compared with. ``not_beaten``: reference models that do as well as it.

    ``above_chance``: whether the 95 % interval of its nested AUC lies above 0.5. Where it does not, it is the first
    among signatures of which none is fit for release.
    """

    kind: str
    compared_with: tuple[str, ...]
    not_beaten: tuple[str, ...]
    above_chance: bool


def recommend(predictions: pd.DataFrame) -> Recommendation | None:
    """By nested out-of-fold predictions of the training patients; no held-out patient is looked at.

    Of equally simple signatures the one with the larger nested AUC comes first. None where no signature has such
    predictions, or training has one class only.
    """
    kinds = [kind for group in SIMPLEST_FIRST for kind in group if area(predictions, kind) is not None]
    order = [
        kind
        for group in SIMPLEST_FIRST
        for kind in sorted((k for k in group if k in kinds), key=lambda k: -(area(predictions, k) or 0.0))
    ]
    for kind in order:
        others = tuple(other for other in order if other != kind)
        if not any(beats(predictions, other, kind) for other in others):
            there = (r for r in REFERENCES if area(predictions, r) is not None)
            not_beaten = tuple(r for r in there if not beats(predictions, kind, r))
            return Recommendation(kind, others, not_beaten, _above_chance(predictions, kind))
    return None


def _above_chance(predictions: pd.DataFrame, kind: str) -> bool:
    rows = predictions[predictions["partition"] == Partition.TRAINING.value].dropna(subset=[kind])
    return delong_ci(rows["outcome"], rows[kind])[0] > 0.5


def beats(predictions: pd.DataFrame, a: str, b: str, partition: str = Partition.TRAINING.value) -> bool:
    """Whether the 95 % DeLong interval of AUC(a) − AUC(b) on patients who have both lies above 0."""
    rows = predictions[predictions["partition"] == partition]
    if a not in rows or b not in rows:
        return False
    rows = rows.dropna(subset=[a, b])
    try:
        return delong_paired(rows["outcome"], rows[a], rows[b]).ci[0] > 0
    except TooFewPatients:
        return False


def area(predictions: pd.DataFrame, kind: str, partition: str = Partition.TRAINING.value) -> float | None:
    """AUC of a model's predictions in a partition; None without predictions or with one class only."""
    if kind not in predictions:
        return None
    rows = predictions[predictions["partition"] == partition].dropna(subset=[kind])
    y = rows["outcome"].to_numpy(dtype=np.int64)
    return float(auc(y, rows[kind])) if len(np.unique(y)) == 2 else None
