"""What moves a fitted signature: the change of its log-odds when one input is set to its training median."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feature_store.vocabulary import Partition
from models.combined import CombinedSignature
from models.selection.matrix import FeatureMatrix
from models.signature import AnySignature, Head, Signature
from models.study_patients import StudyPatients

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


def importance(signature: AnySignature, patients: StudyPatients) -> list[tuple[str, float]]:
    """Mean |change of log-odds| over the training patients when an input is set to its training median, largest first.

    Inputs are selected features (``rad``), components (``dl``), or signs and clinical terms (``combined``).
    """
    rows = patients.rows(Partition.TRAINING)
    if isinstance(signature, CombinedSignature):
        x = signature.stack.apply(stack_inputs(signature, patients, rows))
        return _importance(signature.head, x, signature.stack.names)
    if not isinstance(signature, Signature):
        return []
    matrix = patients.radiomics if signature.kind == "rad" else patients.deep
    if matrix is None:
        return []
    x = signature.selector.transform(_of(matrix, signature, patients, rows))
    return _importance(signature.head, x, signature.selector.names)


def stack_inputs(signature: CombinedSignature, patients: StudyPatients, rows: Ints) -> Floats:
    """A combined model's inputs (len(rows), d) before they are z-scored: its fitted signs' log-odds, clinical terms."""
    columns = []
    for sign in signature.members:
        matrix = patients.radiomics if sign.kind == "rad" else patients.deep
        if matrix is not None:
            x = sign.selector.transform(_of(matrix, sign, patients, rows))
            columns.append(sign.head.fast_logit(x)[:, None])
    if patients.clinical is not None:
        columns.append(signature.stack.encoder.transform(patients.clinical, rows))
    return np.hstack(columns)


def _importance(head: Head, x: Floats, names: Sequence[str]) -> list[tuple[str, float]]:
    as_is = head.fast_logit(x)
    weights = []
    for column, name in enumerate(names):
        without = x.copy()
        without[:, column] = np.median(x[:, column])
        weights.append((name, float(np.abs(as_is - head.fast_logit(without)).mean() * head.calibration.slope)))
    return sorted(weights, key=lambda pair: (-pair[1], pair[0]))


def _of(matrix: FeatureMatrix, signature: Signature, patients: StudyPatients, rows: Ints) -> Floats:
    return signature.harmonised(matrix.columns(signature.selector.columns)[rows], patients.scanner.take(rows).names)
