"""Scores over HTTP that were given before: who may read them, that it is on record, and what became of their case."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from feature_store.audit import AuditLog
from feature_store.withdrawal import withdraw_case
from infra.applications import application
from infra.bootstrap import House
from tests.feature_store.examples import case, ids
from tests.services.door import make_keys, settings_of


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A store with a case of site_a, and an answer that was given for it."""
    house = House.open(settings_of(tmp_path_factory.mktemp("house")), create=True)
    house.store.push(case("p1", "site_a"), kind="case", source="site_a")
    score = {
        **ids("p1", "site_a"), "score_id": "score-1", "kind": "rad", "signature": "abc", "probability": 0.5,
        "high_risk": False, "threshold": 0.6, "moved_by": "[]", "asked_by": "app", "asked_at": datetime.now(UTC),
        "as_of": house.store.snapshot().sequence,
    }  # fmt: skip
    house.store.push({"scores": [score]}, kind="scores", source="scoring")
    return house


@pytest.fixture(scope="module")
def keys(house: House) -> dict[str, dict[str, str]]:
    return {name: {"X-API-Key": key} for name, key in make_keys(house).items()}


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with TestClient(application(house, "scoring"), raise_server_exceptions=False) as client:
        yield client


def test_reading_a_score_is_on_record_also_where_it_is_refused(
    house: House, client: TestClient, keys: dict[str, dict[str, str]]
) -> None:
    before = AuditLog(house.control).verify().number
    asked = {"site": "site_a", "patient_id": "p1"}
    statuses = [
        client.get("/v1/scores/score-1", headers=keys["site_a"]).status_code,
        client.get("/v1/scores/score-1", headers=keys["site_b"]).status_code,
        client.get("/v1/scores/Jane-Doe", headers=keys["site_b"]).status_code,
        client.post("/v1/scores/rad-sign", headers=keys["site_b"], json=asked).status_code,
        client.post("/v1/scores/rad-sign", headers=keys["site_a"], json=asked).status_code,
        client.get("/v1/scores/score-1").status_code,
        client.get("/healthz").status_code,
    ]
    assert statuses == [200, 403, 404, 403, 409, 401, 200]
    found = [entry for entry in AuditLog(house.control).entries() if entry.number > before]
    assert [(one.name, one.action, one.patient_id, one.outcome) for one in found] == [
        ("site_a", "read", "p1", "ok"),
        ("site_b", "read", "p1", "AccessDenied"),
        ("site_b", "read", None, "NotFound"),
        ("site_b", "push", None, "AccessDenied"),
        ("site_a", "push", None, "NothingReleased"),
    ]
    assert "Jane" not in str(found)


def test_no_record_no_score(
    client: TestClient, keys: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk full of Jane Doe")

    monkeypatch.setattr(AuditLog, "record", broken)
    answer = client.get("/v1/scores/score-1", headers=keys["site_a"])
    assert (answer.status_code, answer.json()["error"]) == (500, "InternalError")
    assert "Jane" not in answer.text


def test_an_answer_says_what_became_of_its_case(
    house: House, client: TestClient, keys: dict[str, dict[str, str]]
) -> None:
    def since() -> object:
        return client.get("/v1/scores/score-1", headers=keys["application"]).json()["case_since"]

    assert since() is None
    corrected = case("p1", "site_a", age=51.0)
    house.store.push(corrected, kind="case", source="site_a")
    assert since() == "corrected"
    withdraw_case(house.store, "site_a", "p1", "wrong side", "registry")
    assert since() == "withdrawn"
