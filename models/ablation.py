"""What each source is worth: signatures refitted on a part of their columns, judged on held-out patients.

By sequence (and CT against MR), structure, family of features, and source. Each part is tried ``alone`` and the
others ``without`` it. Everything is fitted anew on training patients with the classifier and grid point that the
full signature has, so no part is given a choice that the whole did not have; scores are not calibrated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from feature_store.errors import FeatureTableError, UsageError
from feature_store.vocabulary import Partition, parse_feature_name
from models.classifiers import Configuration, fast_score, fit
from models.combined import StackSource
from models.crossfit import Source
from models.evaluation.auc import auc, delong_ci, delong_paired
from models.folds import rarer_class
from models.performance import HELD_OUT
from models.protocol import Development, sign_source
from models.scanners import Scanners
from models.selection.matrix import FeatureMatrix
from models.spread import OnCores, Spread
from models.study_patients import StudyPatients
from models.study_settings import StudySettings

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

FAMILY = re.compile(r"(?:^|[._])(shape2D|shape|firstorder|glcm|glrlm|glszm|gldm|ngtdm)_")
MOST_PARTS = 12
"""An axis with more parts than this is no axis to report."""


@dataclass(frozen=True)
class _Part:
    """``use``: alone, or without it. ``source``: these columns of the signature's matrix, or a stack."""

    signature: str
    axis: str
    part: str
    use: str
    source: tuple[str, ...] | StackSource
    point: Configuration
    n_columns: int


def ablation(
    patients: StudyPatients,
    development: Development,
    predictions: pd.DataFrame,
    settings: StudySettings,
    spread: Spread | None = None,
) -> list[dict[str, Any]]:
    """A row a part, use and held-out cohort, fit for JSON; empty where no cohort has both outcomes.

    ``auc`` with interval, and its ``difference`` from the full signature's on the same patients with DeLong's
    interval. A part without a usable column has ``reason`` instead.
    """
    held_out = {c: patients.rows(c) for c in HELD_OUT if rarer_class(patients.y[patients.rows(c)]) > 0}
    if not held_out or not development.signatures:
        return []
    parts = [*_of_columns(patients, development), *_of_sources(patients, development, settings)]
    training, judged = patients.rows(Partition.TRAINING), np.concatenate(list(held_out.values()))
    shared = (_matrices(patients), patients.scanner, training, judged, patients.y, settings)
    spread = spread or OnCores(settings.n_jobs)
    with closing(spread(_scores, shared, ((part,) for part in parts))) as results:
        found = list(results)
    rows = []
    for part, scores in zip(parts, found, strict=True):
        named = {k: getattr(part, k) for k in ("signature", "axis", "part", "use", "n_columns")}
        if scores is None:
            rows.append({**named, "reason": "No column of it is usable."})
            continue
        for cohort, members in held_out.items():
            own = scores[np.isin(judged, members)]
            whole = predictions[part.signature].to_numpy(dtype=np.float64)[members]
            difference = delong_paired(patients.y[members], own, whole)
            rows.append(
                {
                    **named,
                    "cohort": cohort,
                    "auc": auc(patients.y[members], own),
                    "auc_ci": list(delong_ci(patients.y[members], own)),
                    "difference": difference.difference,
                    "difference_ci": list(difference.ci),
                }
            )
    return rows


def axes_of(names: tuple[str, ...]) -> dict[str, dict[str, list[str]]]:
    """Axis -> part -> columns, of the axes on which these columns have two parts or more (at most twelve)."""
    found: dict[str, dict[str, list[str]]] = {"modality": {}, "sequence": {}, "structure": {}, "family": {}}
    for name in names:
        for axis, part in _places(name):
            found[axis].setdefault(part, []).append(name)
    return {axis: parts for axis, parts in found.items() if 2 <= len(parts) <= MOST_PARTS}


def _places(name: str) -> Iterator[tuple[str, str]]:
    try:
        roi, feature = parse_feature_name(name)
    except UsageError:
        feature = name
    else:
        yield "modality", "CT" if roi.sequence == "ct" else "MR"
        yield "sequence", roi.sequence
        yield "structure", roi.structure
    if family := FAMILY.search(feature):
        yield "family", family.group(1)


def _matrices(patients: StudyPatients) -> dict[str, FeatureMatrix]:
    both = {"rad": patients.radiomics, "dl": patients.deep}
    return {kind: matrix for kind, matrix in both.items() if matrix is not None}


def _scores(
    matrices: Mapping[str, FeatureMatrix],
    scanner: Scanners,
    training: Ints,
    judged: Ints,
    y: NDArray[np.int64],
    settings: StudySettings,
    part: _Part,
) -> Floats | None:
    source: Source
    if isinstance(part.source, StackSource):
        source = part.source
    else:
        columns = FeatureMatrix(part.source, matrices[part.signature].columns(part.source))
        source = sign_source(part.signature, columns, settings, scanner)
    return refitted_scores(source, part.point, training, judged, y, settings.seed)


def _of_columns(patients: StudyPatients, development: Development) -> Iterator[_Part]:
    for kind, matrix in _matrices(patients).items():
        if kind not in development.crossfits:
            continue
        point = development.crossfits[kind].chosen
        for axis, parts in axes_of(matrix.names).items():
            for part, names in sorted(parts.items()):
                without = sorted(set(matrix.names) - set(names))
                # With two parts, one alone is the other left out.
                for use, kept in (("alone", names), ("without", without)) if len(parts) > 2 else (("alone", names),):
                    yield _Part(kind, axis, part, use, tuple(sorted(kept)), point, len(kept))


def _of_sources(patients: StudyPatients, development: Development, settings: StudySettings) -> Iterator[_Part]:
    """The combined model on every two of its three sources (one alone is a signature, or the clinical model)."""
    if "combined" not in development.crossfits:
        return
    signs: list[str] = [kind for kind in ("rad", "dl") if kind in development.signatures]
    sources = [*signs, *(["clinical"] if patients.clinical is not None else [])]
    point = development.crossfits["combined"].chosen
    log_odds = _sign_log_odds(patients, development, signs)
    for kept in combinations(sources, len(sources) - 1) if len(sources) > 2 else ():
        members = tuple(kind for kind in kept if kind != "clinical")
        clinical = patients.clinical if "clinical" in kept else None
        stacked = np.column_stack([log_odds[kind] for kind in members])
        source = StackSource(members, stacked, clinical, settings.alpha)
        left_out = next(iter(set(sources) - set(kept)))
        yield _Part("combined", "source", left_out, "without", source, point, len(kept))


def _sign_log_odds(patients: StudyPatients, development: Development, signs: list[str]) -> Mapping[str, Floats]:
    """Out of fold for training patients, the signature's for the held-out: what the combined model is fitted on."""
    training = patients.rows(Partition.TRAINING)
    held_out = np.flatnonzero(np.isin(patients.partition, HELD_OUT))
    frame = patients.frame(held_out)
    found = {}
    for kind in signs:
        column = np.full(len(patients.y), np.nan)
        column[training] = development.crossfits[kind].chosen_logits
        column[held_out] = development.signatures[kind].logits(frame)
        found[kind] = column
    return found


def refitted_scores(
    source: Source, point: Configuration, training: Ints, judged: Ints, y: NDArray[np.int64], seed: int
) -> Floats | None:
    """Scores of ``judged`` patients by one grid point fitted on ``training``; None where no column is usable."""
    with threadpool_limits(1):
        try:
            x, x_new = source.inputs(training, judged, y, seed)
        except FeatureTableError:
            return None
        return fast_score(point.classifier, fit(point, x, y[training], seed), x_new)
