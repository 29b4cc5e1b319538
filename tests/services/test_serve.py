"""All services behind one port, over real HTTP through Ray Serve: one start for the whole module."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from feature_store.vocabulary import RESEARCH_USE
from infra import serve
from infra.bootstrap import House
from infra.settings import load_settings
from infra.site_client import SiteClient
from pipelines.phantom import PhantomCohort
from services.ingest.deidentification.site_key import new_key_file
from tests.services.dicom.doors import BOUNDARY, related
from tests.services.dicom.studies import ct_with_mask
from tests.services.door import packed
from tests.services.study_store import COHORT, ENCODER, RADIOMICS, STUDY, study_store

pytestmark = pytest.mark.cores
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
    door = serve.start(settings)
    try:
        yield Served(house, door.url, keys)
    finally:
        serve.stop(door)


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
    sequence = served.house.store.snapshot().sequence
    with SiteClient(served.url, served.keys["site_a"]) as client:  # in parts, through the proxy
        assert client.push_case(case.folder)["unchanged"]
    assert served.call("site_a", "GET", f"/v1/cases/{case_id}").json()["state"] == "extracted"
    assert served.house.store.snapshot().sequence == sequence
    assert case_id in {row["case_id"] for row in served.call("scientist", "GET", "/v1/cases").json()}


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
    assert [case["case_id"] for case in served.call("site_p", "GET", "/v1/cases").json()] == [made["case_id"]]


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
