"""All services behind one port, over real HTTP through Ray Serve: one start for the whole module."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from feature_store.schedules import Schedule
from feature_store.vocabulary import RESEARCH_USE
from infra import serve
from infra.bootstrap import House
from infra.settings import load_settings
from infra.site_client import SiteClient
from models.report.render import write_results
from pipelines.phantom import PhantomCohort
from services.ingest.deidentification.site_key import new_key_file
from services.runs import list_runs
from services.training.handler import TrainingHandler
from services.training.messages import RetrainAnswer, RetrainRequest
from services.training.releases import Releases
from services.training.retraining import BEGUN_BY, Retraining
from services.training.scheduler import Scheduler, retrain_here
from tests.services.dicom.doors import BOUNDARY, related
from tests.services.dicom.studies import ct_with_mask
from tests.services.door import packed
from tests.services.study_store import COHORT, ENCODER, RADIOMICS, STUDY, study_store

pytestmark = pytest.mark.cores
EVERY_MINUTE = "every minute"
CONTRACT = {
    "/v1/cases", "/v1/cases/uploads", "/v1/cases/uploads/{upload_id}", "/v1/cases/{case_id}",
    "/v1/cases/{case_id}/outcome", "/v1/cases/{case_id}/clinical", "/v1/cases/{case_id}/reads",
    "/v1/cases/{case_id}/index-date", "/v1/cases/{case_id}/quality",
    "/v1/cases/{case_id}/overlays/{sequence}.png",
    "/v1/cases/{case_id}/withdrawal", "/v1/selection-runs", "/v1/training-runs",
    "/dicom-web", "/dicom-web/studies", "/dicom-web/studies/{study}", "/dicom-web/studies/{study}/complete",
    "/v1/scores/rad-sign", "/v1/scores/dl-sign", "/v1/scores/combined", "/v1/releases", "/healthz", "/readyz",
}  # fmt: skip


@dataclass(frozen=True)
class Served:
    house: House
    url: str
    keys: dict[str, str]
    second_clock: list[RetrainAnswer] = field(default_factory=list)
    """What the retrainings said that were called by a second scheduler, of another process than the services'."""

    def call(self, who: str, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[who]}"} if who else {}
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **request)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    study_store(folder / "store", patients=24)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    new_key_file(folder / "keys" / "site_p.key", str(folder / "store"))
    settings = load_settings(
        {},
        store=str(folder / "store"),
        port=port,
        upload_limit_mb=16,
        num_cpus=2,
        auto_extract_encoder="none",
        pseudonym_keys=str(folder / "keys"),
    )
    house = House.open(settings)
    add = house.control.add_credential
    keys = {
        "site_a": add("pacs a", "site", "site_a"),
        "site_b": add("pacs b", "site", "site_b"),
        "site_p": add("pacs p", "site", "site_p"),
        "application": add("an application", "application"),
        "scientist": add("a scientist", "scientist"),
    }
    cohort = COHORT.model_copy(update={"name": "by_the_clock", "feature_sets": (RADIOMICS,)})
    request = RetrainRequest(cohort=cohort, study=STUDY)
    house.schedules.add(EVERY_MINUTE, "* * * * *", request.model_dump(mode="json"), by="tests")
    door = serve.start(settings)
    found = Served(house, door.url, keys)
    other = Scheduler(house.schedules, second(found))
    try:
        other.start()
        yield found
    finally:
        other.stop()
        serve.stop(door)


def second(served: Served) -> Callable[[Schedule], RetrainAnswer]:
    """Called at the same moments as the services' own scheduler, and a little later at the first."""
    store, control = served.house.store, served.house.control
    training = TrainingHandler(store, write=lambda result, folder, title: write_results(result, folder))

    def carry_out(schedule: Schedule) -> RetrainAnswer:
        deadline = time.monotonic() + 60
        while not retrainings_begun(served) and time.monotonic() < deadline:
            time.sleep(0.1)
        answer = retrain_here(Retraining(store, control, training, Releases(store)))(schedule)
        served.second_clock.append(answer)
        return answer

    return carry_out


