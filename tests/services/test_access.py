"""Keys, roles and sites; one body for everything that is no success."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict

from feature_store import errors
from feature_store.errors import AccessDenied, AsdegError, GridMismatch
from services import http_errors
from services.access import APPLICATION, SCIENTIST, SITE, Credential, allow, check_site


@dataclass(frozen=True)
class Known:
    name: str
    role: str
    site: str | None = None


class Book:
    def who(self, key: str) -> Known | None:
        return {"s": Known("pacs", SITE, "a"), "app": Known("app", APPLICATION), "sci": Known("sci", SCIENTIST)}.get(
            key
        )


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")
    age: int


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    http_errors.install(app)
    site_only = allow(Book(), SITE)

    @app.get("/site")
    def site(caller: Credential = Depends(site_only)) -> str:  # noqa: B008
        return caller.name

    @app.post("/age")
    def age(body: Body) -> int:
        return body.age

    @app.get("/fails/{how}")
    def fails(how: str) -> None:
        if how == "named":
            raise GridMismatch("the grids differ.", action="Resample.", file="ct_mask.nii.gz")
        raise ValueError("patient Jane Doe, 1950-01-01")

    return TestClient(app, raise_server_exceptions=True)


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer s"}, {"X-API-Key": "s"}, {"authorization": "bearer s"}])
def test_a_key_travels_in_either_header(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/site", headers=headers).json() == "pacs"


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer nobody"}, {"Authorization": "Basic s"}, {"X-API-Key": ""}]
)
def test_without_a_key_that_somebody_has(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.get("/site", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"] == "KeyRefused"
    assert answer.json()["action"]


def test_another_role_may_not(client: TestClient) -> None:
    answer = client.get("/site", headers={"X-API-Key": "app"})
    assert (answer.status_code, answer.json()["error"]) == (403, "AccessDenied")


def test_whose_site() -> None:
    check_site(Known("pacs", SITE, "a"), "a")
    check_site(Known("sci", SCIENTIST), "a")
    check_site(Known("app", APPLICATION), "a")
    for other in (Known("pacs", SITE, "b"), Known("app", APPLICATION, "b"), Known("odd", SITE)):
        with pytest.raises(AccessDenied):
            check_site(other, "a")


def test_a_named_error_keeps_its_words(client: TestClient) -> None:
    answer = client.get("/fails/named")
    assert answer.status_code == 422
    assert answer.json() == {
        "error": "GridMismatch",
        "message": "the grids differ.",
        "action": "Resample.",
        "file": "ct_mask.nii.gz",
    }


def test_an_unexpected_error_says_nothing_of_the_patient(
    client: TestClient, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/fails/otherwise")
    assert (answer.status_code, answer.json()["error"]) == (500, "InternalError")
    said = answer.text + "".join(capsys.readouterr()) + caplog.text
    assert "Jane" not in said
    assert "ValueError" in said  # the log says what kind, and where


@pytest.mark.parametrize("sent", [{"age": "Jane Doe"}, {"age": 3, "Jane Doe": 1}, ["Jane Doe"]])
def test_a_request_that_breaks_a_rule_is_not_quoted(client: TestClient, sent: object) -> None:
    answer = client.post("/age", json=sent)
    assert (answer.status_code, answer.json()["error"]) == (422, "RequestInvalid")
    assert "Jane" not in answer.text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/site", 405)])
def test_no_such_route(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "message", "action", "file"}


def test_every_error_has_a_status() -> None:
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, AsdegError) and c is not AsdegError
    ]
    assert len(classes) > 25
    without = [cls.__name__ for cls in classes if http_errors.status_of(cls) is None]
    assert without == []
    assert http_errors.status_of(errors.RoiTooSmall) == 422
    assert http_errors.status_of(errors.PartitionConflict) == 409
    assert http_errors.status_of(errors.KeyRefused) == 401
    assert http_errors.status_of(errors.ArchiveTooLarge) == 413
    assert http_errors.status_of(errors.StoreNotFound) == 500
