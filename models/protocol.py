"""The protocol on training patients only: both signs, the combined model, all that is fitted.

Test patients cannot leak into anything here, since they are not handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.classifiers import Configuration, centre_and_unit, configurations, fast_score, fit
from models.clinical import select_clinical
from models.clinical_columns import ClinicalColumns
from models.combined import CombinedSignature, StackSource
from models.crossfit import CrossFit, Plan, crossfit
from models.evaluation.thresholds import harm_ratio_threshold, youden_threshold
from models.harmonisation import Unseen
from models.scale import fit_calibration, of_raw, probability
from models.scanners import Harmonisation, Scanners, fit_harmonisation
from models.selection.matrix import FeatureMatrix
from models.selection.recipes import DeepRecipe, RadRecipe, Recipe
from models.selection.selector import Selector
from models.signature import AnySignature, Head, Signature
from models.spread import OnCores, Spread
from models.study_settings import StudySettings

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Outcome = NDArray[np.int64]
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class TrainingPatients:
    """``y`` (n,); each source, and ``scanner``, is of n patients in the same order, or None.

    ``who`` (n,): which patient each row is, where patients were drawn more than once; else None.
    """

    y: Outcome
    radiomics: FeatureMatrix | None = None
    deep: FeatureMatrix | None = None
    clinical: ClinicalColumns | None = None
    scanner: Scanners | None = None
    who: Ints | None = None

    def only(self, kind: str) -> TrainingPatients:
        """The sources that a signature of this kind takes."""
        if kind == "combined":
            return self
        return replace(
            self,
            radiomics=self.radiomics if kind == "rad" else None,
            deep=self.deep if kind == "dl" else None,
            clinical=None,
        )

    def take(self, rows: Ints) -> TrainingPatients:
        """These patients only, in that order."""
        return TrainingPatients(
            self.y[rows],
            None if self.radiomics is None else self.radiomics.take(rows),
            None if self.deep is None else self.deep.take(rows),
            None if self.clinical is None else self.clinical.take(rows),
            None if self.scanner is None else self.scanner.take(rows),
            None if self.who is None else self.who[rows],
        )

    def drawn(self, rows: Ints) -> TrainingPatients:
        """Patients drawn with replacement: of one whom ``rows`` has twice it stays known that it is one."""
        return replace(self, who=np.arange(len(self.y))).take(rows)


@dataclass(frozen=True)
class Development:
    """Everything fitted. ``out_of_fold[kind]`` (n,): nested out-of-fold calibrated probabilities.

    ``nested_high[kind]`` (n,): whether each patient is high-risk at a threshold chosen without its fold, for honest
    sensitivities; at the released threshold the same patients would judge what was chosen for them.
    """

    signatures: dict[str, AnySignature] = field(default_factory=dict)
    crossfits: dict[str, CrossFit] = field(default_factory=dict)
    out_of_fold: dict[str, Floats] = field(default_factory=dict)
    nested_high: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    clinical: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SelectorSource:
    """Inputs of a sign: the recipe, and ComBat in front of it, fitted anew on the patients of each fit.

    ``scanner``: where patients are to be harmonised, else None. ``unseen`` is for new patients; within a fold those of
    a scanner that the others do not have are left as they are. ``who``: of the training patients.
    """

    matrix: FeatureMatrix
    recipe: Recipe
    scanner: Scanners | None = None
    unseen: Unseen = "as_is"
    who: Ints | None = None

    def inputs(self, fit_rows: Ints, score_rows: Ints, y: Outcome, seed: int) -> tuple[Floats, Floats]:
        selector, harmoniser = replace(self, unseen="as_is").fit(fit_rows, y, seed)
        of_fit, of_scored = (self.columns(selector, harmoniser, rows) for rows in (fit_rows, score_rows))
        return selector.transform(of_fit), selector.transform(of_scored)

    def fit(self, rows: Ints, y: Outcome, seed: int) -> tuple[Selector, Harmonisation | None]:
        """The selector of these patients, and the harmoniser of its columns."""
        matrix = self.matrix.take(rows)
        who = None if self.who is None else self.who[rows]
        if self.scanner is None:
            return self.recipe.fit(matrix, y[rows], seed, who), None
        scanner = self.scanner.take(rows)
        harmoniser = fit_harmonisation(matrix, scanner, self.unseen)
        even = FeatureMatrix(matrix.names, harmoniser.apply(matrix.values, scanner.names))
        selector = self.recipe.fit(even, y[rows], seed, who)
        return selector, harmoniser.take(selector.columns)

    def columns(self, selector: Selector, harmoniser: Harmonisation | None, rows: Ints) -> Floats:
        """The selector's columns of these patients, harmonised."""
        raw = self.matrix.columns(selector.columns)[rows]
        if harmoniser is None or self.scanner is None:
            return raw
        return harmoniser.apply(raw, self.scanner.take(rows).names)


def recipe_for(kind: str, settings: StudySettings) -> Recipe:
    """How the selector of ``rad`` or ``dl`` is fitted."""
    if kind == "rad":
        return RadRecipe(settings.alpha, settings.correlation, settings.clip, settings.lambda_rule)
    return DeepRecipe(settings.max_components, settings.lambda_rule)


def sign_source(kind: str, matrix: FeatureMatrix, settings: StudySettings, scanner: Scanners | None) -> SelectorSource:
    """Where the inputs of ``rad`` or ``dl`` come from, on these columns; ``scanner`` counts if it is asked for."""
    batch = scanner if settings.harmonisation == "combat" else None
    return SelectorSource(matrix, recipe_for(kind, settings), batch, settings.unseen_scanner)


