"""What follows a push over real HTTP: states, what a site says of a case by itself, who may what, who did what."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml

from feature_store.audit import AuditLog
from feature_store.vocabulary import adjacent_segments
from infra.applications import openapi
from pipelines.cases.manifest_schema import case_id as id_of
from pipelines.phantom import PhantomCohort
from tests.services.door import Door, open_door, packed


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door")) as door:
        yield door


@pytest.fixture(scope="module")
def case_id(door: Door, phantoms: PhantomCohort) -> str:
    return str(door.push("site_a", phantoms.cases[0].folder).json()["case_id"])


def put(door: Door, case_id: str, what: str, body: object, who: str = "site_a") -> httpx.Response:
    return door.call(who, "PUT", f"/v1/cases/{case_id}/{what}", json=body)


def get(door: Door, case_id: str, what: str, who: str = "site_a") -> Any:
    answer = door.call(who, "GET", f"/v1/cases/{case_id}/{what}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_case_is_followed_to_its_end(door: Door, phantoms: PhantomCohort, case_id: str) -> None:
    report = door.call("scientist", "GET", f"/v1/cases/{case_id}").json()
    assert [step["state"] for step in report["history"]] == ["received", "validated"]
    assert report["receipt"]["rois"] > 0
    assert case_id in {row["case_id"] for row in door.call("site_a", "GET", "/v1/cases").json()["cases"]}
    assert door.call("site_b", "GET", "/v1/cases").json() == {"cases": [], "next": None}
    assert door.call("site_a", "GET", f"/v1/cases/{case_id}?wait=1&past=validated").json()["state"] == "validated"
    broken = phantoms.broken[0]
    told = door.push(broken.site, broken.folder).json()
    assert (
        [finding["code"] for finding in told["receipt"]["findings"]]
        == [finding["code"] for finding in told["receipt"]["findings"] if finding["action"]]
        != []
    )


def test_a_case_of_which_nothing_can_be_used_is_rejected_with_reasons(
    door: Door, phantoms: PhantomCohort, tmp_path: Path
) -> None:
    (tmp_path / "case").mkdir()
    entry = {"sequence": "ct", "image": "ct.nii.gz"}
    manifest = {"patient_id": "nothing-usable", "site": "site_a", "series": [entry]}
    (tmp_path / "case/case.yaml").write_text(yaml.safe_dump(manifest))
    (tmp_path / "case/ct.nii.gz").write_bytes(b"no image")
    ticket = door.push("site_a", tmp_path / "case").json()
    assert ticket["state"] == "rejected"
    report = door.call("site_a", "GET", f"/v1/cases/{ticket['case_id']}").json()
    assert [step["state"] for step in report["history"]] == ["received", "rejected"]
    assert report["reasons"][0].startswith("ImageUnreadable")


def test_outcomes_have_versions(door: Door, case_id: str) -> None:
    good = {"days_from_index": 400, "rater": "A", "level": "L3-L4", "pfirrmann": 2}
    for wrong in ({"level": "L9"}, {"pfirrmann": 9}, {"colour": "red"}, {"days_from_index": None}):
        answer = put(door, case_id, "outcome", [{**good, **wrong}])
        assert (answer.status_code, answer.json()["error"]) == (422, "RequestInvalid")
    assert put(door, case_id, "outcome", []).json()["error"] == "FollowUpError"
    assert put(door, "0" * 16, "outcome", [good]).status_code == 404
    assert not put(door, case_id, "outcome", [good]).json()["unchanged"]
    assert put(door, case_id, "outcome", [good]).json()["unchanged"]
    put(door, case_id, "outcome", [{**good, "pfirrmann": 3}])
    told = get(door, case_id, "outcome", "scientist")
    assert [row["pfirrmann"] for row in told["current"]] == [3]
    assert [version["values"]["pfirrmann"] for version in told["history"]] == [2, 3]
    assert "patient_id" not in str(told)


def test_clinical_variables_outlive_a_push_that_says_nothing_new(
    door: Door, phantoms: PhantomCohort, tmp_path: Path
) -> None:
    case = phantoms.cases[0]
    case_id = door.push("site_a", case.folder).json()["case_id"]
    manifest = yaml.safe_load((case.folder / "case.yaml").read_text())
    mended = {**manifest["clinical"], "bmi": 33.3}
    assert not put(door, case_id, "clinical", mended).json()["unchanged"]
    assert put(door, case_id, "clinical", mended).json()["unchanged"]
    for wrong in ({"bmi": 200}, {"colour": "red"}, {"age": "sixty"}, {"sex": "Jane Doe"}):
        answer = put(door, case_id, "clinical", wrong)
        assert answer.status_code == 422
        assert "Jane" not in answer.text
    again = door.push("site_a", case.folder).json()
    assert again["receipt"]["unchanged"]
    assert [row["bmi"] for row in get(door, case_id, "clinical")["current"]] == [33.3]
    # the case itself says something else than before: that is a correction
    copy = tmp_path / "copy"
    shutil.copytree(case.folder, copy)
    manifest["clinical"]["bmi"] = 21.5
    (copy / "case.yaml").write_text(yaml.safe_dump(manifest))
    assert not door.push("site_a", copy).json()["receipt"]["unchanged"]
    told = get(door, case_id, "clinical")
    assert [row["bmi"] for row in told["current"]] == [21.5]
    assert [version["by"] for version in told["history"]] == ["case", "clinical", "case"]


def test_operated_levels_sent_later_decide_the_label(door: Door, phantoms: PhantomCohort, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(phantoms.cases[0].folder, copy)
    manifest = yaml.safe_load((copy / "case.yaml").read_text())
    levels = manifest["clinical"].pop("fused_levels")
    manifest["patient_id"] = "phantom-0009"
    (copy / "case.yaml").write_text(yaml.safe_dump(manifest))
    case_id = door.push("site_a", copy).json()["case_id"]
    level = adjacent_segments(tuple(levels))[0]
    answer = put(door, case_id, "outcome", [{"days_from_index": 400, "rater": "A", "level": level, "pfirrmann": 5}])
    assert answer.json()["outcome"] is None
    put(door, case_id, "clinical", {**manifest["clinical"], "fused_levels": levels})
    labels = door.house.store.snapshot().table("labels", where={"site": "site_a", "patient_id": "phantom-0009"})
    assert labels["outcome"].to_pylist() == [1]


def test_readings_have_versions(door: Door, case_id: str) -> None:
    assert not put(door, case_id, "reads", [{"surgeon": "A", "prediction": 1}]).json()["unchanged"]
    assert put(door, case_id, "reads", [{"surgeon": "A", "prediction": 1}]).json()["unchanged"]
    put(door, case_id, "reads", [{"surgeon": "A", "prediction": 0}, {"surgeon": "B", "prediction": 0}])
    for wrong in ([], [{"surgeon": "A", "prediction": 2}], [{"surgeon": "A", "prediction": 0}] * 2, {"A": 1}):
        assert put(door, case_id, "reads", wrong).status_code == 422
    told = get(door, case_id, "reads")
    assert {row["surgeon"]: row["prediction"] for row in told["current"]} == {"A": 0, "B": 0}
    assert len(told["history"]) == 3


def test_the_surgery_comes_later_and_stays(door: Door, phantoms: PhantomCohort, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(phantoms.cases[0].folder, copy)
    manifest = yaml.safe_load((copy / "case.yaml").read_text())
    manifest.pop("index_date")
    manifest["patient_id"] = "phantom-0010"
    for days, entry in enumerate(manifest["series"]):
        entry["study_date"] = f"2024-02-{10 + days:02d}"
    (copy / "case.yaml").write_text(yaml.safe_dump(manifest))
    case_id = door.push("site_a", copy).json()["case_id"]
    before = get(door, case_id, "index-date")
    assert not before["index_date_known"]
    assert max(before["days_from_index"].values()) == 0
    assert put(door, case_id, "index-date", {"index_date": "2024-03-01"}).status_code == 409  # of what day is day 0?
    for wrong in (
        {},
        {"days_after_newest_image": -1},
        {"days_after_newest_image": 3, "index_date": "2024-03-01"},
        {"index_date": "2024-03-01", "newest_image_date": "2024-03-02"},
        {"index_date": "Jane Doe"},
    ):
        answer = put(door, case_id, "index-date", wrong)
        assert answer.status_code == 422
        assert "Jane" not in answer.text
    newest = f"2024-02-{9 + len(manifest['series']):02d}"
    told = put(door, case_id, "index-date", {"index_date": "2024-03-01", "newest_image_date": newest}).json()
    move = 1 + 29 - (9 + len(manifest["series"]))
    assert told["index_date_known"]
    assert told["days_from_index"] == {name: day - move for name, day in before["days_from_index"].items()}
    assert put(door, case_id, "index-date", {"days_after_newest_image": move}).json() == told
    assert door.push("site_a", copy).json()["receipt"]["unchanged"]  # the case still does not know it
    # one image gets another day and is the newest now; the surgery stays where it was
    manifest["series"][0]["study_date"] = "2024-02-25"
    (copy / "case.yaml").write_text(yaml.safe_dump(manifest))
    late = door.push("site_a", copy, content=packed(copy)).json()
    days = get(door, case_id, "index-date")["days_from_index"]
    assert late["receipt"]["findings"] == []
    assert days[manifest["series"][0]["sequence"]] == told["days_from_index"][manifest["series"][0]["sequence"]] + 15
    assert "2024" not in str(door.house.store.snapshot().table("series").to_pylist())


def test_a_case_is_taken_back_and_comes_again(door: Door, phantoms: PhantomCohort) -> None:
    case = phantoms.cases[1]
    case_id = door.push(case.site, case.folder).json()["case_id"]
    path = f"/v1/cases/{case_id}/withdrawal"
    assert door.call(case.site, "POST", path, json={}).status_code == 422
    answer = door.call(case.site, "POST", path, json={"reason": "wrong side"})
    assert (answer.status_code, answer.json()["state"], answer.json()["reasons"]) == (200, "withdrawn", ["wrong side"])
    assert door.call(case.site, "POST", path, json={"reason": "again"}).status_code == 404
    again = door.push(case.site, case.folder).json()
    assert (again["state"], again["receipt"]["unchanged"]) == ("validated", False)


# --- who may what ------------------------------------------------------------------------------
def calls(door: Door, case_id: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation of the OpenAPI document that names a case or an upload, with a body that would do."""
    bodies = {
        "outcome": [{"days_from_index": 400, "rater": "A", "level": "L3-L4", "ucla": 1}],
        "clinical": {"bmi": 20},
        "reads": [{"surgeon": "A", "prediction": 1}],
        "index-date": {"days_after_newest_image": 1},
        "withdrawal": {"reason": "x"},
    }
    headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    begun = door.call("site_a", "POST", "/v1/cases/uploads", headers={"Upload-Length": "10"})
    upload = begun.headers["location"].rpartition("/")[2]
    document = openapi(door.house)
    for path, operations in document["paths"].items():
        if not path.startswith("/v1/cases/") or "{" not in path:
            continue
        where = path.replace("{case_id}", case_id).replace("{upload_id}", upload).replace("{sequence}", "ct")
        if "{" in where:  # a further door's own parts of a path
            continue
        for method in operations:
            body = bodies.get(path.rpartition("/")[2])
            request: dict[str, Any] = {"json": body} if body is not None and method != "get" else {}
            if "{upload_id}" in path:
                request = {"headers": headers, "content": b"x"} if method == "patch" else {}
            yield method.upper(), where, request


