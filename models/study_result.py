"""What a study hands over: signatures, metrics (the contract of metrics.json), predictions, figure data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from models.signature import AnySignature
    from models.study_settings import StudySettings


@dataclass(frozen=True)
class StudyResult:
    """One run of the protocol.

    ``metrics`` is metrics.json as a dict (plain Python values only). ``predictions`` has one row a patient:
    site, patient_id, partition, outcome and a probability per signature kind (``rad``, ``dl``,
    ``combined``, whichever exist) and reference model (``size``, ``clinical``); for training patients
    these are nested out-of-fold, for others they come from the frozen signature.

    ``figure_data``:

    - ``lasso``: {kind: {"lambdas": [L], "cv_mean": [L], "cv_sd": [L] (mean squared error over the inner
      folds), "chosen": λ, "paths": {feature: [L coefficients]}}}
    - ``filters``: {kind: {"given", "unusable", "constant", "duplicate", "f_test", "correlation", "lasso"}}:
      the columns that each step left
    - ``importance``: {kind: [{"name", "importance"}]}: mean |change of log-odds| over the training patients
      when the feature is set to its training median
    - ``nested_choice``: {kind: {classifier: in how many outer folds it was chosen}}
    """

    settings: StudySettings
    signatures: dict[str, AnySignature]
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    figure_data: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
