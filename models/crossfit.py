"""Nested cross-validation on one fold plan, each fit used for all it can tell.

The model fitted without folds o and i serves both "outer o, inner i" and "outer i, inner o". So everything
is fitted K (K − 1) / 2 times without two folds, K times without one, and the classifiers of every grid point
share the selector of their patients. From these scores come the cross-validation table with the final choice,
the choice inside each outer fold, and nested out-of-fold log-odds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from feature_store.errors import NotReady
from models.classifiers import FAMILIES, Configuration, grid_scores
from models.evaluation.auc import auc
from models.scale import Scale, fit_scale
from models.spread import OnCores, Spread
from models.study_settings import AUTO

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Outcome = NDArray[np.int64]
Progress = Callable[[float], None]


class Source(Protocol):
    """Where a classifier's input comes from; whatever has to be fitted for it is fitted on ``fit_rows`` only."""

    def inputs(self, fit_rows: Ints, score_rows: Ints, y: Outcome, seed: int) -> tuple[Floats, Floats]:
        """Inputs (n_fit, d) and (n_score, d)."""


@dataclass(frozen=True)
class Plan:
    """What all fits share: outcome (n,), fold of each patient (n,), grid points, seed, where they are carried out.

    ``fixed`` is the classifier to take, or ``auto``; ``tie_margin`` as in the settings.
    """

    y: Outcome
    folds: Ints
    points: tuple[Configuration, ...]
    seed: int
    fixed: str = AUTO
    tie_margin: float | None = None
    spread: Spread = field(default_factory=OnCores)

    @property
    def n_folds(self) -> int:
        return int(self.folds.max()) + 1


@dataclass(frozen=True)
class CrossFit:
    """``table``: a row a classifier (name, cv_auc, cv_auc_sd, params of its best point).

    ``inner_auc`` (K, points): mean AUC of each grid point over the folds other than o, by which outer fold o chose.
    ``chosen``: for the final fit, with ``scale`` from its out-of-fold scores (see ``grid_scores``), and
    ``chosen_logits`` (n,): these scores on that scale, what the final fit's log-odds of new patients are like; a
    final model is stacked on them.
    ``logits`` (n,): nested out-of-fold log-odds, by which the choice itself is judged, and ``nested_auc`` their
    AUC. ``inner_logits`` (K, n): for outer fold o, the out-of-fold log-odds of the other folds' patients (NaN on
    fold o), on which a model inside o may be stacked. ``choices``: in how many outer folds each classifier was chosen.
    """

    table: list[dict[str, Any]]
    chosen: Configuration
    scale: Scale
    chosen_logits: Floats
    logits: Floats
    inner_logits: Floats
    nested_auc: float
    choices: dict[str, int]
    inner_auc: Floats
    failures: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Scores:
    """Raw scores of every grid point: ``inner`` (K, points, n), ``outer`` and ``plain`` (points, n)."""

    inner: Floats
    outer: Floats
    plain: Floats
    failures: list[dict[str, str]]


@dataclass(frozen=True)
class _Fit:
    source: int
    """Which of the sources: 0 the one of the final fit, 1 + o that of outer fold o."""
    left_out: tuple[int, ...]
    scored: tuple[int, ...]
    places: tuple[tuple[str, int], ...]
    """Where the scores go: ("inner", o) for the patients outside o, ("outer", -1) or ("plain", -1)."""


def crossfit(
    plan: Plan, source: Source, *, per_outer: Sequence[Source] | None = None, progress: Progress | None = None
) -> CrossFit:
    """Nested cross-validation of every grid point.

    ``per_outer``: sources that differ between outer folds (a stacked model's inputs are out-of-fold within
    o); ``source`` then gives the table and the final choice only. NotReady where no classifier could be fitted.
    """
    sources = (source, *(per_outer or ()))
    scores = _fit_all(plan, sources, _fits(plan.n_folds, nested=per_outer is not None), progress)
    if np.isnan(scores.plain).any(axis=1).all():
        raise NotReady(
            f"None of {len(plan.points)} classifiers and grid points could be fitted in every fold.",
            action=f"First reason: {scores.failures[0]['reason'] if scores.failures else 'unknown'}.",
        )
    cv_auc, cv_sd = _fold_aucs(scores.plain, plan, skip=None)
    best = _choose(cv_auc, cv_sd, plan, plan.n_folds)
    logits = np.full(len(plan.y), np.nan)
    inner_logits = np.full((plan.n_folds, len(plan.y)), np.nan)
    choices: Counter[str] = Counter()
    inner_aucs = np.empty((plan.n_folds, len(plan.points)))
    for o in range(plan.n_folds):
        held = plan.folds == o
        inner_auc, inner_sd = _fold_aucs(scores.inner[o], plan, skip=o)
        # A point whose last fit failed cannot be applied to fold o; whether it fails is known before its outcomes.
        inner_auc[np.isnan(scores.outer[:, held]).any(axis=1)] = np.nan
        inner_aucs[o] = inner_auc
        point = _choose(inner_auc, inner_sd, plan, plan.n_folds - 1)
        inside = scores.inner[o, point, ~held]
        scale = fit_scale(inside, plan.y[~held], plan.folds[~held])
        inner_logits[o, ~held] = scale(inside)
        logits[held] = scale(scores.outer[point, held])
        choices[plan.points[point].classifier] += 1
    final_scale = fit_scale(scores.plain[best], plan.y, plan.folds)
    return CrossFit(
        table=_table(cv_auc, cv_sd, plan),
        chosen=plan.points[best],
        scale=final_scale,
        chosen_logits=final_scale(scores.plain[best]),
        logits=logits,
        inner_logits=inner_logits,
        nested_auc=auc(plan.y, logits),
        choices=dict(choices),
        inner_auc=inner_aucs,
        failures=scores.failures,
    )


