"""Select, train, release, score: the services' handlers on one small store, in the order a scientist uses them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from feature_store.control import ControlDatabase
from feature_store.errors import Conflict, FeaturesMissing, NotFound, NothingReleased, NotReady
from feature_store.store import FeatureStore
from feature_store.vocabulary import RESEARCH_USE
from models import artefacts
from models.report.render import write_results
from models.study_settings import StudySettings
from services.runs import list_runs, read_run
from services.scoring.handler import ScoringHandler
from services.scoring.messages import ScoreAnswer
from services.scoring.score_log import ScoreLog
from services.selection.handler import SelectionHandler
from services.selection.messages import SelectRequest
from services.study_inputs import StudyInputs
from services.training.handler import TrainingHandler
from services.training.messages import TrainRequest
from services.training.releases import Releases
from tests.feature_store import examples
from tests.services.study_store import COHORT, ENCODER, RADIOMICS, STUDY, study_store

REDRAWN = STUDY.model_copy(update={"bootstraps": 3, "permutation_folds": 3})


@dataclass(frozen=True)
class Trained:
    store: FeatureStore
    control: ControlDatabase
    selection: str
    training: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("trained")
    store = study_store(folder / "store")
    control = ControlDatabase.open(f"sqlite:///{folder / 'control.sqlite'}")
    selection, training = SelectionHandler(store), TrainingHandler(store)
    selection_run = selection.begin(SelectRequest(cohort=COHORT, study=STUDY.model_copy(update={"alpha": 0.1})))
    assert selection.status(selection_run).state == "running"
    selection.execute(selection_run)
    training_run = training.begin(TrainRequest(study=REDRAWN, selection_run=selection_run))
    training.execute(training_run)
    yield Trained(store, control, selection_run, training_run)
    control.close()


@pytest.fixture
def scoring(trained: Trained) -> ScoringHandler:
    log = ScoreLog(trained.store, trained.control)
    return ScoringHandler(trained.store, log, lambda name: artefacts.load(name, trained.store.blobs))  # type: ignore[arg-type,return-value]


@pytest.fixture
def released(trained: Trained) -> Releases:
    releases = Releases(trained.store)
    if not releases.entries():
        releases.release(trained.training, by="tests")
    return releases


def test_a_selection_run_names_its_features_and_keeps_its_selectors(trained: Trained) -> None:
    run = read_run(trained.store, trained.selection)
    assert run.kind == "selection"
    assert run.state == "finished"
    assert run.metrics is not None
    assert set(run.metrics["selectors"]) == {"rad", "dl"} == set(run.artefacts)
    top = run.metrics["selectors"]["rad"]["features"]
    assert {feature["name"].rsplit(".", 1)[1] for feature in top} & {"original_firstorder_F0", "original_firstorder_F1"}
    assert type(artefacts.load(run.artefacts["rad"], trained.store.blobs)).__name__ == "Selector"


def test_training_takes_over_the_cohort_and_recipe_of_a_selection_run(trained: Trained) -> None:
    run, selection = read_run(trained.store, trained.training), read_run(trained.store, trained.selection)
    assert (run.cohort, run.version) == (selection.cohort, selection.version) == ("tests", 1)
    assert run.settings["study"]["alpha"] == 0.1 == selection.settings["study"]["alpha"]
    assert run.settings["feature_sets"] == [RADIOMICS, ENCODER]


def test_a_training_run_keeps_metrics_signatures_and_report(trained: Trained, tmp_path: Path) -> None:
    run = read_run(trained.store, trained.training)
    assert run.state == "finished"
    assert run.metrics is not None
    assert set(run.metrics["signatures"]) == {"rad", "dl", "combined"} <= set(run.artefacts)
    assert run.metrics["signatures"]["rad"]["cohorts"]["external_test"]["n"] == 15
    files = TrainingHandler(trained.store).write_report_files(trained.training, tmp_path)
    assert {"report.html", "metrics.json", "predictions.parquet"} <= {path.name for path in files}
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == run.metrics
    assert run.metrics["bootstraps"]["n"] == 3
    assert any("3 refits" in warning for warning in run.metrics["warnings"])
    assert "over 3 refits on redrawn training patients" in (tmp_path / "report.html").read_text(encoding="utf-8")
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    training = predictions["partition"] == "training"
    assert predictions.loc[training, "rad_low"].isna().all()
    assert predictions.loc[~training, ["rad_low", "combined_high"]].notna().all(axis=None)
    assert [run.run_id for run in list_runs(trained.store)] == [trained.selection, trained.training]
    looks = TrainingHandler(trained.store).looks(trained.training)  # the selection run shows no figure of them
    assert str(looks).endswith("by now: 1 (internal validation 1, external test 1).")


def test_the_same_run_again_is_the_same_to_the_last_byte(trained: Trained) -> None:
    first = read_run(trained.store, trained.training)
    assert {"asdeg", "scikit-learn", "xgboost-cpu"} <= {part.split()[0] for part in first.software_version.split("; ")}
    assert first.wall_s is not None
    again = TrainingHandler(trained.store, write=lambda result, folder, title: write_results(result, folder))
    request = TrainRequest(study=StudySettings(**first.settings["study"]), selection_run=trained.selection)
    second = again.execute(again.begin(request))
    assert second.metrics == first.metrics
    assert {"rad", "dl", "combined", "report/metrics.json", "report/predictions.parquet"} == set(second.artefacts)
    assert second.artefacts.items() <= first.artefacts.items()


def test_a_failed_run_says_why_and_is_not_released(tmp_path: Path) -> None:
    store = study_store(tmp_path / "store", patients=6)
    handler = TrainingHandler(store)
    run_id = handler.begin(TrainRequest(cohort=COHORT, study=STUDY))
    with pytest.raises(NotReady):
        handler.execute(run_id)
    run = handler.status(run_id)
    assert run.state == "failed"
    assert run.error is not None
    assert run.error.startswith("TooFewPatients: ")
    with pytest.raises(NotReady, match="no signatures"):
        Releases(store).release(run_id, by="tests")
    handler.abandon(run_id, RuntimeError())  # says nothing over the reason that is there
    assert handler.status(run_id).error == run.error
    assert list(handler.runs()) == [handler.status(run_id)]


def test_a_run_whose_process_died_is_recorded_as_failed(trained: Trained) -> None:
    handler = SelectionHandler(trained.store)
    run_id = handler.begin(SelectRequest(cohort=COHORT, study=STUDY))
    handler.abandon(run_id, RuntimeError("patient p17 did it"))
    assert handler.status(run_id).error == "Unexpected: RuntimeError"
    assert handler.status(run_id).state == "failed"


def test_nothing_extracted_nothing_to_train(tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path / "store", create=True)
    with pytest.raises(NotReady, match="no features yet"):
        TrainingHandler(store).begin(TrainRequest(cohort=COHORT, study=STUDY))
    with pytest.raises(NotFound):
        TrainingHandler(store).begin(TrainRequest(study=STUDY, selection_run="selection-none"))


def test_unknown_feature_set_is_named(trained: Trained) -> None:
    cohort = COHORT.model_copy(update={"feature_sets": ("nobody-has-this",)})
    with pytest.raises(NotReady, match="nobody-has-this"):
        TrainingHandler(trained.store).begin(TrainRequest(cohort=cohort, study=STUDY))


# --- scoring -----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["rad", "dl", "combined"])
def test_a_score_is_the_signatures_own_number(
    trained: Trained, released: Releases, scoring: ScoringHandler, kind: str
) -> None:
    answer = scoring.score(kind, "b", "b003", asked_by="tests")
    run = read_run(trained.store, trained.training)
    predictions = TrainingHandler(trained.store).report_file(trained.training, "predictions.parquet")
    table = pd.read_parquet(io.BytesIO(predictions or b"")).set_index(["site", "patient_id"])
    assert answer.probability == pytest.approx(table.loc[("b", "b003"), kind], abs=1e-12)
    assert answer.signature == run.artefacts[kind]
    assert answer.high_risk == (answer.probability >= answer.threshold)
    assert answer.research_use == RESEARCH_USE
    assert 1 <= len(answer.moved_by) <= 5
    sizes = [abs(mover.effect) for mover in answer.moved_by]
    assert sizes == sorted(sizes, reverse=True)
    ends = [table.loc[("b", "b003"), f"{kind}_{end}"] for end in ("low", "high")]
    assert answer.risk_interval == pytest.approx(ends, abs=1e-12)
    assert ends[0] < ends[1]
    assert scoring.answer(answer.score_id).risk_interval == answer.risk_interval
    assert "uncertainty of the risk" in str(ScoreAnswer.model_json_schema()["properties"]["risk_interval"])


def test_every_answer_is_kept_before_it_reaches_the_table(
    trained: Trained, released: Releases, scoring: ScoringHandler
) -> None:
    answer = scoring.score("rad", "a", "a001", asked_by="an application")
    waiting = [row for row in trained.control.unflushed_scores(100) if row["score_id"] == answer.score_id]
    assert len(waiting) == 1
    assert scoring.log.flush() >= 1
    assert scoring.log.flush() == 0
    row = trained.store.snapshot().table("scores", where={"score_id": answer.score_id}).to_pylist()[0]
    assert row["asked_by"] == "an application"
    assert row["probability"] == answer.probability
    assert scoring.answer(answer.score_id) == answer


def test_answers_reach_the_table_by_count_and_when_closed(
    trained: Trained, released: Releases, scoring: ScoringHandler
) -> None:
    log = ScoreLog(trained.store, trained.control, seconds=3600, count=2)
    counted = ScoringHandler(trained.store, log, scoring._load)
    log.start()
    ids = [counted.score("rad", "a", f"a00{i}", asked_by="tests").score_id for i in range(3)]
    log.close()
    assert len(trained.store.snapshot().table("scores", where={"score_id": ids})) == 3


def test_who_is_not_there_or_has_no_features(trained: Trained, released: Releases, scoring: ScoringHandler) -> None:
    with pytest.raises(NotFound):
        scoring.score("rad", "b", "a001", asked_by="tests")  # an id means something only within its site
    trained.store.push(examples.case("bare", "b"), kind="case", source="tests")
    with pytest.raises(FeaturesMissing):
        scoring.score("rad", "b", "bare", asked_by="tests")
    with pytest.raises(FeaturesMissing):
        scoring.score("combined", "b", "bare", asked_by="tests")


def test_nothing_released_nothing_answered(tmp_path: Path) -> None:
    store = study_store(tmp_path / "store", patients=4)
    control = ControlDatabase.open(f"sqlite:///{tmp_path / 'control.sqlite'}")
    handler = ScoringHandler(store, ScoreLog(store, control), lambda name: pytest.fail("nothing to load"))
    assert handler.readiness().ready
    assert handler.readiness().signatures == {}
    with pytest.raises(NothingReleased):
        handler.score("rad", "a", "a001", asked_by="tests")


# --- releases ----------------------------------------------------------------------------------
def test_release_rollback_recall_decide_who_answers(trained: Trained, scoring: ScoringHandler) -> None:
    releases = Releases(trained.store)
    if not releases.entries():
        releases.release(trained.training, by="tests")
    first = scoring.readiness().signatures
    handler = TrainingHandler(trained.store)
    run_id = handler.begin(TrainRequest(cohort=COHORT, study=STUDY.model_copy(update={"seed": 1})))
    handler.execute(run_id)
    releases.release(run_id, by="tests", reason="newer")
    newer = scoring.readiness().signatures
    assert newer["combined"] != first["combined"]
    assert scoring.score("combined", "b", "b001", asked_by="tests").signature == newer["combined"]

    releases.rollback("combined", by="tests")
    assert scoring.readiness().signatures == {**newer, "combined": first["combined"]}
    with pytest.raises(NothingReleased):
        releases.rollback("combined", by="tests")

    releases.recall(first["combined"][:10], by="tests", reason="wrong labels")
    assert "combined" not in scoring.readiness().signatures
    with pytest.raises(NothingReleased):
        scoring.score("combined", "b", "b001", asked_by="tests")
    with pytest.raises(Conflict, match="recalled"):
        releases.release(trained.training, by="tests")
    with pytest.raises(NotFound):
        releases.recall("ffffffffffff", by="tests")

    history = releases.entries()
    assert [entry.action for entry in history[-3:]] == ["release", "rollback", "recall"]
    assert {entry.kind for entry in history if entry.current} == {"rad", "dl"}
    releases.release(run_id, by="tests")
    assert scoring.readiness().signatures == newer


# --- surgeons ----------------------------------------------------------------------------------
def test_surgeons_readings_of_the_store_stand_beside_its_patients(tmp_path: Path) -> None:
    store = study_store(tmp_path / "store", patients=6)
    reads = [
        {"site": "a", "patient_id": "a000", "surgeon": "A", "prediction": 1},
        {"site": "a", "patient_id": "a002", "surgeon": "B", "prediction": 0},
        {"site": "b", "patient_id": "b000", "surgeon": "A", "prediction": 0},
        {"site": "a", "patient_id": "nobody", "surgeon": "A", "prediction": 1},
    ]
    before = StudyInputs.freeze(store, COHORT, STUDY)
    assert before.tables(store).reads is None
    store.push({"surgeon_reads": reads}, kind="reads", source="tests")
    assert before.tables(store).reads is None  # the frozen cohort stays as it was
    store.push(
        {"labels": [examples.label("a000", 1, "a")]}, kind="outcome", source="tests"
    )  # so that it is frozen anew
    tables = StudyInputs.freeze(store, COHORT, STUDY).tables(store)
    assert tables.reads is not None
    found = tables.patients[["patient_id"]].join(tables.reads).set_index("patient_id")
    assert found.loc["a000", "A"] == 1.0
    assert found.loc["a002", "B"] == 0.0
    assert found.loc["b000", "A"] == 0.0
    assert found.notna().to_numpy().sum() == 3
