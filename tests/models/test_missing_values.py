"""Missing clinical values: what each policy does, that it is fitted in the fold, and that scoring does the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_store.errors import FeaturesMissing, FeatureTableError, SettingsError
from models.artefacts import load, save
from models.clinical_columns import ClinicalColumns, ClinicalEncoder
from models.combined import CombinedSignature
from models.missing_values import settle_missing
from models.study import run_study
from models.study_patients import StudyPatients
from models.study_result import StudyResult
from models.study_tables import StudyTables
from tests.models.study_fixtures import MemoryBlobs, small_settings, small_tables

POLICIES: dict[str, Any] = {"age": "complete", "lab": "indicator", "smoker": "category", "grade": "most_frequent"}


def gappy(n: int = 120) -> StudyTables:
    """Whether lab or smoker are missing tells of the outcome as much as they do; age and grade lack a few."""
    study = small_tables(n=n, p=12, effect=1.0)
    assert study.clinical is not None
    rng = np.random.default_rng(5)
    y = study.outcome
    clinical = study.clinical.assign(
        lab=np.where(rng.random(n) < 0.15 + 0.55 * y, np.nan, rng.normal(10, 2, n)),
        smoker=np.where(rng.random(n) < 0.1 + 0.5 * y, None, rng.choice(["yes", "no", "no"], n)),
        grade=np.where(rng.random(n) < 0.1, np.nan, rng.choice([1, 2, 2, 3], n)),
    )
    clinical.loc[[2, 50, 75, 100, 119], "age"] = np.nan
    return replace(study, clinical=clinical, deep=None)


def fitted(table: StudyTables, **policies: Any) -> ClinicalEncoder:
    assert table.clinical is not None
    everybody = np.arange(len(table.patients))
    return ClinicalEncoder.fit(ClinicalColumns.from_frame(table.clinical, everybody, policies), everybody)


def test_what_each_policy_makes_of_a_missing_value() -> None:
    encoder = fitted(gappy(), lab="indicator", smoker="category", grade="most_frequent", sex="indicator")
    lab, smoker, grade, sex = (next(e for e in encoder.encoded if e.variable.name == name) for name in
                               ("lab", "smoker", "grade", "sex"))  # fmt: skip
    assert lab.terms == ("lab", "lab=(missing)")
    assert lab.encode(None) == [lab.fill, 1.0]
    assert lab.encode(3.0) == [3.0, 0.0]
    assert lab.typical() == [lab.fill, 0.0]
    assert smoker.terms == ("smoker=yes", "smoker=(missing)")
    assert [smoker.encode(v) for v in ("yes", "no", None)] == [[1, 0], [0, 0], [0, 1]]
    assert grade.encode(None) == [2.0]  # the median of 1, 2, 2, 3 would be 2 as well: see the kinds below
    assert sex.terms == ("sex=male",) or sex.terms == ("sex=female",)  # nobody lacks it: no column
    numeric = ClinicalColumns.from_frame(pd.DataFrame({"g": [1, 1, 3, 9, 9, 9]}), np.arange(6), {"g": "most_frequent"})
    assert ClinicalEncoder.fit(numeric, np.arange(6)).encode({}).tolist() == [9.0]


@pytest.mark.parametrize(("name", "policy"), [("age", "category"), ("sex", "median"), ("osteoporosis", "median")])
def test_a_policy_that_makes_no_sense_for_its_variable_is_refused(name: str, policy: Any) -> None:
    with pytest.raises(SettingsError, match=f"{name}, which is "):
        fitted(small_tables(), **{name: policy})


def test_who_lacks_a_variable_is_left_out_and_counted_or_the_run_says_why_not() -> None:
    study = gappy()
    settled = settle_missing(study, {"age": "complete", "sex": "refuse"})
    assert len(settled.patients) == 115 == len(settled.clinical if settled.clinical is not None else ())
    assert settled.flow == {"cases": 120, "lacks age": 5}
    assert settle_missing(settled, {"age": "complete"}) is settled
    row = next(row for row in settled.missing_values or [] if row["variable"] == "age")
    assert row["missing"] == row["left_out"] == {"training": 2, "internal_validation": 1, "external_test": 2}
    with pytest.raises(FeatureTableError, match=r"5 patients \(training 2, internal_validation 1, external_test 2\)"):
        settle_missing(study, {"age": "refuse"})
    with pytest.raises(SettingsError, match="no clinical variable weight"):
        settle_missing(study, {"weight": "median"})
    with pytest.raises(ValueError, match="missing_values"):
        small_settings(missing_values={"age": "guess"})
    assert small_settings(missing_values={"age": "complete"}).hash() != small_settings().hash()


def test_a_policy_finds_its_variable_whatever_it_is_called_beside_other_sources() -> None:
    study = gappy()
    assert study.radiomics is not None
    shared = replace(study, radiomics=study.radiomics.assign(age=1.0), lost=study.clinical).with_distinct_names()
    settled = settle_missing(shared, {"age": "complete"})
    assert settled.flow == {"cases": 120, "lacks age": 5}
    assert settled.lost is not None
    assert len(settled.lost) == 115
    patients = StudyPatients.from_tables(settled, settled.radiomics, {"age": "complete"})
    assert patients.clinical is not None
    assert [variable.name for variable in patients.clinical.required] == ["clinical:age"]
    with pytest.raises(FeatureTableError, match="columns of the same name"):
        run(replace(study, clinical=study.clinical.set_axis(["age"] * 6, axis=1)))  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return run(gappy())


def run(study: StudyTables) -> StudyResult:
    fixed = {"rad": "logistic_regression", "combined": "logistic_regression"}
    return run_study(study, small_settings(missing_values=POLICIES, classifiers=fixed, ablation=False, alpha=0.2))


def test_the_record_says_policy_counts_and_whether_there_is_a_column(result: StudyResult) -> None:
    record = {row["variable"]: row for row in result.metrics["missing_values"]}
    assert {name: row["policy"] for name, row in record.items()} == {
        **POLICIES, "osteoporosis": "most_frequent", "sex": "most_frequent",
    }  # fmt: skip
    assert {name for name, row in record.items() if row["column"]} == {"lab", "smoker"}
    assert {name for name, row in record.items() if row["declared"]} == set(POLICIES)
    lacking = gappy().clinical["lab"].isna()  # type: ignore[index]
    of_training = lacking & (gappy().patients["partition"] == "training")
    assert record["lab"]["missing"]["training"] == of_training.sum()
    assert result.metrics["flow"][1]["excluded"] == {"lacks age": 5}
    assert len(result.predictions) == 115


def test_that_a_value_is_missing_tells_as_a_term_of_the_clinical_model(result: StudyResult) -> None:
    rows = {row["variable"]: row for row in result.metrics["clinical"]}
    assert rows["lab=(missing)"]["univariable"]["p"] < 0.05
    inputs = {feature["name"] for feature in result.metrics["signatures"]["combined"]["features"]}
    assert inputs & {"lab=(missing)", "smoker=(missing)"}


def test_one_patient_is_scored_like_many_and_as_it_was_kept(result: StudyResult) -> None:
    signature, blobs = result.signatures["combined"], MemoryBlobs()
    assert isinstance(signature, CombinedSignature)
    kept = load(save(signature, blobs), blobs)
    assert isinstance(kept, CombinedSignature)
    assert kept.stack.encoder == signature.stack.encoder
    settled = settle_missing(gappy(), POLICIES)
    table = pd.concat([settled.radiomics, settled.clinical], axis=1)
    together = signature.probabilities(table)
    held_out = (settled.patients["partition"] != "training").to_numpy()
    assert together[held_out].tolist() == result.predictions["combined"][held_out].tolist()
    lacking = np.flatnonzero(settled.clinical["lab"].isna())[:3]  # type: ignore[index]
    for row in (0, 7, *lacking):
        one = {name: value for name, value in table.iloc[row].to_dict().items() if value == value}
        complete = {name: one.get(name) for name in signature.features}
        assert signature.score(complete).probability == together[row] == kept.score(complete).probability
    without_age = {**table.iloc[0].to_dict(), "age": None}
    assert "age" in signature.features
    for asked in (signature, kept):
        with pytest.raises(FeaturesMissing, match="The patient has no age"):
            asked.score(without_age)
        with pytest.raises(FeaturesMissing, match="The patient has no age"):
            asked.probabilities(pd.DataFrame([without_age]))
    assert 0 < signature.signs["rad"].score(without_age).probability < 1  # it takes no clinical variable


def test_test_patients_teach_nothing(result: StudyResult) -> None:
    """Their values and gaps turned round: every artefact stays the same to the byte."""
    study = gappy()
    assert study.clinical is not None
    out = (study.patients["partition"] != "training").to_numpy()
    clinical = study.clinical.copy()
    clinical.loc[out, "lab"] = np.where(clinical.loc[out, "lab"].isna(), 1000.0, np.nan)
    clinical.loc[out, "smoker"] = np.where(clinical.loc[out, "smoker"].isna(), "often", None)
    clinical.loc[out, "age"] = np.where(np.arange(out.sum()) % 2, 5.0, np.nan)
    clinical.loc[out, "grade"] = np.nan
    again = run(replace(study, clinical=clinical))
    one, other = MemoryBlobs(), MemoryBlobs()
    for kind, signature in result.signatures.items():
        assert save(signature, one) == save(again.signatures[kind], other)  # type: ignore[arg-type]


def test_what_stands_in_is_fitted_without_the_fold_that_is_judged() -> None:
    study = gappy()
    assert study.clinical is not None
    columns = ClinicalColumns.from_frame(study.clinical, np.arange(72), POLICIES)
    inside = np.arange(48)
    changed = study.clinical.copy()
    changed.loc[48:71, ["lab", "grade"]] = 77.0
    other = ClinicalColumns.from_frame(changed, np.arange(72), POLICIES)
    assert ClinicalEncoder.fit(columns, inside) == ClinicalEncoder.fit(other, inside)
    assert ClinicalEncoder.fit(columns, np.arange(72)) != ClinicalEncoder.fit(other, np.arange(72))