def _fits(k: int, nested: bool) -> list[_Fit]:
    """``nested``: each outer fold has a source of its own."""
    plain = [_Fit(0, (o,), (o,), (("plain", -1),)) for o in range(k)]
    if not nested:
        pairs = [_Fit(0, (o, i), (o, i), (("inner", o), ("inner", i))) for o in range(k) for i in range(o)]
        return [*pairs, *(replace(fit, places=(("outer", -1), *fit.places)) for fit in plain)]
    inner = [_Fit(1 + o, (o, i), (i,), (("inner", o),)) for o in range(k) for i in range(k) if i != o]
    outer = [_Fit(1 + o, (o,), (o,), (("outer", -1),)) for o in range(k)]
    return [*inner, *outer, *plain]


def _fit_all(plan: Plan, sources: Sequence[Source], fits: list[_Fit], progress: Progress | None) -> _Scores:
    n, points = len(plan.y), len(plan.points)
    inner = np.full((plan.n_folds, points, n), np.nan)
    outer, plain = np.full((points, n), np.nan), np.full((points, n), np.nan)
    failures: dict[tuple[str, str], str] = {}
    shared = (sources, plan.folds, plan.y, plan.points, plan.seed)
    with closing(plan.spread(_fit_one, shared, ((fit,) for fit in fits))) as results:
        for done, (fit, (scores, failed)) in enumerate(zip(fits, results, strict=True), start=1):
            rows = _rows(plan.folds, fit)[1]
            for name, o in fit.places:
                if name == "inner":
                    # The scores of fold o itself belong to the other outer fold of the pair.
                    inside = plan.folds[rows] != o
                    inner[o][:, rows[inside]] = scores[:, inside]
                else:
                    (outer if name == "outer" else plain)[:, rows] = scores
            for point, reason in failed.items():
                configuration = plan.points[point]
                failures.setdefault((configuration.classifier, str(dict(configuration.params))), reason)
            if progress is not None:
                progress(done / len(fits))
    return _Scores(
        inner,
        outer,
        plain,
        [{"classifier": name, "params": params, "reason": reason} for (name, params), reason in failures.items()],
    )


def _rows(folds: Ints, fit: _Fit) -> tuple[Ints, Ints]:
    return np.flatnonzero(~np.isin(folds, fit.left_out)), np.flatnonzero(np.isin(folds, fit.scored))


def _fit_one(
    sources: Sequence[Source], folds: Ints, y: Outcome, points: Sequence[Configuration], seed: int, fit: _Fit
) -> tuple[Floats, dict[int, str]]:
    # One thread inside, whatever runs beside: the same sums in the same order on every machine and n_jobs.
    with threadpool_limits(1):
        fit_rows, score_rows = _rows(folds, fit)
        x, x_new = sources[fit.source].inputs(fit_rows, score_rows, y, seed)
        return grid_scores(points, x, y[fit_rows], x_new, seed)


def _fold_aucs(scores: Floats, plan: Plan, skip: int | None) -> tuple[Floats, Floats]:
    """Mean and standard deviation over the folds of each point's AUC, both (points,); NaN where a fit failed."""
    per_fold = []
    for fold in range(plan.n_folds):
        if fold != skip:
            rows = plan.folds == fold
            per_fold.append(_aucs(plan.y[rows], scores[:, rows]))
    aucs = np.array(per_fold)
    return aucs.mean(axis=0), aucs.std(axis=0, ddof=1)


def _aucs(y: Outcome, scores: Floats) -> Floats:
    """AUC of each row of ``scores`` (points, m), ties counting half."""
    events = y == 1
    m, n = int(events.sum()), int((~events).sum())
    ranks = rankdata(scores, axis=1, nan_policy="propagate")
    return np.asarray((ranks[:, events].sum(axis=1) - m * (m + 1) / 2) / (m * n), dtype=np.float64)


def _choose(aucs: Floats, sds: Floats, plan: Plan, n_folds: int) -> int:
    """Index of the point to take: the simplest classifier that ties with the best, then its own best point.

    Ties are within ``tie_margin`` of the best, or within one standard error of it over the folds: of more than a
    hundred points the best is best by luck as well, and what luck gives is gone on new patients. Within a
    classifier equal AUCs go to the earlier, more regularised point.
    """
    allowed = np.array([plan.fixed in (AUTO, point.classifier) for point in plan.points]) & ~np.isnan(aucs)
    if not allowed.any():
        raise NotReady(
            f"The classifier {plan.fixed} could not be fitted in every fold.", action="Take another one, or auto."
        )
    considered = np.where(allowed, aucs, -np.inf)
    best = int(considered.argmax())
    margin = float(sds[best]) / np.sqrt(n_folds) if plan.tie_margin is None else plan.tie_margin
    limit = considered[best] - margin - 1e-12
    simplest = min((plan.points[i].classifier for i in np.flatnonzero(considered >= limit)), key=list(FAMILIES).index)
    of_simplest = np.array([point.classifier == simplest for point in plan.points])
    return int(np.where(of_simplest, considered, -np.inf).argmax())


def _table(aucs: Floats, sds: Floats, plan: Plan) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(point.classifier for point in plan.points):
        members = [i for i, point in enumerate(plan.points) if point.classifier == name and not np.isnan(aucs[i])]
        if not members:
            rows.append({"name": name, "cv_auc": None, "cv_auc_sd": None, "params": None})
            continue
        best = max(members, key=lambda i: aucs[i])
        params = {key: list(v) if isinstance(v, tuple) else v for key, v in plan.points[best].params.items()}
        rows.append({"name": name, "cv_auc": float(aucs[best]), "cv_auc_sd": float(sds[best]), "params": params})
    return rows
