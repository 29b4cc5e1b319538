"""STOW-RS as the standard says it, and what is refused."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from feature_store.errors import ArchiveError
from services.ingest.dicom.related import RelatedParts, boundary_of
from services.ingest.dicom.statuses import ELEMENTS_DISCARDED, NO_MATCH, OTHER_STUDY
from tests.services.dicom.doors import BOUNDARY, SITE, Doors, related, stow
from tests.services.dicom.studies import PATIENT, as_file, ct_study, ct_with_mask


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Doors:
    return Doors(tmp_path_factory.mktemp("stow"), instance_limit=100_000)


@pytest.fixture(scope="module")
def url(doors: Doors) -> Iterator[str]:
    with doors.over_http() as url:
        yield url


@pytest.fixture(scope="module")
def key(doors: Doors) -> str:
    return doors.key()


def answered(response: httpx.Response) -> Dataset:
    assert response.headers["content-type"] == "application/dicom+json"
    return Dataset.from_json(response.json())


def test_a_study_is_kept_and_answered_instance_by_instance(doors: Doors, url: str, key: str) -> None:
    study = ct_with_mask("SECRET-1")
    response = stow(url, key, related(study), "/studies/1.2.3")
    assert response.status_code == 200
    kept = answered(response).ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in kept] == [one.SOPInstanceUID for one in study]
    (case,) = doors.staging.cases()
    assert len(case.names()) == 7
    assert stow(url, key, related(study)).status_code == 200  # the same again
    assert len(case.names()) == 7
    (listed,) = httpx.get(url, headers={"X-API-Key": key}).json()
    assert (listed["instances"], listed["assembled"]) == (7, False)
    assert response.headers["asdeg-cases"] == listed["case_id"]
    done = httpx.post(f"{url}/studies/1.2.3/complete", headers={"X-API-Key": key}, timeout=30)
    assert (done.json()["state"], done.json()["rois"]) == ("validated", 3)
    assert httpx.get(url, headers={"X-API-Key": key}).json()[0]["assembled"]
    assert httpx.post(f"{url}/studies/1.2.99/complete", headers={"X-API-Key": key}).status_code == 404


def test_some_refused_is_202_and_all_refused_409(url: str, key: str) -> None:
    burned, fine = ct_study("SECRET-2")[:2]
    burned.BurnedInAnnotation = "YES"
    response = stow(url, key, related([fine, burned]))
    assert response.status_code == 202
    answer = answered(response)
    assert [item.ReferencedSOPInstanceUID for item in answer.FailedSOPSequence] == [burned.SOPInstanceUID]
    assert "DeidentificationRefused" in response.headers["warning"]
    alone = stow(url, key, related([burned]))
    assert alone.status_code == 409
    assert "ReferencedSOPSequence" not in answered(alone)
    other = stow(url, key, related([fine]), "/studies/1.2.4")
    assert (other.status_code, answered(other).FailedSOPSequence[0].FailureReason) == (409, OTHER_STUDY)
    report = ct_study()[0]
    report.Modality = "SR"
    discarded = stow(url, key, related([report]))
    assert discarded.status_code == 202
    assert answered(discarded).ReferencedSOPSequence[0].WarningReason == ELEMENTS_DISCARDED
    for text in (response.text, str(response.headers), alone.text):
        assert "SECRET" not in text


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda body: body.replace(b"DICM", b"XXXX"), 409),
        (lambda body: body[: len(body) // 2], 422),
        (lambda body: b"", 422),
        (lambda body: body.replace(BOUNDARY.encode(), b"another"), 422),
        (lambda body: body.replace(b"application/dicom", b"application/pdf  "), 409),
        (lambda body: body.replace(b"\r\n\r\n", b"\r\n\r\n" + bytes(200_000), 1), 413),
    ],
)
def test_a_broken_body_is_a_4xx(url: str, key: str, change: object, status: int) -> None:
    response = stow(url, key, change(related(ct_study("SECRET-3")[:1])))  # type: ignore[operator]
    assert response.status_code == status
    assert "SECRET" not in response.text
    if status == 409:
        assert answered(response).OtherFailuresSequence[0].FailureReason >= NO_MATCH


def test_who_may(doors: Doors, url: str, key: str) -> None:
    body = related(ct_study("SECRET-4")[:1])
    kind = {"Content-Type": f"multipart/related; type=application/dicom; boundary={BOUNDARY}"}
    assert httpx.post(f"{url}/studies", content=body, headers=kind).status_code == 401
    assert stow(url, "wrong", body).status_code == 401
    basic = base64.b64encode(f"any:{key}".encode()).decode()
    assert (
        httpx.post(f"{url}/studies", content=body, headers=kind | {"Authorization": f"Basic {basic}"}).status_code
        == 200
    )
    assert stow(url, doors.control.add_credential("app", "application"), body).status_code == 403
    keyless = stow(url, doors.control.add_credential("c", "site", "site_c"), body)
    assert (keyless.status_code, keyless.json()["error"]) == (422, "SettingsError")
    assert stow(url, key, body, kind="application/dicom+xml").status_code == 415
    assert httpx.post(f"{url}/studies", content=body, headers={"X-API-Key": key}).status_code == 415


def test_another_site_sees_and_completes_nothing_of_it(doors: Doors, url: str, key: str) -> None:
    stow(url, key, related(ct_study("SECRET-5", study="1.2.55")[:1]))
    other = {"X-API-Key": doors.key("b", "site_b")}
    assert httpx.get(url, headers=other).json() == []
    assert httpx.post(f"{url}/studies/1.2.55/complete", headers=other).status_code == 404


def test_a_site_that_sends_much_leaves_places_for_the_others(doors: Doors, url: str, key: str) -> None:
    (image,) = ct_study("SECRET-8", slices=1)
    other = {"X-API-Key": doors.key("other", "site_b")}
    with ExitStack() as under_way:
        for _ in range(7):
            under_way.enter_context(doors.at_once.place(SITE))
        for _ in range(3):  # whatever came of it, its place is free again when it is answered
            assert stow(url, key, related([image])).status_code == 200
            assert stow(url, key, b"no instance").status_code == 422
        under_way.enter_context(doors.at_once.place(SITE))
        refused = stow(url, key, related([image]))
        assert (refused.status_code, refused.json()["error"]) == (429, "TooMuchAtOnce")
        assert int(refused.headers["retry-after"]) > 0
        assert httpx.get(url, headers={"X-API-Key": key}).status_code == 429
        assert httpx.get(url, headers=other).status_code == 200
    assert stow(url, key, related([image])).status_code == 200
    assert "TooMuchAtOnce" not in {entry.outcome for entry in doors.audit.entries()}


def test_a_body_without_instances_is_small(url: str) -> None:
    for content in (b" " * (1 << 20) + b"{}", iter([b" " * 1024] * 1025)):  # whether it says how long it is or not
        answer = httpx.post(f"{url}/studies/1.2.3/complete", content=content)
        assert (answer.status_code, answer.json()["error"]) == (413, "BodyTooLarge")


def test_every_push_and_read_is_on_record_once(doors: Doors, url: str) -> None:
    key = {"X-API-Key": doors.key("recorded")}
    stow(url, key["X-API-Key"], related(ct_study("SECRET-6", study="1.2.66")))
    (nobodys,) = ct_study("SECRET-7", slices=1)
    nobodys.PatientID = ""
    stow(url, key["X-API-Key"], related([nobodys]))
    httpx.get(url, headers=key)
    httpx.post(f"{url}/studies/1.2.66/complete", headers=key, timeout=60)
    httpx.post(f"{url}/studies/1.2.67/complete", headers=key)
    found = [one for one in doors.audit.entries() if one.name == "recorded"]
    assert [(one.action, one.site, bool(one.case_id), one.outcome) for one in found] == [
        ("push", SITE, True, "ok"),
        ("push", SITE, False, "InstanceRefused"),
        ("read", SITE, False, "ok"),
        ("push", SITE, True, "ok"),
        ("push", SITE, False, "NotFound"),
    ]
    assert "SECRET" not in str(found)
    assert "1.2.6" not in str(found)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=90), min_size=1, max_size=4), st.lists(st.integers(1, 60), max_size=30), st.booleans()
)
def test_parts_come_out_whole_wherever_the_body_is_cut(contents: list[bytes], cuts: list[int], early: bool) -> None:
    body = b"\r\n" * early
    for content in contents:
        body += f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\nX: y\r\n\r\n".encode() + content + b"\r\n"
    body += f"--{BOUNDARY}--".encode()
    found: list[tuple[str, bytes]] = []
    parts = RelatedParts(BOUNDARY.encode(), lambda kind, file: found.append((kind, file.read())), 10**6, "")
    for cut in [*cuts, len(body)]:
        parts.feed(body[:cut])
        body = body[cut:]
        if not body:
            break
    parts.finish()
    assert found == [("application/dicom", content) for content in contents]


def test_a_body_that_ends_in_the_middle_says_so() -> None:
    parts = RelatedParts(b"b", lambda kind, file: None, 10, "")
    parts.feed(b"--b\r\n\r\nabc\r\n--b\r\n\r\nab")
    with pytest.raises(ArchiveError):
        parts.finish()
    parts.close()
    assert boundary_of('multipart/related; boundary="x y"; type="application/dicom"') == b"x y"


def test_parts_are_received_in_files_without_a_name(tmp_path: Path) -> None:
    seen: list[int] = []

    def take(kind: str, file: io.IOBase) -> None:
        seen.append(len(list(tmp_path.iterdir())))
        assert pydicom.dcmread(file).PatientID == PATIENT  # type: ignore[arg-type]

    parts = RelatedParts(BOUNDARY.encode(), take, 10**6, str(tmp_path))  # type: ignore[arg-type]
    body = related(ct_study()[:2])
    parts.feed(body[: len(as_file(ct_study()[0])) // 2])
    assert list(tmp_path.iterdir()) == []
    parts.feed(body[len(as_file(ct_study()[0])) // 2 :])
    assert seen == [0, 0]
