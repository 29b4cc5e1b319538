"""What the report draws that is neither a metric nor a prediction: filled in by the study, read by the figures.

ROC, calibration and decision curves are drawn from the predictions; intervals and tables from the metrics.
Light on purpose: the study imports this module, never the drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LassoPath:
    """A LASSO fitted over its grid of penalties on all training patients (paper, Figures 6A, 6B and 8A, 8B).

    ``lambdas`` has shape (L,), in either order; ``coefficients`` (L, F), one row a penalty, on scaled features;
    ``names`` the F full feature names (or ``PC1`` …); ``cv_mean`` and ``cv_sd`` (L,) the cross-validated score
    of each penalty and its standard deviation over the folds; ``chosen`` the penalty that was taken;
    ``score`` says what was cross-validated, as the axis shall name it.
    """

    lambdas: FloatArray
    coefficients: FloatArray
    names: Sequence[str]
    cv_mean: FloatArray
    cv_sd: FloatArray
    chosen: float
    score: str = "mean squared error"


@dataclass(frozen=True)
class SignatureFigures:
    """What is drawn of one signature.

    ``lasso`` is None where there was none (the combined model). ``ranking`` holds (feature name, weight), in any
    order; ``weight`` says what the weight is, as the axis shall name it.
    """

    lasso: LassoPath | None = None
    ranking: Sequence[tuple[str, float]] = ()
    weight: str = "LASSO coefficient (per SD)"


@dataclass(frozen=True)
class FlowStep:
    """One box of the cohort's flow: how many patients are left, and why others left before it."""

    label: str
    n: int
    excluded: Mapping[str, int] = field(default_factory=dict)
    """Reason -> how many left on the way into this box."""


@dataclass(frozen=True)
class FigureData:
    """Everything beside metrics and predictions that the report shows.

    ``signatures`` by kind (``rad``, ``dl``, ``combined``); ``flow`` from the first patient to the partitions (may
    be empty: the report then starts at the partitions); ``permuted_aucs`` the AUC of each run on permuted outcomes;
    ``warnings`` are whole sentences the study wants in the first lines (heavy-tailed columns, imputed columns, a
    classifier that failed); the report adds those it can tell from the metrics itself. ``facts`` are label -> value
    of the run (seed, folds, grid, versions, wall time).
    """

    signatures: Mapping[str, SignatureFigures] = field(default_factory=dict)
    flow: Sequence[FlowStep] = ()
    permuted_aucs: Sequence[float] = ()
    warnings: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


class ReportableStudy(Protocol):
    """The part of a study's result that a report needs.

    ``metrics`` is what metrics.json holds. ``predictions`` has the columns site, patient_id, partition, outcome and
    one column of calibrated probabilities per signature (``rad``, ``dl``, ``combined``; NaN or absent where there
    is none) and, where there are baselines, ``size`` and ``clinical``: nested out-of-fold for training patients,
    the frozen model's for all others. ``settings`` may have a true attribute ``phantom``: then every page says that
    the patients are made up.
    """

    @property
    def metrics(self) -> Mapping[str, Any]: ...

    @property
    def predictions(self) -> pd.DataFrame: ...

    @property
    def figure_data(self) -> FigureData: ...

    @property
    def settings(self) -> Any: ...