def retrainings_begun(served: Served) -> list[str]:
    runs = list_runs(served.house.store, "training")
    return [run.run_id for run in runs if run.settings["begun_by"] == BEGUN_BY]


def test_health_and_docs_need_no_key(served: Served) -> None:
    assert served.call("", "GET", "/healthz").json() == {"status": "ok"}
    ready = served.call("", "GET", "/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert served.call("", "GET", "/docs").status_code == 200
    document = served.call("", "GET", "/openapi.json").json()
    assert set(document["paths"]) >= CONTRACT
    assert document["info"]["description"] == RESEARCH_USE


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/cases"), ("POST", "/v1/cases"), ("GET", "/v1/cases/x"), ("PUT", "/v1/cases/x/outcome"),
        ("POST", "/v1/selection-runs"), ("GET", "/v1/selection-runs/x"), ("POST", "/v1/training-runs"),
        ("GET", "/v1/training-runs/x"), ("POST", "/v1/scores/rad-sign"), ("POST", "/v1/scores/dl-sign"),
        ("POST", "/v1/scores/combined"), ("GET", "/v1/releases"), ("POST", "/v1/releases"),
        ("POST", "/v1/cases/x/withdrawal"), ("GET", "/dicom-web"), ("POST", "/dicom-web/studies"),
        ("POST", "/dicom-web/studies/1.2"), ("POST", "/dicom-web/studies/1.2/complete"),
    ],
)  # fmt: skip
def test_everything_else_needs_one(served: Served, method: str, path: str) -> None:
    answer = served.call("", method, path)
    assert (answer.status_code, answer.json()["error"]) == (401, "KeyRefused")


def test_no_such_path_has_the_one_body(served: Served) -> None:
    for path in ("/v1/nothing", "/v1/cases/a/b/c", "/v2"):
        answer = served.call("scientist", "GET", path)
        assert (answer.status_code, answer.json()["error"]) == (404, "NotFound")


def test_a_case_goes_in_and_its_features_come_by_themselves(served: Served, phantoms: PhantomCohort) -> None:
    case = phantoms.cases[0]
    first = served.call("site_a", "POST", "/v1/cases?wait=60", content=packed(case.folder))
    assert first.status_code == 202
    assert (first.json()["state"], first.json()["receipt"]["findings"]) == ("validated", [])
    case_id = first.json()["case_id"]
    path = f"/v1/cases/{case_id}?wait=60&past=received&past=validated"
    report = served.call("site_a", "GET", path).json()
    assert [step["state"] for step in report["history"]] == ["received", "validated", "extracted"]
    where = {"site": "site_a", "patient_id": case.patient_id}
    assert len(served.house.store.snapshot().table("radiomics", ["values"], where=where)) == 8
    pushed = case_pushes(served)
    with SiteClient(served.url, served.keys["site_a"]) as client:  # in parts, through the proxy
        assert client.push_case(case.folder)["unchanged"]
    assert served.call("site_a", "GET", f"/v1/cases/{case_id}").json()["state"] == "extracted"
    assert case_pushes(served) == pushed
    assert case_id in {row["case_id"] for row in served.call("scientist", "GET", "/v1/cases").json()["cases"]}


def test_a_site_writes_and_reads_its_own_cases_only(served: Served, phantoms: PhantomCohort) -> None:
    folder = phantoms.cases[0].folder
    case_id = served.call("site_a", "POST", "/v1/cases", content=packed(folder)).json()["case_id"]
    refused = [
        served.call("site_b", "POST", "/v1/cases", content=packed(folder)),
        served.call("scientist", "POST", f"/v1/cases/{case_id}/withdrawal", json={"reason": "x"}),
        served.call("site_b", "POST", "/v1/scores/rad-sign", json={"site": "site_a", "patient_id": "phantom-0001"}),
        served.call("site_a", "POST", "/v1/training-runs", json={}),
        served.call("application", "POST", "/v1/releases", json={"run_id": "x"}),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)
    assert served.call("site_b", "GET", f"/v1/cases/{case_id}").status_code == 404
    verdicts = served.call("site_a", "GET", f"/v1/cases/{case_id}/quality").json()
    assert {row["sequence"] for row in verdicts} == {"ct", "t1_sag", "t2_sag", "t2_ax"}
    picture = served.call("scientist", "GET", f"/v1/cases/{case_id}/overlays/ct.png")
    assert (picture.headers["content-type"], picture.content[:4]) == ("image/png", b"\x89PNG")


