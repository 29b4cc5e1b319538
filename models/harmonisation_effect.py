"""What harmonising scanners does here: how far they are told apart before and after, and what it does to AUCs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.scanners import sequence_of
from feature_store.vocabulary import Partition
from models.ablation import refitted_scores
from models.data_checks import share_by_scanner
from models.evaluation.auc import auc, delong_paired
from models.folds import rarer_class
from models.harmonisation import MIN_BATCH
from models.performance import HELD_OUT
from models.protocol import Development, sign_source
from models.scanners import Scanners, fit_harmonisation
from models.selection.matrix import FeatureMatrix
from models.study_patients import StudyPatients
from models.study_settings import StudySettings


def harmonisation_effect(
    patients: StudyPatients, development: Development, settings: StudySettings
) -> dict[str, Any] | None:
    """Whether it was used or not; None where training has no two scanners of five patients to learn from.

    ``sequences``: a row each scanner that columns go by (``sequence`` is None for the one of all others), with its
    training patients by ``scanners``, which are ``learnt`` (none where there is one only), those with too ``few`` to
    learn from, and ``unseen``, held-out patients of scanners with no or too few training patients. Only patients who
    have a value of the sequence count. ``scanners`` and ``unseen`` are the
    same of all sequences together.
    ``separability``: median share of a column's rank variance between training scanners, before and after ComBat.
    ``effect``: AUC with ComBat less that without, the signature's classifier and grid point refitted either way, on
    the held-out patients of the cohorts that have both outcomes.
    """
    matrices = {"radiomics": patients.radiomics, "deep": patients.deep}
    there = _there([matrix for matrix in matrices.values() if matrix is not None], patients.scanner)
    rows = [_sequence(by, has, patients) for by, has in sorted(there.items())]
    if not any(row["learnt"] for row in rows):
        return None
    training = patients.rows(Partition.TRAINING)
    separability, effect = {}, []
    for kind, source in (("rad", "radiomics"), ("dl", "deep")):
        matrix = matrices[source]
        if matrix is None or kind not in development.signatures:
            continue
        own, scanner = matrix.take(training), patients.scanner.take(training)
        even = FeatureMatrix(own.names, fit_harmonisation(own, scanner).apply(own.values, scanner.names))
        shares = [float(np.median(share_by_scanner(values, scanner))) for values in (own, even)]
        separability[source] = dict(zip(("before", "after"), shares, strict=True))
        effect += _effect(kind, patients, development, settings)
    several = len(rows) > 1
    strange = {
        cohort: sum(any(i in row["strangers"] for row in rows) for i in patients.rows(cohort)) for cohort in HELD_OUT
    }
    return {
        "used": settings.harmonisation,
        "unseen_scanner": settings.unseen_scanner,
        "scanners": {
            f"{row['sequence'] or 'other'}: {name}" if several else name: count
            for row in rows
            for name, count in row["scanners"].items()
        },
        "unseen": strange,
        "sequences": [{key: value for key, value in row.items() if key != "strangers"} for row in rows],
        "separability": separability,
        "effect": effect,
    }


def _there(matrices: list[FeatureMatrix], scanner: Scanners) -> dict[str, NDArray[np.bool_]]:
    """Which patients (n,) have a value of a column that goes by each scanner."""
    found: dict[str, NDArray[np.bool_]] = {}
    for matrix in matrices:
        for by, columns in scanner.groups(matrix.names).items():
            has = np.isfinite(matrix.values[:, columns]).any(axis=1)
            found[by] = np.logical_or(found.get(by, False), has)
    return found


def _sequence(by: str, there: NDArray[np.bool_], patients: StudyPatients) -> dict[str, Any]:
    names = patients.scanner.names[by]
    counts = Counter(names[there & (patients.partition == Partition.TRAINING.value)].tolist())
    enough = [name for name, count in counts.items() if count >= MIN_BATCH]
    learnt = sorted(enough) if len(enough) > 1 else []
    strangers = set(np.flatnonzero(there & ~np.isin(names, enough)).tolist())
    return {
        "sequence": sequence_of(by),
        "scanners": dict(sorted(counts.items())),
        "learnt": learnt,
        "few": sorted(set(counts) - set(enough)),
        "unseen": {cohort: len(strangers & set(patients.rows(cohort).tolist())) for cohort in HELD_OUT},
        "strangers": strangers,
    }


def _effect(
    kind: str, patients: StudyPatients, development: Development, settings: StudySettings
) -> list[dict[str, Any]]:
    matrix = patients.radiomics if kind == "rad" else patients.deep
    held_out = {c: patients.rows(c) for c in HELD_OUT if rarer_class(patients.y[patients.rows(c)]) > 0}
    if matrix is None or not held_out:
        return []
    point, training = development.crossfits[kind].chosen, patients.rows(Partition.TRAINING)
    judged = np.concatenate(list(held_out.values()))
    plain = replace(sign_source(kind, matrix, settings, None), scanner=None)
    even = replace(plain, scanner=patients.scanner, unseen="as_is")
    scores = [refitted_scores(s, point, training, judged, patients.y, settings.seed) for s in (plain, even)]
    rows = []
    for cohort, members in held_out.items():
        y = patients.y[members]
        without, with_ = (s[np.isin(judged, members)] for s in scores if s is not None)
        difference = delong_paired(y, with_, without)
        rows.append(
            {
                "signature": kind,
                "cohort": cohort,
                "auc_without": auc(y, without),
                "auc_with": auc(y, with_),
                "difference": difference.difference,
                "difference_ci": list(difference.ci),
            }
        )
    return rows