def test_another_site_learns_nothing_and_changes_nothing(door: Door, case_id: str) -> None:
    sequence = door.house.store.snapshot().sequence
    tried = 0
    for method, where, request in list(calls(door, case_id)):
        other = door.call("site_b", method, where, **request)
        nowhere = where.replace(case_id, "f" * 16) if case_id in where else f"/v1/cases/uploads/{'f' * 32}"
        nothing = door.call("site_b", method, nowhere, **request)
        assert (other.status_code, other.text) == (nothing.status_code, nothing.text), (method, where)
        assert other.status_code in (403, 404)
        assert door.call("", method, where, **request).status_code == 401
        assert door.call("application", method, where, **request).status_code == 403
        if method not in ("GET", "HEAD"):
            assert door.call("scientist", method, where, **request).status_code == 403
        tried += 1
    assert tried >= 16
    assert door.house.store.snapshot().sequence == sequence


def test_a_site_cannot_push_for_another(door: Door, phantoms: PhantomCohort) -> None:
    sequence = door.house.store.snapshot().sequence
    for who in ("site_b", "application", "scientist"):
        answer = door.push(who, phantoms.cases[0].folder)
        assert (answer.status_code, answer.json()["error"]) == (403, "AccessDenied")
    assert door.house.store.snapshot().sequence == sequence


