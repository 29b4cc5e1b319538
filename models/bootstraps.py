"""Every signature refitted on training patients drawn with replacement: the whole protocol, from selection on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from models.classifiers import PERMUTATION_CLASSIFIERS, configurations
from models.combined import CombinedSignature
from models.folds import MIN_CLASS, rarer_class, stratified_folds
from models.leakage import SMALLER_GRID
from models.performance import HELD_OUT
from models.protocol import Progress, TrainingPatients, develop
from models.risk_interval import LABEL, intervals
from models.signature import AnySignature, Signature
from models.spread import OnCores, Spread
from models.study_patients import StudyPatients
from models.study_settings import StudySettings

Ints = NDArray[np.intp]
Signatures = dict[str, AnySignature]

WISE = 100
"""Fewer put each end of a 95 % interval on one or two refits."""


def with_bootstraps(
    signatures: Mapping[str, AnySignature],
    training: TrainingPatients,
    settings: StudySettings,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> Signatures:
    """The signatures with ``bootstraps`` refits each, every one of its own draw and with the grid of permuted runs.

    What becomes of a scanner that a draw lacks, though training had it, is for the signature itself to say: bootstraps
    leave such patients as they are.
    """
    reduced = settings.smaller().model_copy(update={"unseen_scanner": "as_is"})
    refits: list[Signatures] = []
    draws = ((draw,) for draw in range(settings.bootstraps))
    with closing((spread or OnCores(settings.n_jobs))(refitted, (training, reduced), draws)) as results:
        for fitted in results:
            refits.append(fitted)
            if progress is not None:
                progress("bootstraps", len(refits) / settings.bootstraps)
    signs = {
        kind: replace(sign, bootstraps=tuple(cast(Signature, fitted[kind]) for fitted in refits))
        for kind, sign in signatures.items()
        if isinstance(sign, Signature)
    }
    combined = {
        kind: replace(found, signs=signs, bootstraps=tuple(cast(CombinedSignature, fitted[kind]) for fitted in refits))
        for kind, found in signatures.items()
        if isinstance(found, CombinedSignature)
    }
    return {**signs, **combined}


def refitted(training: TrainingPatients, settings: StudySettings, draw: int) -> Signatures:
    """Every signature of one draw, without the traces that only a report reads."""
    with threadpool_limits(1):
        again = training.drawn(drawn(training.y, settings.seed, draw))
        folds = stratified_folds(again.y, settings.n_folds, settings.seed, again.who)
        points = configurations("quick", PERMUTATION_CLASSIFIERS)
        fitted = develop(again, folds, settings, points=points).signatures
    signs = {kind: _untraced(sign) for kind, sign in fitted.items() if isinstance(sign, Signature)}
    combined = {k: replace(c, signs=signs) for k, c in fitted.items() if isinstance(c, CombinedSignature)}
    return {**signs, **combined}


def drawn(y: NDArray[np.int64], seed: int, draw: int) -> Ints:
    """Rows (n,) drawn with replacement within each outcome, in the order of the patients.

    Drawn again where fewer than four different patients of an outcome came: they could not carry nested
    cross-validation.
    """
    rng = np.random.default_rng([seed, 1 + draw])
    while True:
        rows = np.sort(np.concatenate([rng.choice(of, len(of)) for of in (np.flatnonzero(y == v) for v in (0, 1))]))
        if rarer_class(y[np.unique(rows)]) >= MIN_CLASS:
            return rows


def add_intervals(predictions: pd.DataFrame, signatures: Mapping[str, AnySignature], patients: StudyPatients) -> None:
    """Columns ``rad_low`` and ``rad_high`` and so on, of held-out patients.

    Training patients have none: they are among the draws, and their risks out of fold.
    """
    held_out = np.flatnonzero(np.isin(patients.partition, HELD_OUT))
    for kind, signature in signatures.items():
        found = np.full((len(predictions), 2), np.nan)
        if len(held_out):
            found[held_out] = intervals(signature, patients.frame(held_out))
        predictions[f"{kind}_low"], predictions[f"{kind}_high"] = found.T


def bootstrap_record(settings: StudySettings) -> dict[str, Any]:
    """For metrics.json: how many, on which grid, and what the intervals are."""
    return {
        "n": settings.bootstraps,
        "grid": f"{settings.permutation_folds} folds, {SMALLER_GRID}",
        "interval": f"{LABEL}: 95 % percentile interval over the refits",
    }


def bootstrap_notes(settings: StudySettings) -> Sequence[str]:
    """A sentence where there are few."""
    if settings.bootstraps >= WISE:
        return ()
    return (f"The {LABEL} rests on {settings.bootstraps} refits: its ends are those of one or two of them.",)


def _untraced(sign: Signature) -> Signature:
    return replace(sign, selector=replace(sign.selector, trace=None))
