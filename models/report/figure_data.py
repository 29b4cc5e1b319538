"""What a report needs of a study: the typed form of its ``figure_data``, and the rest it reads.

Plain lists and numbers, so that a stored run can be drawn again. ROC, calibration and decision curves are drawn
from the predictions, tables and intervals from the metrics. Light on purpose: no drawing is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

import pandas as pd


class LassoPath(TypedDict):
    """A LASSO over its grid of L penalties on all training patients (paper, Figures 6A, 6B and 8A, 8B).

    ``lambdas`` in either order; ``cv_mean`` and ``cv_sd`` the cross-validated mean squared error of each and its
    standard deviation over the folds; ``chosen`` the penalty taken; ``paths`` feature -> L coefficients.
    """

    lambdas: Sequence[float]
    cv_mean: Sequence[float]
    cv_sd: Sequence[float]
    chosen: float
    paths: Mapping[str, Sequence[float]]


class Contributions(TypedDict):
    """SHAP values (n patients, m inputs) of the combined model; ``inputs`` (n, m), None where one is no number."""

    names: Sequence[str]
    values: Sequence[Sequence[float]]
    inputs: Sequence[Sequence[float | None]]


class FlowStep(TypedDict):
    """One box of the cohort's flow: patients left, and how many left before it, by reason.

    Boxes named after a partition are drawn from the predictions instead, side by side at the foot.
    """

    label: str
    n: int
    excluded: Mapping[str, int]


class FigureData(TypedDict, total=False):
    """Every key may be absent: its figure or table is then left out.

    ``lasso``, ``filters`` (columns left by each step, in order), ``importance`` (``[{"name", "importance"}]``),
    ``nested_choice`` (classifier -> in how many outer folds it won) by signature kind; ``permuted_aucs`` one AUC a
    run on permuted outcomes; ``shap`` None without a combined model or held-out patients; ``flow`` from the first
    patient to the partitions; ``facts`` label -> value of the run.
    """

    lasso: Mapping[str, LassoPath]
    filters: Mapping[str, Mapping[str, int]]
    importance: Mapping[str, Sequence[Mapping[str, Any]]]
    nested_choice: Mapping[str, Mapping[str, int]]
    permuted_aucs: Sequence[float]
    shap: Contributions | None
    flow: Sequence[FlowStep]
    facts: Mapping[str, str]


class ReportableStudy(Protocol):
    """The part of a study's result that a report reads.

    ``metrics`` is what metrics.json holds. ``predictions``: site, patient_id, partition, outcome and a column of
    calibrated probabilities per signature (``rad``, ``dl``, ``combined``) and reference model (``size``,
    ``clinical``), whichever exist: nested out-of-fold for training patients, the frozen model's for all others.
    ``warnings`` are whole sentences for the first lines, ``failures`` rows of what went wrong and was survived.
    ``settings`` is a pydantic model of the run's settings.
    """

    @property
    def settings(self) -> Any: ...

    @property
    def metrics(self) -> Mapping[str, Any]: ...

    @property
    def predictions(self) -> pd.DataFrame: ...

    @property
    def figure_data(self) -> Mapping[str, Any]: ...

    @property
    def warnings(self) -> Sequence[str]: ...

    @property
    def failures(self) -> Sequence[Mapping[str, str]]: ...
