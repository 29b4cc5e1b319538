"""What harmonising scanners does here: how far they are told apart before and after, and what it does to AUCs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from feature_store.vocabulary import Partition
from models.ablation import refitted_scores
from models.data_checks import batch_share
from models.evaluation.auc import auc, delong_paired
from models.folds import rarer_class
from models.harmonisation import MIN_BATCH, fit_combat
from models.performance import HELD_OUT
from models.protocol import Development, sign_source
from models.study_patients import StudyPatients
from models.study_settings import StudySettings


def harmonisation_effect(
    patients: StudyPatients, development: Development, settings: StudySettings
) -> dict[str, Any] | None:
    """Whether it was used or not; None where training has no two scanners of five patients to learn from.

    ``scanners``: training patients of each; ``unseen``: held-out patients of others, whom nothing is learnt for.
    ``separability``: median share of a column's rank variance between training scanners, before and after ComBat.
    ``effect``: AUC with ComBat less that without, the signature's classifier and grid point refitted either way, on
    the held-out patients of the cohorts that have both outcomes.
    """
    training = patients.rows(Partition.TRAINING)
    counts = Counter(patients.scanner[training].tolist())
    known = [name for name, count in counts.items() if count >= MIN_BATCH]
    if len(known) < 2:
        return None
    separability, effect = {}, []
    for kind, source, matrix in (("rad", "radiomics", patients.radiomics), ("dl", "deep", patients.deep)):
        if matrix is None or kind not in development.signatures:
            continue
        x, scanner = matrix.values[training], patients.scanner[training]
        even = fit_combat(matrix.take(training), scanner).apply(x, scanner)
        shares = [float(np.median(batch_share(values, scanner))) for values in (x, even)]
        separability[source] = dict(zip(("before", "after"), shares, strict=True))
        effect += _effect(kind, patients, development, settings)
    return {
        "used": settings.harmonisation,
        "unseen_scanner": settings.unseen_scanner,
        "scanners": dict(sorted(counts.items())),
        "unseen": {
            cohort: int((~np.isin(patients.scanner[patients.rows(cohort)], known)).sum()) for cohort in HELD_OUT
        },
        "separability": separability,
        "effect": effect,
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
