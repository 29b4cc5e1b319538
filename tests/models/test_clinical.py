"""Clinical variables: odds ratios as statsmodels has them, separation, odd columns, unseen values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from models.clinical import select_clinical
from models.clinical_columns import ClinicalColumns, ClinicalEncoder
from models.logistic import fit_logistic, independent_columns


def patients(n: int = 300, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(60, 10, n),
            "bmi": rng.normal(26, 4, n),
            "osteoporosis": rng.integers(0, 2, n),
            "sex": rng.choice(["female", "male"], n),
            "diagnosis": rng.choice(["herniation", "stenosis", "listhesis"], n, p=[0.5, 0.3, 0.2]),
        }
    )
    risk = 0.05 * (frame["age"] - 60) + 1.2 * frame["osteoporosis"] - 0.8 + 0.9 * (frame["diagnosis"] == "stenosis")
    return frame, (rng.random(n) < 1 / (1 + np.exp(-risk))).astype(np.int64)


def test_logistic_regression_equals_statsmodels() -> None:
    frame, y = patients()
    x = frame[["age", "bmi", "osteoporosis"]].to_numpy(dtype=float)
    ours, theirs = fit_logistic(x, y), sm.Logit(y, sm.add_constant(x)).fit(disp=0)
    np.testing.assert_allclose(ours.coefficients, theirs.params[1:], rtol=1e-6)
    np.testing.assert_allclose([ours.interval(i) for i in range(3)], theirs.conf_int()[1:], rtol=1e-5)
    np.testing.assert_allclose([ours.p_value([i]) for i in range(3)], theirs.pvalues[1:], rtol=1e-5)
    assert not ours.firth


def test_selection_is_univariable_then_multivariable() -> None:
    frame, y = patients()
    everybody = np.arange(len(y))
    selection = select_clinical(ClinicalColumns.from_frame(frame, everybody), everybody, y)
    assert set(selection.selected) == {"age", "osteoporosis", "diagnosis"}
    rows = {row["variable"]: row for row in selection.table}
    design = pd.get_dummies(frame[["age", "osteoporosis", "diagnosis"]], dtype=float)
    design = design[["age", "osteoporosis", "diagnosis_listhesis", "diagnosis_stenosis"]]
    together = sm.Logit(y, sm.add_constant(design.to_numpy(dtype=float))).fit(disp=0)
    assert rows["diagnosis=stenosis"]["odds_ratio"] == pytest.approx(np.exp(np.asarray(together.params)[4]), rel=1e-5)
    assert rows["age"]["ci"] == pytest.approx(np.exp(np.asarray(together.conf_int())[1]), rel=1e-5)
    assert rows["age"]["selected"]
    alone = sm.Logit(y, sm.add_constant(frame[["bmi"]].to_numpy(dtype=float))).fit(disp=0)
    assert rows["bmi"]["odds_ratio"] == pytest.approx(np.exp(np.asarray(alone.params)[1]), rel=1e-5)
    assert rows["bmi"]["p"] == pytest.approx(np.asarray(alone.pvalues)[1], rel=1e-5)
    assert (rows["bmi"]["selected"], rows["bmi"]["model"]) == (False, "univariable")


def test_the_table_has_every_variable_alone_as_well() -> None:
    """Two variables that say the same: alone each tells, together neither has to."""
    rng = np.random.default_rng(3)
    y = (np.arange(120) % 2).astype(np.int64)
    first = y + rng.normal(size=120)
    frame = pd.DataFrame({"first": first, "second": first + 0.1 * rng.normal(size=120)})
    columns = ClinicalColumns.from_frame(frame, np.arange(120))
    for row in select_clinical(columns, np.arange(120), y).table:
        theirs = sm.Logit(y, np.column_stack([np.ones(120), frame[row["variable"]]])).fit(disp=0)
        assert row["univariable"]["odds_ratio"] == pytest.approx(np.exp(theirs.params[1]), rel=1e-5)
        assert row["univariable"]["p"] == pytest.approx(theirs.pvalues[1], rel=1e-4)
        assert row["model"] == "multivariable"
        assert row["p"] > row["univariable"]["p"]


def test_separation_is_survived_by_firths_penalty() -> None:
    y = np.arange(30) % 2
    separated = fit_logistic(y[:, None].astype(float), y)
    assert separated.firth
    # Firth's estimate for a 2 × 2 table is the log odds ratio with half a patient added to each cell.
    assert separated.coefficients[0] == pytest.approx(2 * np.log(15.5 / 0.5), rel=1e-4)
    assert np.isfinite(separated.interval(0)).all()
    assert separated.p_value([0]) < 0.05


def test_dependent_and_constant_columns_stay_out() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40))
    x = np.column_stack([a, np.ones(40), 2 * a + 1, b, a - b])
    assert independent_columns(x) == [0, 3]


def test_kinds_are_decided_by_training_patients_and_odd_columns_named() -> None:
    frame = pd.DataFrame(
        {
            "age": ["60", "70", "50", "rubbish"],
            "sex": ["m", "f", "m", "f"],
            "flag": [1, 2, 1, 7],
            "constant": [1, 1, 1, 5],
            "note": ["a", "b", "c", "d"],
            "empty": [None, None, None, None],
        }
    )
    columns = ClinicalColumns.from_frame(frame, np.array([0, 1, 2]))
    assert {v.name: v.kind for v in columns.variables} == {"age": "numeric", "sex": "categorical", "flag": "binary"}
    assert columns.unused == ("constant", "empty", "note")
    assert columns.values["age"] == (60.0, 70.0, 50.0, None)
    assert columns.values["flag"][3] is None


def test_missing_and_unseen_values_have_a_stated_policy() -> None:
    frame, _ = patients(60)
    everybody = np.arange(60)
    encoder = ClinicalEncoder.fit(ClinicalColumns.from_frame(frame, everybody), everybody)
    names = encoder.terms
    assert "diagnosis=herniation" not in names  # the most frequent is the reference
    missing = dict(zip(names, encoder.encode({}), strict=True))
    assert missing["age"] == frame["age"].median()
    assert missing["diagnosis=stenosis"] == 0
    unseen = encoder.encode({"diagnosis": "tumour", "age": float("nan")})
    assert unseen.tolist() == encoder.encode({}).tolist()