def develop(
    patients: TrainingPatients,
    folds: Ints,
    settings: StudySettings,
    *,
    points: list[Configuration] | None = None,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> Development:
    """Fits Rad-sign, DL-sign (whichever have a table) and, of two sources or more, the combined model.

    ``folds`` (n,): the outer folds, 0 … K−1. ``points``: the grid, that of the settings by default.
    ``spread``: where fits are carried out, by default on ``n_jobs`` cores.
    """
    grid = tuple(points if points is not None else configurations(settings.grid))
    plan = Plan(
        patients.y,
        folds,
        grid,
        settings.seed,
        tie_margin=settings.tie_margin,
        spread=spread or OnCores(settings.n_jobs),
    )
    done = Development()
    if patients.clinical is not None:
        everybody = np.arange(len(patients.y))
        done.clinical.extend(select_clinical(patients.clinical, everybody, patients.y, settings.alpha).table)
    for kind, matrix in (("rad", patients.radiomics), ("dl", patients.deep)):
        if matrix is not None:
            source = replace(sign_source(kind, matrix, settings, patients.scanner), who=patients.who)
            _develop_sign(done, kind, source, plan, settings, progress)
    signs = [kind for kind in ("rad", "dl") if kind in done.signatures]
    if len(signs) + (patients.clinical is not None) >= 2 and signs:
        _develop_combined(done, tuple(signs), patients.clinical, plan, settings, progress)
    return done


def _develop_sign(
    done: Development,
    kind: str,
    source: SelectorSource,
    plan: Plan,
    settings: StudySettings,
    progress: Progress | None,
) -> None:
    plan = replace(plan, fixed=settings.classifier(kind))
    validated = crossfit(plan, source, progress=_part(progress, kind))
    everybody = np.arange(len(plan.y))
    selector, harmoniser = source.fit(everybody, plan.y, plan.seed)
    x = selector.transform(source.columns(selector, harmoniser, everybody))
    head, out_of_fold = _head(validated, x, plan, settings)
    done.signatures[kind] = Signature(kind, selector, head, harmoniser)
    done.crossfits[kind] = validated
    done.out_of_fold[kind] = out_of_fold
    done.nested_high[kind] = _nested_high(validated, plan)
    done.warnings.extend(f"{kind}: {note}" for note in (selector.trace.notes if selector.trace else ()))
    _warn_flat(done, kind, head)


def _develop_combined(
    done: Development,
    signs: tuple[str, ...],
    clinical: ClinicalColumns | None,
    plan: Plan,
    settings: StudySettings,
    progress: Progress | None,
) -> None:
    """Stacked on the signs' out-of-fold log-odds; inside outer fold o on those out of fold within the other folds.

    The final stack takes the chosen model's (``chosen_logits``): they are on the scale that its signs have when
    they are deployed. Nested ones mix the scales of K models, and a stack fitted on them is flat on new patients.
    """
    plan = replace(plan, fixed=settings.classifier("combined"))
    fits = [done.crossfits[kind] for kind in signs]
    source = StackSource(signs, np.column_stack([fit.chosen_logits for fit in fits]), clinical, settings.alpha)
    nested = np.column_stack([fit.logits for fit in fits])
    per_outer = []
    for o in range(plan.n_folds):
        # Patients of fold o get the sign of the models fitted without o; the others what is out of fold inside.
        inside = np.column_stack([fit.inner_logits[o] for fit in fits])
        stacked = np.where((plan.folds == o)[:, None], nested, inside)
        per_outer.append(StackSource(signs, stacked, clinical, settings.alpha))
    validated = crossfit(plan, source, per_outer=per_outer, progress=_part(progress, "combined"))
    everybody = np.arange(len(plan.y))
    stack = source.fit(everybody, plan.y)
    head, out_of_fold = _head(validated, stack.apply(source.raw(stack.encoder, everybody)), plan, settings)
    members = {kind: sign for kind in signs if isinstance(sign := done.signatures[kind], Signature)}
    done.signatures["combined"] = CombinedSignature(members, stack, head)
    done.crossfits["combined"] = validated
    done.out_of_fold["combined"] = out_of_fold
    done.nested_high["combined"] = _nested_high(validated, plan)
    _warn_flat(done, "combined", head)


def _head(validated: CrossFit, x: Floats, plan: Plan, settings: StudySettings) -> tuple[Head, Floats]:
    calibration = fit_calibration(validated.logits, plan.y)
    estimator = fit(validated.chosen, x, plan.y, plan.seed)
    name = validated.chosen.classifier
    scale = of_raw(validated.scale, *centre_and_unit(name, fast_score(name, estimator, x)))
    out_of_fold = probability(calibration(validated.logits))
    threshold = youden_threshold(plan.y, out_of_fold)
    declared = harm_ratio_threshold(settings.harm_ratio)
    return Head(validated.chosen, estimator, scale, calibration, threshold, declared), out_of_fold


def _nested_high(validated: CrossFit, plan: Plan) -> NDArray[np.bool_]:
    """Each fold's patients against the Youden threshold of the others' out-of-fold log-odds."""
    high = np.empty(len(plan.y), dtype=np.bool_)
    for fold in range(plan.n_folds):
        held = plan.folds == fold
        risks = probability(validated.inner_logits[fold, ~held])
        high[held] = probability(validated.logits[held]) >= youden_threshold(plan.y[~held], risks)
    return high


def _warn_flat(done: Development, kind: str, head: Head) -> None:
    if head.calibration.flat:
        done.warnings.append(f"{kind}: out of fold its scores carry no signal; every risk is near the prevalence.")


def _part(progress: Progress | None, stage: str) -> Callable[[float], None] | None:
    if progress is None:
        return None
    report = progress
    return lambda fraction: report(stage, fraction)
