"""The settings of a study: strict, frozen and hashed, so that a run can be repeated from its record."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from feature_store.vocabulary import MissingPolicy, SignatureKind
from models.selection.robustness import IccForm, RobustnessRule

AUTO = "auto"

LARGE = 1500
"""Training patients from which five folds say as much as ten: the standard error of their AUC is under 0.02."""


class StudySettings(BaseModel):
    """Everything that decides a study's result, beside its tables.

    ``grid`` is how many points each classifier's grid has (``quick`` for demonstrations). ``classifiers`` fixes a
    signature's classifier by name (the paper's own are linear_svm, adaboost and mlp); ``auto`` takes the best
    cross-validated AUC, where AUCs within one standard error of the best (over the folds), or within ``tie_margin``
    where given, count as tied and the simplest tied classifier wins. ``harm_ratio`` is how many needless warnings
    one missed case outweighs; it gives the second, declared threshold 1 / (1 + harm_ratio). ``icc_cutoff``,
    ``icc_form``, ``max_cv`` and ``unmeasured`` are the filter in front of selection
    (``models.selection.robustness``), which does nothing without repeated segmentations or a robustness table.
    ``missing_values`` says by clinical variable what becomes of who lacks it (``MissingPolicy``); the median, or the
    most frequent value, stands in for those of variables that are not named.
    ``harmonisation`` brings scanners to one location and spread in front of selection, learnt in each fold; a
    scanner that training does not have is left ``as_is``, or ``refuse``d. ``ablation`` asks what each sequence,
    structure, family and source is worth on held-out patients. ``nested_repeats`` and
    ``leave_one_site_out`` each cost a training a time, and change no signature.
    ``bootstraps``: on how many redrawn cohorts the whole protocol is refitted, for an interval of each patient's
    risk. Each costs what a permuted run of all signatures costs (with five folds 16 selections a sign, each with
    its own λ, and some hundred small fits) and is kept in the signatures; 100 to 200 are wise, for the ends of a
    95 % interval of fewer are those of a handful of refits. They have the folds and the grid of permuted runs and
    choose their own classifier there. ``n_jobs`` spreads work over
    processes and never changes a result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0)
    n_folds: int = Field(default=10, ge=3, le=20)
    grid: Literal["standard", "quick"] = "standard"
    classifiers: dict[str, str] = Field(default_factory=lambda: {kind.value: AUTO for kind in SignatureKind})
    tie_margin: float | None = Field(default=None, ge=0.0, le=0.1)

    # selection of features
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0)
    correlation: float = Field(default=0.9, gt=0.0, le=1.0)
    clip: float = Field(default=3.5, gt=0.0)
    lambda_rule: Literal["best", "one_standard_error"] = "best"
    max_components: int = Field(default=64, ge=1)
    icc_cutoff: float = Field(default=0.75, ge=0.0, le=1.0)
    icc_form: IccForm = "icc_2_1"
    max_cv: float | None = Field(default=None, gt=0.0)
    unmeasured: Literal["keep", "drop"] = "keep"

    missing_values: dict[str, MissingPolicy] = Field(default_factory=dict)
    harmonisation: Literal["none", "combat"] = "none"
    unseen_scanner: Literal["as_is", "refuse"] = "as_is"

    harm_ratio: float = Field(default=3.0, gt=0.0)
    ablation: bool = True
    nested_repeats: int = Field(default=1, ge=1, le=100)
    leave_one_site_out: bool = False

    # permuted outcomes
    permutations: int = Field(default=20, ge=0)
    permutation_folds: int = Field(default=5, ge=3, le=20)

    bootstraps: int = Field(default=0, ge=0, le=2000)

    n_jobs: int = -1

    @field_validator("classifiers")
    @classmethod
    def _known_kinds(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value) - {kind.value for kind in SignatureKind})
        if unknown:
            raise ValueError(f"no such signature kind: {', '.join(unknown)}")
        return value

    def for_patients(self, n: int) -> StudySettings:
        """These settings for ``n`` training patients: five outer folds from 1,500 on, unless a number was asked for.

        Fits are K (K + 1) / 2, and each takes minutes at that size.
        """
        if n < LARGE or "n_folds" in self.model_fields_set:
            return self
        return self.model_copy(update={"n_folds": 5})

    def smaller(self) -> StudySettings:
        """Of permuted and redrawn runs: fewer folds, their own choice of classifier, one process each."""
        return self.model_copy(update={"n_folds": self.permutation_folds, "classifiers": {}, "n_jobs": 1})

    def classifier(self, kind: str) -> str:
        """The classifier fixed for a signature kind, or ``auto``."""
        return self.classifiers.get(kind, AUTO)

    def robustness_rule(self) -> RobustnessRule:
        """Which features stay in front of selection."""
        return RobustnessRule(
            icc=self.icc_form, min_icc=self.icc_cutoff, max_cv=self.max_cv, unmeasured=self.unmeasured
        )

    def hash(self) -> str:
        """First 16 hex of the SHA-256 over the settings that decide results (``n_jobs`` does not)."""
        # Left out where there are none: settings from before there were bootstraps keep their hash.
        decides_nothing = {"n_jobs"} if self.bootstraps else {"n_jobs", "bootstraps"}
        text = json.dumps(self.model_dump(exclude=decides_nothing), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
