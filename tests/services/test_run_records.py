"""Runs and reports over HTTP: whoever begins, reads or stops one is on record, with the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from feature_store.audit import AuditLog
from infra.bootstrap import House
from services.runs import Run
from services.selection import app as selection
from services.training import app as training
from services.training.handler import ARTEFACTS, REPORT
from tests.services.door import make_keys, settings_of
from tests.services.study_store import COHORT, STUDY, study_store

ASKED = {"cohort": COHORT.model_dump(mode="json"), "study": STUDY.model_dump(mode="json")}


@pytest.fixture
def house(tmp_path: Path) -> House:
    settings = settings_of(tmp_path)
    study_store(Path(settings.store), patients=6)
    return House.open(settings)


def test_every_push_and_every_read_of_a_run_is_on_record(house: House) -> None:
    keys = {name: {"X-API-Key": key} for name, key in make_keys(house).items()}
    audit, begun = AuditLog(house.control), list[str]()
    trained = TestClient(training.build_app(house.training, house.control, audit, begun.append))
    selected = TestClient(selection.build_app(house.selection, house.control, audit, begun.append))
    before = audit.verify().number
    scientist = keys["scientist"]

    run = trained.post("/v1/training-runs", headers=scientist, json=ASKED).json()["run_id"]
    assert trained.get(f"/v1/training-runs/{run}/report", headers=scientist).status_code == 409
    page = house.store.blobs.put_bytes(ARTEFACTS, b"<html>")
    Run.resume(house.store, run).finish({f"{REPORT}report.html": page}, {})
    assert trained.get(f"/v1/training-runs/{run}/report", headers=scientist).text == "<html>"
    assert trained.get(f"/v1/training-runs/{run}", headers=scientist).status_code == 200
    assert trained.get("/v1/training-runs", headers=scientist).status_code == 200
    assert trained.get("/v1/training-runs/Jane-Doe/report", headers=scientist).status_code == 404
    assert trained.get(f"/v1/training-runs/{run}/report", headers=keys["site_a"]).status_code == 403
    assert trained.post(f"/v1/training-runs/{run}/cancel", headers=scientist).status_code == 409
    selection_run = selected.post("/v1/selection-runs", headers=scientist, json=ASKED).json()["run_id"]
    assert selected.get(f"/v1/selection-runs/{selection_run}", headers=scientist).status_code == 200
    assert trained.get("/v1/training-runs").status_code == 401  # of whom nobody knows there is nothing to record
    assert begun == [run, selection_run]

    found = [entry for entry in audit.entries() if entry.number > before]
    one = "/v1/training-runs/{run_id}"
    assert [(e.name, e.action, e.outcome, e.details["route"], e.details.get("run_id")) for e in found] == [
        ("scientist", "push", "ok", "POST /v1/training-runs", run),
        ("scientist", "read", "NotReady", f"GET {one}/report", run),
        ("scientist", "read", "ok", f"GET {one}/report", run),
        ("scientist", "read", "ok", f"GET {one}", run),
        ("scientist", "read", "ok", "GET /v1/training-runs", None),
        ("scientist", "read", "NotFound", f"GET {one}/report", None),
        ("site_a", "read", "AccessDenied", f"GET {one}/report", None),
        ("scientist", "push", "NotReady", f"POST {one}/cancel", None),
        ("scientist", "push", "ok", "POST /v1/selection-runs", selection_run),
        ("scientist", "read", "ok", "GET /v1/selection-runs/{run_id}", selection_run),
    ]
    assert "Jane" not in str(found)


def test_no_record_no_report(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    key = {"X-API-Key": make_keys(house)["scientist"]}
    app = training.build_app(house.training, house.control, AuditLog(house.control), lambda _: None)

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(AuditLog, "record", broken)
    answer = TestClient(app, raise_server_exceptions=False).get("/v1/training-runs", headers=key)
    assert (answer.status_code, answer.json()["error"]) == (500, "InternalError")
