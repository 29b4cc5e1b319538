"""Readings beside a signature, by hand: who adjudicates what, on whom, and at which threshold."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from models.report.tables import agreement
from models.study_tables import StudyTables
from models.surgeons import surgeon_metrics

A = [1, 1, 0, 0, 1, np.nan, 1, 0]
B = [1, 0, 0, 1, 1, 1.0, 0, 0]
C = [0, 1, 0, np.nan, 0, 0.0, 1, 1]
Y = [1, 1, 0, 0, 0, 1, 1, 0]
RISK = [0.9, 0.2, 0.1, 0.5, 0.6, 0.3, 0.7, 0.49]
SIGNATURES = {"rad": SimpleNamespace(head=SimpleNamespace(threshold=0.5))}


def readings() -> tuple[StudyTables, pd.DataFrame]:
    """Eight patients, the last two in training."""
    patients = pd.DataFrame({"patient_id": list("abcdefgh"), "site": "s", "outcome": Y})
    patients["partition"] = ["external_test"] * 6 + ["training"] * 2
    reads = pd.DataFrame({"A": A, "B": B, "C": C}, dtype=float)
    return StudyTables(patients, clinical=pd.DataFrame({"age": range(8)}), reads=reads), patients.assign(rad=RISK)


def test_adjudicated_is_what_both_say_or_the_third_and_silent_where_nobody_settles_it() -> None:
    study, predictions = readings()
    found = surgeon_metrics(study, predictions, SIGNATURES)  # type: ignore[arg-type]
    assert (found["n_ab"], found["n_unresolved"]) == (7, 1)  # d: A and B differ, C has none
    settled = found["adjudicated"]  # a 1, b C's 1, c 0, e 1 (agreed, though C says 0); not f, whom A did not read
    assert (settled["n"], settled["events"], settled["accuracy"]) == (4, 2, 0.75)
    # The signature at 0.5, with >=: a right, b wrong, c right, e wrong; the reading is wrong of e alone.
    assert settled["mcnemar_rad"] == {"only_model_right": 0, "only_reader_right": 1, "p": 1.0}
    assert found["B"]["n"] == 6
    assert "On 1 they disagree and C has no reading" in agreement(found)


def test_readings_of_training_patients_judge_nobody() -> None:
    study, predictions = readings()
    study.reads.loc[6:, ["A", "B", "C"]] = 1 - study.reads.loc[6:, ["A", "B", "C"]]  # type: ignore[union-attr]
    before, after = (surgeon_metrics(s, predictions, SIGNATURES) for s in (readings()[0], study))  # type: ignore[arg-type]
    assert {k: before[k] for k in "ABC"} == {k: after[k] for k in "ABC"}
