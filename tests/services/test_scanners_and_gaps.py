"""A store whose sequences come from several scanners and whose clinical values have gaps: trained, released, scored."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.cohort_settings import CohortSettings, Inclusion
from feature_store.cohort_settings import LockedTest as LockedTestSettings
from feature_store.cohorts import freeze_cohort
from feature_store.control import ControlDatabase
from feature_store.errors import FeaturesMissing, NotReady, SettingsError, UsageError
from feature_store.scanners import scanner_name, scanner_names
from feature_store.store import FeatureStore
from models import artefacts
from models.censoring import censoring_record
from models.evaluation.gates import GateSettings
from models.selection.selector import Selector
from models.signature import Signature
from models.study_result import StudyResult
from services.runs import Run, RunStatus
from services.scoring.handler import ScoringHandler
from services.scoring.score_log import ScoreLog
from services.selection.handler import SelectionHandler
from services.selection.messages import SelectRequest
from services.study_inputs import StudyInputs, scoring_frame
from services.training.handler import TrainingHandler
from services.training.judging import judge_run
from services.training.locked_test import LockedTest
from services.training.messages import TrainRequest
from services.training.releases import Releases
from tests.feature_store import examples
from tests.services.study_store import COHORT, ENCODER, NAMES, RADIOMICS, STUDY, study_store

AERA = {"scanner_vendor": "SIEMENS", "scanner_model": "Aera", "field_strength_t": 1.494}
ACHIEVA = {"scanner_vendor": "Philips Medical Systems", "scanner_model": "Achieva", "field_strength_t": 3.0}
CT = {"scanner_vendor": "GE MEDICAL SYSTEMS", "scanner_model": "Revolution  CT", "field_strength_t": None}
PLAN = CohortSettings(
    name="scanners",
    external_sites=("b",),
    sequences=("ct", "t2_sag"),
    missing_values={"bmi": "complete", "age": "indicator"},
    locked_test=LockedTestSettings(share=0.2),
)
STUDY_HERE = STUDY.model_copy(
    update={
        "harmonisation": "combat",
        "ablation": False,
        "classifiers": dict.fromkeys(("rad", "dl", "combined"), "logistic_regression"),
    }
)
WITHOUT = STUDY_HERE.model_copy(update={"harmonisation": "none"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """40 patients at a, 10 at b: T2 by two scanners of which one adds 3 SDs; two of each site lack bmi, some age."""
    store = FeatureStore.open(tmp_path_factory.mktemp("scanners") / "store", create=True)
    rng = np.random.default_rng(0)
    rows: examples.Rows = {"labels": [], "feature_sets": [examples.feature_set(RADIOMICS, NAMES)],
                           "encoders": [examples.encoder(ENCODER)], "radiomics": [], "embeddings": []}  # fmt: skip
    for site, count in (("a", 40), ("b", 10)):
        for number in range(count):
            name, outcome = f"{site}{number:03d}", number % 2
            age = None if number % 5 == 3 else 50.0 + 8 * outcome + rng.normal(0, 5)
            bmi = None if number in (4, 7) else 25.0 + rng.normal()
            for table, more in examples.case(name, site, age=age, bmi=bmi).items():
                for row in more if table == "series" else ():
                    row |= CT if row["sequence"] == "ct" else (ACHIEVA if number // 2 % 2 else AERA)
                rows.setdefault(table, []).extend(more)
            rows["labels"].append(examples.label(name, outcome, site))
            for roi in examples.ROIS:
                values = rng.normal(0, 1, len(NAMES)) + outcome * np.array([1.5, 1.0, 0, 0, 0, 0, 0, 0])
                values = values + 3.0 * (number // 2 % 2) * (roi.sequence == "t2_sag")
                rows["radiomics"].append(examples.radiomics(name, values, roi, site, RADIOMICS))
    receipt = store.push(rows, kind="case", source="tests")
    assert not receipt.rejected, receipt.rejected[:3]
    return store


def test_a_scanner_is_called_by_what_its_series_says() -> None:
    assert [scanner_name(series) for series in (AERA, ACHIEVA, CT)] == [
        "SIEMENS Aera 1.5 T", "PHILIPS Achieva 3 T", "GE Revolution CT",
    ]  # fmt: skip
    assert scanner_name(dict.fromkeys(AERA)) is None


def test_every_sequence_has_its_own_scanner_and_the_site_stands_in_where_none_is_known(store: FeatureStore) -> None:
    cases = [("a", name, f"case-a-{name}") for name in ("a000", "a002")]
    found = scanner_names(store.snapshot(), cases, ("ct", "t2_sag", "t2_ax"))
    assert found == {
        "scanner:ct": ["GE Revolution CT"] * 2,
        "scanner:t2_sag": ["SIEMENS Aera 1.5 T", "PHILIPS Achieva 3 T"],
        "scanner:t2_ax": ["unknown at a"] * 2,
    }
    assert {name: [values[1]] for name, values in found.items()} == scanner_names(
        store.snapshot(), cases[1:], ("ct", "t2_sag", "t2_ax")
    )


def test_policies_are_checked_before_anything_is_frozen(store: FeatureStore) -> None:
    unknown = PLAN.model_copy(update={"missing_values": {"weight": "median"}})
    with pytest.raises(SettingsError, match="names weight"):
        StudyInputs.freeze(store, unknown, STUDY)
    twice = STUDY.model_copy(update={"missing_values": {"age": "median"}})
    with pytest.raises(SettingsError, match="beside the cohort's"):
        StudyInputs.freeze(store, PLAN, twice)
    with pytest.raises(ValueError, match="missing_values"):
        CohortSettings.model_validate({"name": "x", "missing_values": {"age": "guess"}})
    inputs = StudyInputs.freeze(store, PLAN, STUDY)
    assert StudyInputs.from_settings(inputs.settings()) == inputs
    assert inputs.study.missing_values == PLAN.missing_values


def predictions_alone(result: StudyResult, folder: Path, title: str) -> None:
    """Instead of the whole report, whose figures take longest here."""
    result.predictions.to_parquet(folder / "predictions.parquet")


@pytest.fixture(scope="module")
def run(store: FeatureStore) -> RunStatus:
    selection = SelectionHandler(store)
    selected = selection.execute(selection.begin(SelectRequest(cohort=PLAN, study=STUDY_HERE)))
    training = TrainingHandler(store, write=predictions_alone)
    found = training.execute(training.begin(TrainRequest(study=WITHOUT, selection_run=selected.run_id)))
    assert selected.metrics is not None
    assert found.metrics is not None
    assert selected.metrics["patients"]["training"] == found.metrics["signatures"]["rad"]["cohorts"]["training"]["n"]
    Releases(store).release(found.run_id, by="tests")
    return found


@pytest.fixture(scope="module")
def risks(store: FeatureStore, run: RunStatus) -> pd.DataFrame:
    file = TrainingHandler(store).report_file(run.run_id, "predictions.parquet") or b""
    return pd.read_parquet(io.BytesIO(file)).set_index("patient_id")


def test_selection_is_made_on_what_the_signature_is_fitted_on(store: FeatureStore, run: RunStatus) -> None:
    handler = SelectionHandler(store)
    selected = handler.status(run.settings["selection_run"])
    selector, signature = (artefacts.load(found.artefacts["rad"], store.blobs) for found in (selected, run))
    assert isinstance(signature, Signature)
    assert isinstance(selector, Selector)
    assert (selector.names, list(selector.coefficients)) == (
        signature.selector.names, list(signature.selector.coefficients),
    )  # fmt: skip
    plain = handler.execute(handler.begin(SelectRequest(cohort=PLAN, study=WITHOUT)))
    bare = artefacts.load(plain.artefacts["rad"], store.blobs)
    assert isinstance(bare, Selector)
    assert list(bare.coefficients) != list(selector.coefficients)


def test_the_run_says_what_it_did_about_scanners_and_gaps(run: RunStatus) -> None:
    assert run.metrics is not None
    found = run.metrics["harmonisation"]
    assert found["used"] == "combat"
    t2 = next(row for row in found["sequences"] if row["sequence"] == "t2_sag")
    assert t2["learnt"] == ["PHILIPS Achieva 3 T", "SIEMENS Aera 1.5 T"]
    ct = next(row for row in found["sequences"] if row["sequence"] == "ct")
    assert (ct["learnt"], ct["unseen"]) == (
        [],
        {"internal_validation": 0, "external_test": 0},
    )  # one scanner is all there is
    bmi = next(row for row in run.metrics["missing_values"] if row["variable"] == "bmi")
    assert bmi["policy"] == "complete"
    assert bmi["left_out"]["external_test"] == 2
    assert run.metrics["flow"][1]["excluded"]["lacks bmi"] == 4


def test_a_score_is_by_the_patients_own_scanner_and_gaps_as_in_training(
    store: FeatureStore, run: RunStatus, risks: pd.DataFrame, tmp_path: Path
) -> None:
    with closing(ControlDatabase.open(f"sqlite:///{tmp_path / 'control.sqlite'}")) as control:
        scoring = ScoringHandler(store, ScoreLog(store, control), lambda name: artefacts.load(name, store.blobs))  # type: ignore[arg-type,return-value]
        assert "b004" not in risks.index
        for name in ("b000", "b001", "b002", "b003"):  # two scanners, and one without age
            for kind in ("rad", "combined"):
                answer = scoring.score(kind, "b", name, asked_by="tests")
                assert answer.probability == risks.loc[name, kind]
        with pytest.raises(FeaturesMissing, match="The patient has no bmi"):
            scoring.score("combined", "b", "b004", asked_by="tests")
        assert 0 < scoring.score("rad", "b", "b004", asked_by="tests").probability < 1


def test_the_gates_ask_a_released_signature_with_the_same_scanners(
    store: FeatureStore, run: RunStatus, risks: pd.DataFrame
) -> None:
    signature = artefacts.load(run.artefacts["rad"], store.blobs)
    assert isinstance(signature, Signature)
    assert "scanner:t2_sag" in signature.features
    tables = StudyInputs.from_settings(run.settings).tables(store)
    again = signature.probabilities(scoring_frame(tables, signature.features))
    assert dict(zip(tables.patients["patient_id"], again, strict=True))["b001"] == risks.loc["b001", "rad"]


def test_locked_patients_are_in_no_figure_and_every_look_at_them_is_counted(
    store: FeatureStore, run: RunStatus, risks: pd.DataFrame
) -> None:
    locked = risks[risks["partition"] == "locked_test"]
    assert len(locked) in (8, 7, 6)  # a fifth of 40, less those without bmi
    assert locked[["rad", "combined", "clinical"]].isna().all(axis=None)
    assert run.metrics is not None
    assert set(run.metrics["signatures"]["rad"]["cohorts"]) == {"training", "internal_validation", "external_test"}
    gates = judge_run(store, run, GateSettings(fewest=2))
    assert gates["rad"][-1].figures["a"]["n"] == (risks["partition"] == "internal_validation").sum()

    house = LockedTest(store)
    assert house.looks() == []
    with pytest.raises(UsageError, match="needs a reason"):
        house.look(run.run_id, by="tests", reason=" ")
    assert house.looks() == []
    first = house.look(run.run_id, by="tests", reason="the paper's last table")
    assert (first.look, first.figures["rad"]["n"]) == (1, len(locked))
    assert first.figures["rad"]["auc"] > 0.5
    again = house.look(run.run_id, by="tests", reason="once more")
    assert (again.look, again.figures) == (2, first.figures)
    assert house.looks() == [first, again]
    assert judge_run(store, run, GateSettings(fewest=2)) == gates  # a look opens no gate
    newer = freeze_cohort(store, PLAN)
    assert set(newer.members.loc[newer.members["partition"] == "locked_test", "patient_id"]) >= set(locked.index)


def test_who_is_lost_is_told_from_who_may_still_come(tmp_path: Path) -> None:
    """Three without an outcome: seen at a year, seen at half a year only, and never."""
    store = study_store(tmp_path / "store", patients=6)
    visits = [
        {"site": "a", "patient_id": name, "days_from_index": day, "rater": "A", "level": "L3-L4", "ucla": 1}
        for name, day in (("late", 400), ("early", 200))
    ]
    for name in ("late", "early", "never"):
        store.push(examples.case(name), kind="case", source="a")
    labels = [examples.label("late", None, last_day=400), examples.label("early", None, last_day=200)]
    store.push({"follow_up": visits, "labels": labels}, kind="outcome", source="a")
    plan = COHORT.model_copy(update={"inclusion": Inclusion(follow_up_days=365)})
    tables = StudyInputs.freeze(store, plan, STUDY).tables(store)
    assert tables.lost is not None
    assert tables.windows_passed is not None
    assert (len(tables.lost), tables.windows_passed.tolist().count(True)) == (3, 1)
    predictions = tables.patients[["partition", "outcome"]].assign(rad=0.5)
    record = censoring_record(tables.clinical, tables.lost, predictions, ["rad"], tables.windows_passed)
    assert record is not None
    assert record["windows"] == {"passed": 1, "open_or_unknown": 2}


def test_nobody_locked_nothing_to_look_at(store: FeatureStore, run: RunStatus) -> None:
    nobody = StudyInputs.freeze(store, PLAN.model_copy(update={"name": "other", "external_sites": ("b",)}), STUDY)
    begun = Run.begin(store, "training", nobody.cohort, nobody.version, nobody.settings())
    with pytest.raises(NotReady, match="no signatures"):
        LockedTest(store).look(begun.status.run_id, by="tests", reason="too early")