def test_what_is_too_large_is_refused_on_the_way(served: Served) -> None:
    for content in (b"\0" * (17 << 20), iter([b"PK" + b"\0" * (1 << 20)] * 17)):
        answer = served.call("site_a", "POST", "/v1/cases", content=content)
        assert (answer.status_code, answer.json()["error"]) == (413, "ArchiveTooLarge")
    assert served.call("", "GET", "/healthz").status_code == 200


def test_cases_of_two_sites_at_once_lose_nothing(served: Served, phantoms: PhantomCohort) -> None:
    def push(number: int) -> tuple[int, str]:
        case = phantoms.cases[number % len(phantoms.cases)]
        answer = served.call(case.site, "POST", "/v1/cases?wait=60", content=packed(case.folder))
        return answer.status_code, answer.json()["case_id"]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(push, range(12)))
    assert {status for status, _ in answers} == {202}
    stored = served.house.store.snapshot().table("cases", columns=["case_id", "site"]).to_pylist()
    assert {case_id for _, case_id in answers} <= {row["case_id"] for row in stored}
    assert len({row["case_id"] for row in stored}) == len(stored)


def test_select_train_release_and_score(served: Served) -> None:
    nothing = served.call("application", "POST", "/v1/scores/rad-sign", json={"site": "b", "patient_id": "b001"})
    assert (nothing.status_code, nothing.json()["error"]) == (409, "NothingReleased")
    # by name, because the features that came by themselves are of newer settings
    cohort = COHORT.model_copy(update={"feature_sets": (RADIOMICS, ENCODER)})
    settings = {"cohort": cohort.model_dump(mode="json"), "study": STUDY.model_dump(mode="json")}
    selection = finished(served, "selection", settings)
    training = finished(served, "training", {"study": settings["study"], "selection_run": selection["run_id"]})
    assert set(training["metrics"]["signatures"]) == {"rad", "dl", "combined"}
    report = served.call("scientist", "GET", f"/v1/training-runs/{training['run_id']}/report")
    assert report.headers["content-type"].startswith("text/html")
    assert served.call("", "GET", "/readyz").json()["signatures"] == {}
    released = served.call("scientist", "POST", "/v1/releases", json={"run_id": training["run_id"]})
    assert {entry["kind"] for entry in released.json()} == {"rad", "dl", "combined"}
    assert set(served.call("", "GET", "/readyz").json()["signatures"]) == {"rad", "dl", "combined"}
    for path, kind in (("rad-sign", "rad"), ("dl-sign", "dl"), ("combined", "combined")):
        asked = {"site": "b", "patient_id": "b001"}
        answer = served.call("application", "POST", f"/v1/scores/{path}", json=asked)
        assert answer.status_code == 200
        score = answer.json()
        assert score["signature"] == training["artefacts"][kind]
        assert 0 < score["probability"] < 1
        assert score["high_risk"] == (score["probability"] >= score["threshold"])
        assert score["research_use"] == RESEARCH_USE
        assert 1 <= len(score["moved_by"]) <= 5
        again = served.call("application", "GET", f"/v1/scores/{score['score_id']}").json()
        assert again == score
    stored = served.house.store.snapshot().table("scores").to_pylist()
    assert {row["kind"] for row in stored} == {"rad", "dl", "combined"}
    assert {row["asked_by"] for row in stored} == {"an application"}
    gone = served.call("application", "POST", "/v1/scores/combined", json={"site": "b", "patient_id": "nobody"})
    assert (gone.status_code, gone.json()["error"]) == (404, "NotFound")
    recalled = served.call("scientist", "POST", "/v1/releases", json={"recall": training["artefacts"]["rad"]})
    assert recalled.status_code == 200
    assert set(served.call("", "GET", "/readyz").json()["signatures"]) == {"dl", "combined"}


