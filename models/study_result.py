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
    these are nested out-of-fold, for others they come from the frozen signature. With bootstraps there are also
    ``rad_low`` and ``rad_high`` and so on: the uncertainty of a held-out patient's risk (``models.risk_interval``).

    ``figure_data`` is what the report draws beside metrics and predictions (``models.report.figure_data``),
    plain lists and numbers. Importance is the mean |change of log-odds| over the training patients when an input
    is set to its training median. ``warnings`` are whole sentences, ``failures`` classifiers that could not be
    fitted ({"signature", "classifier", "params", "reason"}).
    """

    settings: StudySettings
    signatures: dict[str, AnySignature]
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    figure_data: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
