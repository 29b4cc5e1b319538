"""Schedules over HTTP, on a real control database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from feature_store.control import ControlDatabase
from feature_store.schedules import Schedules
from services import http_errors
from services.training.schedule_routes import schedule_router
from tests.services.test_access import Book

WEEKLY = {
    "name": "weekly",
    "cron": "0 3 * * 0",
    "retrain": {"cohort": {"name": "c", "missing_values": {"bmi": "complete"}}},
}
AS = {"headers": {"Authorization": "Bearer sci"}}


@pytest.fixture
def schedules(tmp_path: Path) -> Iterator[Schedules]:
    with closing(ControlDatabase.open(f"sqlite:///{tmp_path / 'control.sqlite'}")) as control:
        yield Schedules(control)


@pytest.fixture
def client(schedules: Schedules) -> TestClient:
    app = FastAPI()
    http_errors.install(app)
    app.include_router(schedule_router(schedules, Book()))
    return TestClient(app)


def test_a_schedule_is_added_seen_and_removed(client: TestClient, schedules: Schedules) -> None:
    made = client.post("/v1/schedules", json=WEEKLY, **AS)
    assert made.status_code == 201
    assert made.json()["added_by"] == "sci"
    assert made.json()["next_at"].endswith("T03:00:00Z")
    assert schedules.get("weekly").request["cohort"]["missing_values"] == {"bmi": "complete"}
    schedules.done("weekly", "candidate", "Left as a candidate.", "training-1")
    (seen,) = client.get("/v1/schedules", **AS).json()
    assert (seen["cron"], seen["last_decision"], seen["last_run"]) == ("0 3 * * 0", "candidate", "training-1")
    assert client.post("/v1/schedules", json=WEEKLY, **AS).status_code == 409
    assert client.delete("/v1/schedules/weekly", **AS).status_code == 204
    assert client.get("/v1/schedules", **AS).json() == []
    assert client.delete("/v1/schedules/weekly", **AS).status_code == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"cron": "every day"}, 400),
        ({"name": "no/slash"}, 422),
        ({"retrain": {"release": True, "gate": {}}}, 422),
        ({"retrain": {"cohort": {"name": "c", "locked_test": {"patients": ["a/1"]}}}}, 422),
    ],
)
def test_what_cannot_be_called_is_refused(
    client: TestClient, schedules: Schedules, change: dict[str, object], status: int
) -> None:
    answer = client.post("/v1/schedules", json={**WEEKLY, **change}, **AS)
    assert answer.status_code == status
    assert schedules.all() == []


def test_only_a_scientist_may(client: TestClient) -> None:
    assert client.get("/v1/schedules").status_code == 401
    for call in (client.post("/v1/schedules", json=WEEKLY, headers={"X-API-Key": "app"}),
                 client.delete("/v1/schedules/weekly", headers={"X-API-Key": "app"})):  # fmt: skip
        assert call.status_code == 403
