"""The models a reader must see beside every signature: size alone, and clinical variables alone."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from models.clinical_columns import ClinicalColumns, ClinicalEncoder
from models.evaluation.thresholds import youden_threshold
from models.scale import probability
from models.selection.matrix import FeatureMatrix
from models.selection.scaling import robust_scaling, usable_columns

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Outcome = NDArray[np.int64]

SIZE_FEATURE = re.compile(r"(^|[._])shape_(MeshVolume|VoxelVolume|Maximum3DDiameter)$")
"""Volume and largest diameter of an ROI, by PyRadiomics' names."""


@dataclass(frozen=True)
class ReferenceModel:
    """Logistic regression with a fixed mild ridge (C = 1) on z-scores; nothing is tuned.

    ``out_of_fold`` (n,): probabilities of the training patients; ``probabilities`` (n_all,): of every patient,
    by the model of all training patients.
    """

    name: str
    features: tuple[str, ...]
    out_of_fold: Floats
    probabilities: Floats
    threshold: float


def size_columns(matrix: FeatureMatrix) -> tuple[str, ...]:
    """Names of the columns that say how large an ROI is."""
    return tuple(name for name in matrix.names if SIZE_FEATURE.search(name))


def size_model(matrix: FeatureMatrix, training: Ints, y: Outcome, folds: Ints) -> ReferenceModel | None:
    """Size alone. ``matrix`` of all patients, ``training`` (n,) their rows, ``y`` and ``folds`` (n,).

    None where no column says a size that varies.
    """
    names = size_columns(matrix)
    if not names:
        return None
    values = matrix.columns(names)
    if not len(usable_columns(values[training]).columns):
        return None

    def inputs(fit_rows: Ints) -> Floats:
        kept = usable_columns(values[fit_rows]).columns
        return robust_scaling(values[fit_rows][:, kept], clip=3.5).apply(values[:, kept])

    return _fitted("size", names, inputs, training, y, folds)


def clinical_model(columns: ClinicalColumns, training: Ints, y: Outcome, folds: Ints) -> ReferenceModel | None:
    """All clinical variables, none selected. None where there is none that varies."""
    if not columns.variables:
        return None
    everybody = np.arange(len(next(iter(columns.values.values()))))

    def inputs(fit_rows: Ints) -> Floats:
        x = ClinicalEncoder.fit(columns, fit_rows).transform(columns, everybody)
        sd = x[fit_rows].std(axis=0)
        return np.asarray((x - x[fit_rows].mean(axis=0)) / np.where(sd > 0, sd, 1.0), dtype=np.float64)

    return _fitted("clinical", tuple(v.name for v in columns.variables), inputs, training, y, folds)


def _fitted(
    name: str, features: tuple[str, ...], inputs: Any, training: Ints, y: Outcome, folds: Ints
) -> ReferenceModel:
    out_of_fold = np.empty(len(y))
    for fold in np.unique(folds):
        held = folds == fold
        out_of_fold[held] = _risks(inputs(training[~held]), training[~held], y[~held])[training[held]]
    risks = _risks(inputs(training), training, y)
    return ReferenceModel(name, features, out_of_fold, risks, youden_threshold(y, out_of_fold))


def _risks(x: Floats, fit_rows: Ints, y: Outcome) -> Floats:
    if not x.shape[1]:
        return np.full(len(x), float(y.mean()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=1.0, max_iter=1000).fit(x[fit_rows], y)
    # Row by row products are not needed here: these risks are reported, not served.
    return probability(np.asarray(x @ model.coef_[0] + model.intercept_[0], dtype=np.float64))