def test_every_push_and_read_is_on_record(door: Door, phantoms: PhantomCohort, case_id: str) -> None:
    log = AuditLog(door.house.control)
    before = log.verify().number
    door.push("site_a", phantoms.cases[0].folder)
    get(door, case_id, "clinical", "scientist")
    door.call("site_b", "GET", f"/v1/cases/{case_id}")
    door.call("site_b", "GET", "/v1/cases/Jane%20Doe")
    door.call("", "GET", f"/v1/cases/{case_id}")
    entries = [entry for entry in log.entries() if entry.number > before]
    assert [(e.name, e.action, e.site, e.case_id, e.outcome) for e in entries] == [
        ("site_a", "push", "site_a", case_id, "ok"),
        ("scientist", "read", "site_a", case_id, "ok"),
        ("site_b", "read", "site_b", None, "NotFound"),
        ("site_b", "read", "site_b", None, "NotFound"),
    ]
    assert entries[1].details == {"route": "GET /v1/cases/{case_id}/clinical", "status": 200}
    assert "Jane" not in str(entries)
    assert log.verify().number == before + 4


def test_no_record_no_answer(door: Door, case_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    def broken(*_: object) -> None:
        raise OperationalError("", None, Exception())

    monkeypatch.setattr(AuditLog, "record", broken)
    answer = door.call("site_a", "GET", f"/v1/cases/{case_id}/clinical")
    assert answer.status_code == 500
    assert "history" not in answer.text


def test_cases_are_listed_in_pages_that_a_push_does_not_move(tmp_path: Path) -> None:
    def known(door: Door, site: str, numbers: range) -> set[str]:
        cases = {id_of(site, f"p{number}"): f"p{number}" for number in numbers}
        for one, patient in cases.items():
            door.house.control.set_case_state(site, patient, one, "validated")
        return set(cases)

    with open_door(tmp_path, carries=False) as door:
        mine, others = known(door, "site_a", range(25)), known(door, "site_b", range(3))
        told = door.call("site_a", "GET", "/v1/cases?limit=10").json()
        found = told["cases"]
        while told["next"]:
            assert len(told["cases"]) == 10
            assert set(parse_qs(urlsplit(told["next"]).query)) == {"after", "limit"}
            known(door, "site_a", range(100 + 5 * len(found), 105 + 5 * len(found)))  # pushed meanwhile
            told = door.call("site_a", "GET", told["next"]).json()
            found += told["cases"]
        ids = [row["case_id"] for row in found]
        assert ids == sorted(set(ids))
        assert mine <= set(ids)
        assert not others & set(ids)
        assert {row["site"] for row in found} == {"site_a"}
        assert others <= {
            row["case_id"] for row in door.call("scientist", "GET", "/v1/cases?limit=1000").json()["cases"]
        }
        known(door, "site_a", range(1000, 1100))
        usual = door.call("site_a", "GET", "/v1/cases").json()
        assert (len(usual["cases"]), usual["next"] is None) == (100, False)
        gone = door.call("site_a", "GET", "/v1/cases?after=ffffffffffffffff").json()
        assert gone == {"cases": [], "next": None}
        for wrong in ("limit=0", "limit=1001", "limit=all", "after=p1", "after=Jane%20Doe", f"after={'f' * 5000}"):
            answer = door.call("site_a", "GET", f"/v1/cases?{wrong}")
            assert (answer.status_code, answer.json()["error"]) == (422, "RequestInvalid"), wrong
            assert "Jane" not in answer.text


def test_a_key_may_ask_so_often(tmp_path: Path) -> None:
    with open_door(tmp_path, carries=False, limits={"per_minute": 5, "body": 1 << 20}) as door:
        answers = [door.call("site_a", "GET", "/v1/cases") for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        assert answers[-1].headers["retry-after"]
        assert door.call("site_b", "GET", "/v1/cases").status_code == 200
        # a request that is no upload is small, whether it says how long it is or not
        for content in (b"[" + b"1," * (1 << 20), iter([b"1," * 1000] * 1000)):
            answer = door.call("site_b", "PUT", f"/v1/cases/{'f' * 16}/clinical", content=content)
            assert (answer.status_code, answer.json()["error"]) == (413, "BodyTooLarge")
