"""The leakage check: the whole protocol on permuted outcomes must predict nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from feature_store.vocabulary import Partition
from models.classifiers import PERMUTATION_CLASSIFIERS, configurations
from models.evaluation.auc import auc_within
from models.folds import permuted_within, rarer_class, stratified_folds
from models.protocol import develop
from models.spread import OnCores, Spread
from models.study_patients import StudyPatients
from models.study_settings import StudySettings

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

SMALLER_GRID = f"{', '.join(PERMUTATION_CLASSIFIERS)} with the quick grid"
NESTED = "training (nested)"
PREFERRED_COHORTS = ("external_test", "internal_validation")


@dataclass(frozen=True)
class LeakageCheck:
    """``metrics`` as metrics.json has it; ``aucs``: of each permuted run."""

    metrics: dict[str, Any]
    aucs: list[float]


def leakage_check(
    patients: StudyPatients,
    kind: str,
    settings: StudySettings,
    progress: Callable[[float], None] | None = None,
    spread: Spread | None = None,
) -> LeakageCheck:
    """Runs the protocol on outcomes permuted within each partition and site, test patients' outcomes as well.

    Judged on the external test patients, else on internal validation, else (where neither has a site with both
    outcomes) by the nested AUC of training. Outcomes keep their share at every site, and a protocol without any leak
    may learn sites from scanners: pairs of patients of one site count, and no others (``auc_within``). The permuted
    runs use fewer folds and a smaller grid, both stated. The check fails only when the 95 % interval of the mean AUC
    (Student's t) lies above 0.5; where no site has both outcomes it cannot be made, with the ``reason``.
    """
    cohort = next((c for c in (*PREFERRED_COHORTS, NESTED) if _pairs(patients, c)), None)
    if cohort is None:
        nothing = dict.fromkeys(("passed", "cohort", "permuted_auc_mean", "permuted_auc_ci"))
        reason = "No site has patients of both outcomes, so that outcomes cannot be permuted within sites."
        return LeakageCheck({**nothing, "signature": kind, "n_permutations": 0, "reason": reason}, [])
    reduced = settings.smaller()
    spread = spread or OnCores(settings.n_jobs)
    seeds = ((settings.seed + 1 + i,) for i in range(settings.permutations))
    aucs: list[float] = []
    with closing(spread(permuted_auc, (patients, kind, cohort, reduced), seeds)) as results:
        for value in results:
            aucs.append(value)
            if progress is not None:
                progress(len(aucs) / settings.permutations)
    interval = mean_interval(aucs)
    return LeakageCheck(
        {
            "passed": None if interval is None else not interval[0] > 0.5,
            "signature": kind,
            "cohort": cohort,
            "permuted_auc_mean": float(np.mean(aucs)) if aucs else None,
            "permuted_auc_ci": None if interval is None else list(interval),
            "n_permutations": len(aucs),
            "grid": f"{settings.permutation_folds} folds, {SMALLER_GRID}",
        },
        aucs,
    )


def permuted_auc(patients: StudyPatients, kind: str, cohort: str, settings: StudySettings, seed: int) -> float:
    """AUC, within sites, of one run of the whole protocol on permuted outcomes."""
    with threadpool_limits(1):
        permuted = patients.with_outcomes(permuted_within(patients.y, patients.groups(), seed))
        training = permuted.training()
        folds = stratified_folds(training.y, settings.n_folds, seed)
        points = configurations("quick", PERMUTATION_CLASSIFIERS)
        needed = training.only(kind)
        development = develop(needed, folds, settings, points=points)
        rows = _judged(permuted, cohort)
        nested = cohort == NESTED
        fits, signatures = development.crossfits, development.signatures
        scores = fits[kind].logits if nested else signatures[kind].logits(permuted.frame(rows))
        found = auc_within(permuted.y[rows], scores, permuted.site[rows])
        assert found is not None  # the cohort was taken for having such pairs, and permuting keeps them
        return found


def _judged(patients: StudyPatients, cohort: str) -> Ints:
    return patients.rows(Partition.TRAINING if cohort == NESTED else cohort)


def _pairs(patients: StudyPatients, cohort: str) -> bool:
    """Whether a site has patients of both outcomes there."""
    rows = _judged(patients, cohort)
    return any(rarer_class(patients.y[rows[patients.site[rows] == site]]) > 0 for site in set(patients.site[rows]))


def mean_interval(aucs: list[float]) -> tuple[float, float] | None:
    """95 % interval of the mean; None for fewer than two."""
    if len(aucs) < 2:
        return None
    half = float(stats.t.isf(0.025, len(aucs) - 1) * np.std(aucs, ddof=1) / np.sqrt(len(aucs)))
    mean = float(np.mean(aucs))
    return mean - half, mean + half
