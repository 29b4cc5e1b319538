"""How much rests on one division of the patients: nested cross-validation repeated, and each site left out in turn.

Both are options: each repetition and each site costs a whole training. What is fitted here is thrown away again; the
released signatures are those of the study's own folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from feature_store.vocabulary import Partition
from models.folds import MIN_CLASS, rarer_class, stratified_folds
from models.protocol import Development, develop
from models.sites import by_site
from models.spread import Spread
from models.study_patients import StudyPatients
from models.study_settings import StudySettings

Progress = Callable[[str, float], None]


def repeated_nested(
    patients: StudyPatients,
    development: Development,
    settings: StudySettings,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> dict[str, Any] | None:
    """Nested AUCs of each signature over other divisions into folds: ``aucs`` (the study's first), mean and SD.

    None where it is asked for once. The SD is that of the division, not of the patients, and no standard error.
    """
    if settings.nested_repeats < 2:
        return None
    training = patients.training()
    aucs = {kind: [fit.nested_auc] for kind, fit in development.crossfits.items()}
    for repeat in range(1, settings.nested_repeats):
        if progress is not None:
            progress("repeated nested cross-validation", repeat / settings.nested_repeats)
        seed = settings.seed + 1000 * repeat
        folds = stratified_folds(training.y, settings.n_folds, seed)
        again = develop(training, folds, settings, spread=spread)
        for kind, fit in again.crossfits.items():
            aucs[kind].append(fit.nested_auc)
    return {
        kind: {"aucs": found, "mean": float(np.mean(found)), "sd": float(np.std(found, ddof=1))}
        for kind, found in aucs.items()
    }


def leave_one_site_out(
    patients: StudyPatients,
    settings: StudySettings,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> dict[str, Any] | None:
    """Each training site judged by signatures fitted on the others, pooled with the interval of the next site.

    Only training patients take part: external ones are for the frozen signatures. None where it is not asked for;
    ``reason`` where fewer than two sites can be left out. ``skipped``: sites without which too few are left.
    """
    if not settings.leave_one_site_out:
        return None
    training = patients.rows(Partition.TRAINING)
    site = patients.site[training]
    pieces: list[pd.DataFrame] = []
    thresholds: dict[str, dict[str, float]] = {}
    skipped = []
    sites = sorted(set(site.tolist()))
    for place, name in enumerate(sites):
        if progress is not None:
            progress("leave one site out", place / len(sites))
        out = training[site == name]
        if rarer_class(patients.y[training[site != name]]) < MIN_CLASS:
            skipped.append(name)
            continue
        # The others alone are training here; the site that is left out is nobody's.
        partition = np.full(len(patients.y), "left out", dtype="<U32")
        partition[training[site != name]] = Partition.TRAINING.value
        rest = replace(patients, partition=partition).training()
        folds = stratified_folds(rest.y, settings.n_folds, settings.seed)
        fitted = develop(rest, folds, settings, spread=spread)
        frame = patients.frame(out)
        risks = {kind: signature.probabilities(frame) for kind, signature in fitted.signatures.items()}
        for kind, signature in fitted.signatures.items():
            thresholds.setdefault(kind, {})[name] = signature.head.threshold
        pieces.append(pd.DataFrame({"site": name, "outcome": patients.y[out], **risks}))
    if len(pieces) < 2:
        return {"skipped": skipped, "reason": "Fewer than two training sites can be left out."}
    table = pd.concat(pieces, ignore_index=True)
    return {"skipped": skipped, "signatures": {kind: by_site(table, kind, own) for kind, own in thresholds.items()}}