def test_a_failed_run_is_followed_to_its_reason(served: Served) -> None:
    study = {**STUDY.model_dump(mode="json"), "classifiers": {"rad": "crystal_ball"}}
    status = finished(served, "training", {"cohort": COHORT.model_dump(mode="json"), "study": study}, "failed")
    assert status["error"].startswith("SettingsError")
    unknown = served.call("scientist", "POST", "/v1/training-runs", json={"cohort": {"name": "x", "sorted": True}})
    assert unknown.status_code == 422
    assert served.call("scientist", "GET", "/v1/training-runs/no-such-run").status_code == 404


def test_a_study_goes_in_by_stow_and_is_a_case_when_the_site_says_so(served: Served) -> None:
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    headers = {"Content-Type": kind, "X-API-Key": served.keys["site_p"]}
    url = f"{served.url}/dicom-web/studies/1.2.3"
    assert httpx.post(url, content=related(ct_with_mask()), headers=headers, timeout=60).status_code == 200
    made = served.call("site_p", "POST", "/dicom-web/studies/1.2.3/complete").json()
    assert (made["state"], made["rois"]) == ("validated", 3)
    assert [case["case_id"] for case in served.call("site_p", "GET", "/v1/cases").json()["cases"]] == [made["case_id"]]


def test_a_run_says_over_http_how_far_it_is_and_stops_when_asked(served: Served) -> None:
    cohort = COHORT.model_copy(update={"feature_sets": (RADIOMICS,)})
    study = STUDY.model_copy(update={"permutations": 100, "seed": 7})
    request = {"cohort": cohort.model_dump(mode="json"), "study": study.model_dump(mode="json")}
    path = f"/v1/training-runs/{served.call('scientist', 'POST', '/v1/training-runs', json=request).json()['run_id']}"
    status = until(lambda: served.call("scientist", "GET", path).json(), lambda found: found["fraction"])
    assert (status["state"], status["cohort"], status["settings"]["study"]["seed"]) == ("running", "tests", 7)
    assert served.call("scientist", "POST", f"{path}/cancel").status_code == 202
    status = until(lambda: served.call("scientist", "GET", path).json(), lambda found: found["state"] != "running")
    assert (status["state"], status["artefacts"], status["metrics"]) == ("cancelled", {}, None)
    assert status["error"].startswith("RunCancelled")


def test_the_clock_calls_for_one_retraining_however_many_clocks_there_are(served: Served) -> None:
    """Last, because the services' scheduler has been at it since they came up; each minute after it, nothing is new."""
    schedules, history = served.house.schedules, served.house.retraining.history
    until(history, lambda found: found)
    until(lambda: served.second_clock, lambda found: found)
    (row,) = history()
    assert [row["run_id"]] == retrainings_begun(served)
    assert (row["decision"], row["cohort"], row["decided_by"]) == (
        "candidate",
        "by_the_clock",
        f"schedule {EVERY_MINUTE}",
    )
    assert {answer.decision for answer in served.second_clock} <= {"busy", "nothing_new"}
    assert until(lambda: schedules.get(EVERY_MINUTE), lambda found: found.last_run).last_run == row["run_id"]
    run = served.call("scientist", "GET", f"/v1/training-runs/{row['run_id']}").json()
    assert (run["state"], run["settings"]["begun_by"]) == ("finished", BEGUN_BY)


def case_pushes(served: Served) -> int:
    """How many pushes brought cases or their features."""
    return sum(
        push["kind"] not in ("run", "cohort", "retraining") for push in served.house.store.snapshot().pushes.to_pylist()
    )


def until(ask: Callable[[], Any], enough: Callable[[Any], Any]) -> Any:
    deadline = time.monotonic() + 90
    while not enough(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def finished(served: Served, kind: str, request: dict[str, Any], state: str = "finished") -> dict[str, Any]:
    begun = served.call("scientist", "POST", f"/v1/{kind}-runs", json=request)
    assert begun.status_code == 202, begun.text
    status: dict[str, Any] = {"state": "running"}
    for _ in range(600):
        status = served.call("scientist", "GET", f"/v1/{kind}-runs/{begun.json()['run_id']}").json()
        if status["state"] != "running":
            break
        time.sleep(0.2)
    assert status["state"] == state, status
    return status
