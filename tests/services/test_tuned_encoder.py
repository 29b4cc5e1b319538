"""Training with an encoder that was tuned to the outcomes of some of the cohort's patients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from feature_store.cohort_settings import CohortSettings
from feature_store.cohorts import freeze_cohort
from feature_store.errors import UsageError
from feature_store.store import FeatureStore
from models.study import run_study
from services.feature_sources import feature_sources
from services.selection.handler import SelectionHandler
from services.selection.messages import SelectRequest
from services.study_inputs import StudyInputs
from services.training.handler import TrainingHandler
from services.training.messages import TrainRequest
from tests.feature_store import examples
from tests.services.study_store import ENCODER, STUDY, study_store


def plan(way: str = "leave_out", *sets: str) -> CohortSettings:
    return CohortSettings.model_validate(
        {"name": "tuned", "external_sites": ["b"], "in_sample_encoder": way, "feature_sets": sets}
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A third of the training patients (balanced) are those the encoder was tuned on."""
    store = study_store(tmp_path_factory.mktemp("tuned") / "store", patients=36)
    members = freeze_cohort(store, plan()).members
    training = members[members["partition"] == "training"]
    a = [f"a/{p}" for y in (0, 1) for p in training[training["outcome"] == y]["patient_id"][:4]]
    row = examples.encoder(ENCODER, seen=[f"a/{p}" for p in training["patient_id"]], outcomes=True)
    store.push({"encoders": [row | {"outcomes_of": a}]}, kind="encoder", source="tests")
    return store


def test_everything_is_fitted_on_the_patients_it_was_not_tuned_on(store: FeatureStore) -> None:
    inputs = StudyInputs.freeze(store, plan(), STUDY)
    tables = inputs.tables(store)
    members = freeze_cohort(store, plan()).members
    tuned = set(store.snapshot().table("encoders", ["outcomes_of"]).to_pylist()[0]["outcomes_of"])
    assert len(tuned) == 8
    expected = [p for s, p in zip(members["site"], members["patient_id"], strict=True) if f"{s}/{p}" not in tuned]
    assert tables.patients["patient_id"].tolist() == expected
    assert tables.radiomics is not None
    assert tables.clinical is not None
    assert len(tables.radiomics) == len(tables.clinical) == len(expected)
    # rows of all tables are the same patients': the age pushed for the patient is the age in the patient's row
    ages = {
        row["patient_id"]: row["age"] for row in store.snapshot().table("clinical", ["patient_id", "age"]).to_pylist()
    }
    assert tables.clinical["age"].tolist() == [ages[p] for p in expected]
    values = {r["patient_id"]: r["values"][0] for r in store.snapshot().table("radiomics").to_pylist()}
    assert tables.radiomics.iloc[:, 0].tolist() == [values[p] for p in expected]
    assert "subset A" in tables.warnings[0]


def test_refused_where_the_plan_says_so(store: FeatureStore) -> None:
    with pytest.raises(UsageError, match="fitted on 8 patients"):
        StudyInputs.freeze(store, plan("refuse"), STUDY).tables(store)


LINEAR = STUDY.model_copy(update={"classifiers": {"dl": "linear_svm"}})


def test_a_study_of_the_others_says_so(store: FeatureStore) -> None:
    inputs = StudyInputs.freeze(store, plan("leave_out", ENCODER), LINEAR)
    result = run_study(inputs.tables(store), LINEAR)
    assert result.metrics["in_sample"] == {"encoders": [ENCODER], "tuned_on": 8, "handling": "leave_out"}
    training = freeze_cohort(store, inputs.plan).members["partition"].value_counts()["training"]
    assert result.metrics["signatures"]["dl"]["cohorts"]["training"]["n"] == training - 8
    assert 0 < result.metrics["signatures"]["dl"]["nested_auc"] <= 1
    assert any("subset B" in warning for warning in result.warnings)


@pytest.mark.slow
def test_the_papers_own_way_has_apparent_training_figures(store: FeatureStore) -> None:
    handler = TrainingHandler(store)
    run_id = handler.begin(TrainRequest(cohort=plan("apparent", ENCODER), study=LINEAR))
    metrics = handler.execute(run_id).metrics or {}
    assert metrics["in_sample"] == {"encoders": [ENCODER], "tuned_on": 8, "handling": "apparent"}
    dl = metrics["signatures"]["dl"]
    training = freeze_cohort(store, plan("apparent", ENCODER)).members["partition"].value_counts()["training"]
    assert dl["cohorts"]["training"]["n"] == training
    assert dl["nested_auc"] is None
    assert 0 < dl["apparent_nested_auc"] <= 1
    assert all(row["apparent"] for row in metrics["classifiers"]["dl"])
    page = (handler.report_file(run_id, "report.html") or b"").decode()
    assert "Training, apparent: the encoder was tuned on these patients" in page
    assert "Training, nested cross-validation" not in page
    assert "who stay in it (the paper" in page
    assert json.loads(handler.report_file(run_id, "metrics.json") or b"")["in_sample"] == metrics["in_sample"]


def test_without_names_the_latest_encoder_that_embedded_something_is_taken(tmp_path: Path) -> None:
    store = study_store(tmp_path / "store", patients=2)
    store.push({"encoders": [examples.encoder("vit_small-ffffffff")]}, kind="encoder", source="tests")
    assert feature_sources(store.snapshot(), CohortSettings(name="x")).encoders == (ENCODER,)


def test_a_selection_says_it_as_well(store: FeatureStore) -> None:
    handler = SelectionHandler(store)
    metrics = (
        handler.execute(handler.begin(SelectRequest(cohort=plan("leave_out", ENCODER), study=STUDY))).metrics or {}
    )
    assert metrics["in_sample"]["handling"] == "leave_out"
    training = freeze_cohort(store, plan("leave_out", ENCODER)).members["partition"].value_counts()["training"]
    assert metrics["patients"]["training"] == training - 8
