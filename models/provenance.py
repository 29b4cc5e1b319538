"""The structural leakage check: what reached a fitted step is shown to come from training patients, or the run ends.

Beside the statistical check on permuted outcomes, which needs luck to see a small leak, these are facts: the arrays
that were handed to fitting are those of the training rows, they do not change when every held-out outcome and
feature does, folds are disjoint, nobody is in two partitions, and no embedding comes from an encoder that has seen the
patient it is used on (refused when the table is read from a store; unknown of tables that somebody made elsewhere).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.errors import LeakageFound
from feature_store.vocabulary import Partition
from models.clinical_columns import ClinicalColumns
from models.protocol import TrainingPatients
from models.scanners import Scanners
from models.selection.matrix import FeatureMatrix
from models.study_patients import StudyPatients
from models.study_tables import StudyTables

Ints = NDArray[np.intp]


def structural_check(
    study: StudyTables, patients: StudyPatients, training: TrainingPatients, folds: Ints
) -> dict[str, Any]:
    """``{"passed": True, "training_digest", "checks": [{"name", "passed", "detail"}]}``, before anything is fitted.

    Raises LeakageFound with the first check that fails. What cannot be known has ``passed`` None.
    """
    own, digest = patients.rows(Partition.TRAINING), training_digest(training)
    checks = [
        _check(
            "one partition a patient",
            not study.patients.duplicated(["site", "patient_id"]).any(),
            f"{len(study.patients)} patients",
        ),
        _check(
            "fitted arrays are the training rows",
            len(training.y) == len(own) and digest == training_digest(patients.training()),
            f"{len(own)} patients",
        ),
        _check(
            "held-out outcomes and features do not reach fitted arrays",
            digest == training_digest(_spoiled(patients).training()),
            "every outcome turned round and every feature replaced",
        ),
        _check(
            "folds are disjoint and complete",
            folds.shape == training.y.shape and set(np.unique(folds)) == set(range(int(folds.max()) + 1)),
            f"{int(folds.max()) + 1} folds",
        ),
        _of_encoders(study),
    ]
    for check in checks:
        if check["passed"] is False:
            raise LeakageFound(
                f"The structural leakage check failed: {check['name']} ({check['detail']}).",
                action="Nothing was fitted. Check the tables; if they are right this is a defect of asdeg.",
            )
    return {"passed": True, "training_digest": digest, "checks": checks}


def training_digest(training: TrainingPatients) -> str:
    """SHA-256 over everything that fitting is handed: outcomes, names, values, scanners."""
    digest = hashlib.sha256(np.ascontiguousarray(training.y).tobytes())
    for matrix in (training.radiomics, training.deep):
        if matrix is not None:
            digest.update("\n".join(matrix.names).encode())
            digest.update(np.ascontiguousarray(matrix.values).tobytes())
    if training.clinical is not None:
        digest.update(repr([(v, training.clinical.values[v.name]) for v in training.clinical.variables]).encode())
    if training.scanner is not None:
        for name, values in sorted(training.scanner.names.items()):
            digest.update("\n".join([name, *values.tolist()]).encode())
    return digest.hexdigest()


def _spoiled(patients: StudyPatients) -> StudyPatients:
    """The same study with everything of its held-out patients changed."""
    held_out = patients.partition != Partition.TRAINING.value

    def matrix(given: FeatureMatrix | None) -> FeatureMatrix | None:
        return given and FeatureMatrix(given.names, np.where(held_out[:, None], -1.0 - given.values, given.values))

    def clinical(given: ClinicalColumns | None) -> ClinicalColumns | None:
        if given is None:
            return None
        values = {
            name: tuple(None if out else value for value, out in zip(column, held_out, strict=True))
            for name, column in given.values.items()
        }
        return replace(given, values=values)

    return replace(
        patients,
        y=np.where(held_out, 1 - patients.y, patients.y),
        scanner=Scanners({n: np.where(held_out, "spoiled", v) for n, v in patients.scanner.names.items()}),
        radiomics=matrix(patients.radiomics),
        deep=matrix(patients.deep),
        clinical=clinical(patients.clinical),
    )


def _of_encoders(study: StudyTables) -> dict[str, Any]:
    name = "no embedding of an encoder that knows its patients"
    if study.deep is None:
        return _check(name, True, "no embeddings")
    if study.in_sample is not None:
        handling = str(study.in_sample["handling"])
        said = {"leave_out": "patients it was tuned on are left out", "apparent": "kept, and labelled apparent"}
        return _check(name, True if handling == "leave_out" else None, said.get(handling, handling))
    if study.sources.get("encoders"):
        return _check(name, True, "read from a store that refuses them")
    return _check(name, None, "unknown: the table does not say which patients its encoder has seen")


def _check(name: str, passed: bool | None, detail: str) -> dict[str, Any]:
    return {"name": name, "passed": None if passed is None else bool(passed), "detail": detail}
