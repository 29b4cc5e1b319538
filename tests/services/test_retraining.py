"""Retraining: once for what is new, by one at a time, and never half a release."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from feature_store.control import ControlDatabase
from feature_store.errors import Conflict, LeaseLost, NotFound, NotReady, RunCancelled, UsageError
from feature_store.leases import Leases
from feature_store.run_progress import RunProgress
from feature_store.schedules import Schedule, Schedules
from feature_store.store import FeatureStore
from models.evaluation.gates import Gate, GateSettings
from models.report.render import write_results
from services.runs import RunStatus, list_runs, read_run
from services.training.cron import trigger
from services.training.handler import TrainingHandler
from services.training.looks import looks_at
from services.training.messages import RetrainAnswer, RetrainRequest, TrainRequest
from services.training.releases import Releases
from services.training.retraining import LEASE, Retraining
from services.training.scheduler import Scheduler, run_schedule
from tests.feature_store import examples
from tests.services.study_store import COHORT, RADIOMICS, STUDY, study_store

SPAWN = mp.get_context("spawn")
EASY = GateSettings(auc_difference=-0.9, slope_low=0.01, slope_high=90, intercept=50, fewest=2)
STUDY_WITH_CHECK = STUDY.model_copy(update={"permutations": 2, "permutation_folds": 3})
RAD_ONLY = COHORT.model_copy(update={"feature_sets": (RADIOMICS,)})
REQUEST = RetrainRequest(cohort=RAD_ONLY, study=STUDY_WITH_CHECK, release=True, first_release="gates", gates=EASY)


@dataclass(frozen=True)
class Bench:
    store: FeatureStore
    control: ControlDatabase

    def training(self) -> TrainingHandler:
        """Without the pictures: what is judged are the predictions."""
        return TrainingHandler(self.store, write=lambda result, folder, title: write_results(result, folder))

    def retraining(self, lease_s: float = 60.0) -> Retraining:
        return Retraining(self.store, self.control, self.training(), Releases(self.store), lease_s)

    def retrain(self, request: RetrainRequest = REQUEST) -> RetrainAnswer:
        return self.retraining().retrain(request, by="tests")

    def released(self) -> dict[str, str | None]:
        return {entry.kind: entry.signature for entry in Releases(self.store).entries() if entry.current}

    def new_outcomes(self, *names: str, site: str = "a") -> None:
        rows: dict[str, Any] = {}
        for number, name in enumerate(names):
            for table, more in examples.case(name, site, age=60.0, bmi=25.0, osteoporosis=False).items():
                rows.setdefault(table, []).extend(more)
            rows.setdefault("labels", []).append(examples.label(name, number % 2, site))
        assert not self.store.push(rows, kind="case", source="tests").rejected


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    control = ControlDatabase.open(f"sqlite:///{tmp_path / 'control.sqlite'}")
    yield Bench(study_store(tmp_path / "store", patients=30), control)
    control.close()


def test_what_is_new_is_trained_judged_and_released_once(bench: Bench) -> None:
    first = bench.retrain()
    assert first.decision == "released"
    assert (first.looks, first.looks_by_partition) == (1, {"internal_validation": 1, "external_test": 1})
    assert {"rad"} <= set(first.released) == set(bench.released())
    assert first.gates["rad"][0]["verdict"] == "not_applicable"

    again = bench.retrain()
    assert (again.decision, again.run_id) == ("nothing_new", first.run_id)
    assert len(list_runs(bench.store)) == 1

    bench.new_outcomes("a900", "a901", "a902", "a903")
    bench.new_outcomes("b900", site="b")
    second = bench.retrain()
    assert second.version == 2
    assert second.looks == 2
    difference = second.gates["rad"][0]
    assert difference["verdict"] == "holds"
    assert difference["figures"]["auc_difference"] == pytest.approx(0.0, abs=0.3)
    partitions = bench.store.snapshot().table("cohorts", where={"patient_id": "b900"}).to_pylist()
    assert [row["partition"] for row in partitions] == ["external_test"]
    decisions = bench.retraining().history()
    assert [row["run_id"] for row in decisions] == [first.run_id, second.run_id]

    assert "rad" in second.released

    # a person may go back, and the next retraining with nothing new leaves it so
    before = bench.released()
    Releases(bench.store).rollback("rad", by="tests")
    assert bench.retrain().decision == "nothing_new"
    assert bench.released() != before


def test_what_people_began_is_theirs_and_what_nobody_wants_released_is_a_candidate(bench: Bench) -> None:
    handler = bench.training()
    handler.execute(handler.begin(TrainRequest(cohort=REQUEST.cohort, study=REQUEST.study)))
    assert bench.retrain().decision == "nothing_new"

    bench.new_outcomes("b901", site="b")
    asked = bench.retrain(REQUEST.model_copy(update={"release": False}))
    assert asked.decision == "candidate"
    assert asked.looks == 2  # a person has read the figures of the run before
    assert "as asked" in asked.reason
    assert bench.released() == {}
    # neither the decision nor a person's release is a look of its own: both go by the run's figures
    Releases(bench.store).release(asked.run_id or "", by="tests")
    assert looks_at(bench.store.snapshot(), "tests").n == 2
    assert looks_at(bench.store.snapshot(), "another").n == 0


def test_two_at_once_are_one_and_a_long_run_keeps_its_lease(bench: Bench) -> None:
    answers: list[RetrainAnswer] = []
    short = 0.6  # far shorter than the training: only prolonging keeps the other out
    strict = RetrainRequest(cohort=REQUEST.cohort, study=REQUEST.study, release=True)
    first = threading.Thread(target=lambda: answers.append(bench.retraining(short).retrain(strict, by="one")))
    first.start()
    while not list_runs(bench.store):
        time.sleep(0.02)
    while first.is_alive():
        other = bench.retraining(short).retrain(strict, by="two")
        assert other.decision in ("busy", "nothing_new")
        time.sleep(0.2)
    first.join()
    assert len(list_runs(bench.store)) == 1

    (answer,) = answers  # fifteen patients are too few for the gates as they are by default
    assert answer.decision == "candidate"
    assert "calibration_slope" in answer.reason
    assert {gate["verdict"] for gate in answer.gates["rad"]} >= {"insufficient"}
    assert bench.released() == {}


def test_a_lost_lease_releases_nothing(bench: Bench) -> None:
    leases = Leases(bench.control)

    class Asleep(TrainingHandler):
        def execute(self, run_id: str, progress: Any = None) -> Any:
            status = super().execute(run_id, progress)
            holder = leases.holder(LEASE)
            assert holder is not None
            leases.release(LEASE, holder)
            assert leases.take(LEASE, "another", 60)
            return status

    asleep = Asleep(bench.store, write=lambda result, folder, title: write_results(result, folder))
    slow = Retraining(bench.store, bench.control, asleep, Releases(bench.store))
    with pytest.raises(LeaseLost):
        slow.retrain(REQUEST, by="tests")
    assert bench.released() == {}
    leases.release(LEASE, "another")
    done = bench.retrain()  # the run is whole: only the decision was missing
    assert done.decision == "released"
    assert len(list_runs(bench.store)) == 1


def _retrain(store: str, control: str) -> None:
    bench = Bench(FeatureStore.open(store), ControlDatabase.open(control))
    bench.retraining(lease_s=1.0).retrain(REQUEST, by="killed")


@pytest.mark.cores
def test_killed_at_any_instant_it_is_taken_up_and_never_half_released(tmp_path: Path) -> None:
    store = study_store(tmp_path / "store", patients=30)
    url = f"sqlite:///{tmp_path / 'control.sqlite'}"
    control = ControlDatabase.open(url)
    bench = Bench(store, control)
    for attempt in range(4):
        process = SPAWN.Process(target=_retrain, args=(store.uri, url), daemon=True)
        process.start()
        before = len(list_runs(store))
        deadline = time.monotonic() + 60
        while len(list_runs(store)) == before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.7 * attempt)
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        time.sleep(1.1)  # the dead one's lease runs out
    last = bench.retrain()
    assert last.decision in ("released", "nothing_new")
    runs = list_runs(store)
    assert [run.state for run in runs].count("finished") == 1
    assert {run.state for run in runs} <= {"finished", "failed"}
    finished = next(run for run in runs if run.state == "finished")
    decided = bench.retraining().history()
    assert [row["run_id"] for row in decided] == [finished.run_id]
    pushes = {row["push_sequence"] for row in store.snapshot().revisions("releases").to_pylist()}
    assert pushes == {row["push_sequence"] for row in store.snapshot().revisions("retrainings").to_pylist()}
    assert "rad" in bench.released()
    assert bench.released().items() <= read_run(store, finished.run_id).artefacts.items()
    control.close()


def test_a_first_release_waits_for_a_person_unless_the_gates_may(bench: Bench) -> None:
    status = RunStatus(
        run_id="training-x",
        kind="training",
        state="finished",
        cohort="tests",
        version=1,
        artefacts={"rad": "0" * 64},
        settings={},
        started_at=datetime.now(UTC),
    )
    gates = {"rad": [Gate("leakage_check", "holds", "", "", {})]}
    decide = bench.retraining()._releasable
    snapshot = bench.store.snapshot()
    waits = decide(snapshot, status, gates, REQUEST.model_copy(update={"first_release": "person"}))
    assert waits == ([], "Nothing was released. The first release is a person's decision: rad.")
    assert decide(snapshot, status, gates, REQUEST)[0] == ["rad"]


# --- the clock -------------------------------------------------------------------------------------
def test_a_cron_line_means_what_cron_means() -> None:
    sunday = datetime(2026, 11, 22, 0, 0, tzinfo=UTC)
    for line in ("0 3 * * 0", "0 3 * * 7", "0 3 * * sun"):
        assert trigger(line).get_next_fire_time(None, sunday) == datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
    weekdays = trigger("30 1 * * 1-5").get_next_fire_time(None, sunday)
    assert weekdays == datetime(2026, 11, 23, 1, 30, tzinfo=UTC)
    for wrong in ("", "0 3 * *", "0 3 * * 8", "61 3 * * 0", "every sunday"):
        with pytest.raises(UsageError):
            trigger(wrong)


def test_schedules_are_kept_called_and_noted(tmp_path: Path) -> None:
    control = ControlDatabase.open(f"sqlite:///{tmp_path / 'control.sqlite'}")
    schedules = Schedules(control)
    schedules.add("weekly", "0 3 * * 0", REQUEST.model_dump(mode="json"), by="tests")
    with pytest.raises(Conflict):
        schedules.add("weekly", "0 3 * * 0", {}, by="tests")
    assert RetrainRequest.model_validate(schedules.get("weekly").request) == REQUEST

    done = RetrainAnswer(decision="candidate", reason="as asked", run_id="training-1")
    assert run_schedule(schedules, "weekly", lambda schedule: done) == done
    assert (schedules.get("weekly").last_decision, schedules.get("weekly").last_run) == ("candidate", "training-1")
    run_schedule(schedules, "weekly", lambda schedule: RetrainAnswer(decision="busy", reason="another"))
    assert schedules.get("weekly").last_decision == "candidate"  # the one who was busy notes it

    def fail(schedule: Schedule) -> RetrainAnswer:
        raise RuntimeError("patient p17 did it")

    with pytest.raises(RuntimeError):
        run_schedule(schedules, "weekly", fail)
    assert schedules.get("weekly").last_reason == "Unexpected: RuntimeError"
    schedules.remove("weekly")
    with pytest.raises(NotFound):
        schedules.remove("weekly")
    control.close()


def test_the_scheduler_calls_what_is_due_and_learns_of_changes(tmp_path: Path) -> None:
    control = ControlDatabase.open(f"sqlite:///{tmp_path / 'control.sqlite'}")
    schedules = Schedules(control)
    called = threading.Event()

    def carry_out(schedule: Schedule) -> RetrainAnswer:
        called.set()
        return RetrainAnswer(decision="nothing_new", reason="none")

    scheduler = Scheduler(schedules, carry_out, look_every_s=0.05)
    scheduler.start()
    try:
        schedules.add("later", "0 3 1 1 *", REQUEST.model_dump(mode="json"), by="tests")
        _until(lambda: "later" in scheduler.next_calls())
        scheduler.call_now("later")  # as the clock would
        assert called.wait(10)
        _until(lambda: schedules.get("later").last_decision == "nothing_new")
        schedules.remove("later")
        _until(lambda: "later" not in scheduler.next_calls())
    finally:
        scheduler.stop()
        control.close()


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- progress and cancelling -----------------------------------------------------------------------
def test_a_run_says_how_far_it_is_and_stops_when_asked(bench: Bench) -> None:
    under_way = RunProgress(bench.control)
    handler = TrainingHandler(bench.store, under_way)
    run_id = handler.begin(TrainRequest(cohort=RAD_ONLY, study=STUDY))
    under_way.say(run_id, "rad", 0.25)
    assert (handler.status(run_id).step, handler.status(run_id).fraction) == ("rad", 0.25)
    handler.cancel(run_id)
    with pytest.raises(RunCancelled):
        handler.execute(run_id)
    status = handler.status(run_id)
    assert status.state == "cancelled"
    assert status.step is None
    with pytest.raises(NotReady, match="not under way"):
        handler.cancel(run_id)
