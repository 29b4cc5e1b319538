"""Uploads over real HTTP: in one piece, resumed, repeated, too large, cut off, and across killed servers."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tusclient.client import TusClient

from feature_store.errors import Conflict, LeaseLost, StoreError
from feature_store.leases import Leases
from infra import site_client
from infra.bootstrap import House
from pipelines.phantom import PhantomCohort
from services.ingest import handler
from tests.services.door import Door, DoorProcess, make_keys, open_door, packed, settings_of, waiting

UPLOADS = "/v1/cases/uploads"
PART = {"Content-Type": "application/offset+octet-stream", "Tus-Resumable": "1.0.0"}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door"), upload_limit_mb=16, site_quota_mb=64) as door:
        yield door


def coded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def begin(door: Door, data: bytes, who: str = "site_a", **headers: str) -> str:
    answer = door.call(who, "POST", UPLOADS, headers={"Upload-Length": str(len(data)), **headers})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def patch(door: Door, where: str, offset: int, data: Any, who: str = "site_a", **headers: str) -> httpx.Response:
    return door.call(who, "PATCH", where, content=data, headers={**PART, "Upload-Offset": str(offset), **headers})


def inbox(door: Door) -> list[str]:
    return sorted(path.name for path in door.house.intake.inbox.folder.glob("*"))


def test_every_kind_of_archive_is_the_same_case(door: Door, phantoms: PhantomCohort) -> None:
    folder = phantoms.cases[0].folder
    first = door.push("site_a", folder)
    assert first.status_code == 202
    ticket = first.json()
    assert (ticket["state"], ticket["known"], ticket["receipt"]["findings"]) == ("validated", False, [])
    assert first.headers["location"] == f"/v1/cases/{ticket['case_id']}"
    sequence = door.house.store.snapshot().sequence
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    whole = packed(folder, "w")
    for request in (
        {"content": whole, "headers": {"Content-Type": "application/x-tar"}},
        {"content": whole, "headers": {}},
        {"content": zipped.getvalue(), "headers": {"Content-Type": "application/zip"}},
        {"content": None, "files": {"case": ("case.zip", zipped.getvalue())}, "headers": {}},
        {"content": iter([whole[:1000], whole[1000:]]), "headers": {}},  # chunked, no length announced
    ):
        answer = door.push("site_a", folder, **request)
        assert (answer.status_code, answer.json()["case_id"]) == (202, ticket["case_id"])
        assert answer.json()["receipt"]["unchanged"] or answer.json()["known"]
    assert door.house.store.snapshot().sequence == sequence
    history = door.call("site_a", "GET", f"/v1/cases/{ticket['case_id']}").json()["history"]
    assert history[-1]["state"] == "validated"  # it came again, and stays what it was
    assert inbox(door) == []


def test_the_same_bytes_again_are_not_even_read(door: Door, phantoms: PhantomCohort) -> None:
    case = phantoms.cases[1]
    data = packed(case.folder, "w")
    digest = {"Upload-Metadata": f"sha256 {coded(hashlib.sha256(data).hexdigest())}"}

    def push() -> dict[str, Any]:
        answer = door.call(case.site, "POST", "/v1/cases?wait=60", content=data)
        assert answer.status_code == 202
        return answer.json()

    with ThreadPoolExecutor(4) as pool:  # at once, and again when all is done
        tickets = list(pool.map(lambda _: push(), range(4)))
    tickets.append(push())
    assert len({ticket["case_id"] for ticket in tickets}) == 1
    assert tickets[-1]["known"]
    assert (
        door.house.store.snapshot()
        .table("cases", where={"site": case.site})["case_id"]
        .to_pylist()
        .count(tickets[0]["case_id"])
        == 1
    )
    revisions = door.house.store.snapshot().revisions("cases", where={"site": case.site})
    assert revisions["case_id"].to_pylist().count(tickets[0]["case_id"]) == 1
    where = begin(door, data, case.site, **digest)
    assert patch(door, where, 0, data, case.site).headers["asdeg-case"] == tickets[0]["case_id"]
    assert inbox(door) == []


def test_what_another_door_changed_in_between_is_not_taken_for_known(
    door: Door, phantoms: PhantomCohort, tmp_path: Path
) -> None:
    import shutil

    folder = phantoms.cases[0].folder
    data = packed(folder, "w")
    assert door.push("site_a", folder, content=data).status_code == 202
    corrected = tmp_path / "corrected"
    shutil.copytree(folder, corrected)
    text = (corrected / "case.yaml").read_text()
    (corrected / "case.yaml").write_text(
        text.replace("osteoporosis: false", "osteoporosis: true")
        if "osteoporosis: false" in text
        else text.replace("osteoporosis: true", "osteoporosis: false")
    )
    assert not door.house.ingest.ingest_folder(corrected, "site_a").unchanged  # by command, say
    again = door.push("site_a", folder, content=data).json()
    assert (again["known"], again["receipt"]["unchanged"]) == (False, False)


def test_a_broken_upload_goes_on_where_it_was(door: Door, phantoms: PhantomCohort) -> None:
    case = phantoms.cases[2]
    data = packed(case.folder, "w")
    digest = {"Upload-Metadata": f"filename {coded('x.tar')},sha256 {coded(hashlib.sha256(data).hexdigest())}"}
    where = begin(door, data, case.site, **digest)
    third = len(data) // 3
    first = patch(door, where, 0, data[:third], case.site)
    assert (first.status_code, first.headers["upload-offset"]) == (204, str(third))
    # the connection breaks in the middle of the second part
    _cut_off(door, where, third, data[third : 2 * third], case.site, after=third // 2)
    offset = _offset(door, where, case.site, above=third)
    assert third < offset < 2 * third
    # a part whose checksum is wrong leaves no trace; one at another offset neither
    wrong = {"Upload-Checksum": f"sha256 {coded(hashlib.sha256(b'other').digest())}"}
    assert patch(door, where, offset, data[offset:], case.site, **wrong).status_code == 460
    assert patch(door, where, 0, data, case.site).status_code == 409
    assert _offset(door, where, case.site) == offset
    # who has lost the address finds it again
    assert begin(door, data, case.site, **digest) == where
    assert door.call(case.site, "GET", where).json()["state"] == "open"
    right = {"Upload-Checksum": f"sha256 {coded(hashlib.sha256(data[offset:]).digest())}"}
    last = patch(door, where, offset, data[offset:], case.site, **right)
    assert last.status_code == 204
    case_id = last.headers["asdeg-case"]
    assert door.call(case.site, "GET", f"/v1/cases/{case_id}?wait=60").json()["state"] == "validated"
    became = door.call(case.site, "GET", where).json()
    assert (became["case_id"], became["offset"]) == (case_id, len(data))
    assert door.call(case.site, "HEAD", where).headers["upload-offset"] == str(len(data))
    assert inbox(door) == []


def _offset(door: Door, where: str, who: str, above: int = -1) -> int:
    for _ in range(100):  # the server notices a broken connection in a moment
        answer = door.call(who, "HEAD", where)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        if int(answer.headers["upload-offset"]) > above:
            break
        time.sleep(0.02)
    return int(answer.headers["upload-offset"])


def _cut_off(door: Door, where: str, offset: int, data: bytes, who: str, after: int) -> None:
    host, port = door.url.removeprefix("http://").split(":")
    head = (
        f"PATCH {where} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {door.keys[who]}\r\nTus-Resumable: 1.0.0\r\n"
        f"Content-Type: {PART['Content-Type']}\r\nUpload-Offset: {offset}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + data[:after])


def test_a_tus_client_of_others_pushes_a_case(door: Door, phantoms: PhantomCohort, tmp_path: Path) -> None:
    case = phantoms.cases[3]
    (tmp_path / "case.tar").write_bytes(packed(case.folder, "w"))
    client = TusClient(door.url + UPLOADS, headers={"Authorization": f"Bearer {door.keys[case.site]}"})
    size = (tmp_path / "case.tar").stat().st_size
    uploader = client.uploader(str(tmp_path / "case.tar"), chunk_size=size // 5 + 1, upload_checksum=False)
    uploader.upload(stop_at=size // 2)
    again = client.uploader(str(tmp_path / "case.tar"), url=uploader.url, chunk_size=size // 5 + 1)
    assert 0 < again.offset < size
    again.upload()
    became = door.call(case.site, "GET", uploader.url.removeprefix(door.url)).json()
    assert door.call(case.site, "GET", f"/v1/cases/{became['case_id']}?wait=60").json()["state"] == "validated"


def test_what_the_protocol_refuses(door: Door, phantoms: PhantomCohort) -> None:
    assert door.call("", "OPTIONS", UPLOADS).headers["tus-extension"] == "creation,checksum,expiration,termination"
    data = b"x" * 100
    where = begin(door, data)
    for status, answer in (
        (412, door.call("site_a", "POST", UPLOADS, headers={"Tus-Resumable": "0.2.2", "Upload-Length": "5"})),
        (413, door.call("site_a", "POST", UPLOADS, headers={"Upload-Length": str(17 << 20)})),
        (422, door.call("site_a", "POST", UPLOADS)),
        (422, door.call("site_a", "POST", UPLOADS, headers={"Upload-Length": "-4"})),
        (400, door.call("site_a", "POST", UPLOADS, headers={"Upload-Length": "4", "Upload-Metadata": "sha256 !"})),
        (415, patch(door, where, 0, data, **{"Content-Type": "application/zip"})),
        (422, door.call("site_a", "PATCH", where, content=data, headers=PART)),
        (400, patch(door, where, 0, data, **{"Upload-Checksum": "md4 AAAA"})),
        (422, patch(door, where, 0, data + b"more")),
        (404, patch(door, where, 0, data, "site_b")),
        (404, door.call("site_b", "HEAD", where)),
        (404, door.call("site_b", "GET", where)),
        (404, door.call("site_b", "DELETE", where)),
        (403, door.call("scientist", "POST", UPLOADS, headers={"Upload-Length": "4"})),
        (401, door.call("", "HEAD", where)),
    ):
        assert answer.status_code == status, answer.text
    assert door.call("site_a", "DELETE", where).status_code == 204
    assert door.call("site_a", "HEAD", where).status_code == 404
    where = begin(door, data)
    assert patch(door, where, 0, data).json()["error"] == "ArchiveError"  # it is whole, and no archive
    refused = door.call("site_a", "GET", where).json()
    assert (refused["state"], refused["refused"]["error"]) == ("refused", "ArchiveError")
    assert inbox(door) == []


def test_a_site_may_not_fill_the_disk(door: Door) -> None:
    begun = [begin(door, b"x" * (16 << 20)) for _ in range(4)]
    answer = door.call("site_a", "POST", UPLOADS, headers={"Upload-Length": "1"})
    assert (answer.status_code, answer.json()["error"]) == (429, "TooMuchAtOnce")
    assert answer.headers["retry-after"]
    assert door.call("site_b", "POST", UPLOADS, headers={"Upload-Length": "1"}).status_code == 201
    for where in begun:
        assert door.call("site_a", "DELETE", where).status_code == 204
    assert door.call("site_a", "POST", UPLOADS, headers={"Upload-Length": "1"}).status_code == 201
    # what nobody goes on with goes after a while
    door.house.intake.inbox.hours = -1.0
    assert door.house.intake.inbox.sweep() >= 2
    door.house.intake.inbox.hours = 48.0
    assert inbox(door) == []


def test_an_upload_that_is_no_case(door: Door) -> None:
    sequence = door.house.store.snapshot().sequence
    outside = io.BytesIO()
    with zipfile.ZipFile(outside, "w") as archive:
        archive.writestr("../../case.yaml", "site: site_a")
    nobody = io.BytesIO()
    with zipfile.ZipFile(nobody, "w") as archive:
        archive.writestr("case.yaml", "patient_id: secret-name\nnobody: knows\n")
    for content, kind, status, error in (
        (b"", "", 422, "ArchiveError"),
        (b"no archive at all", "", 422, "ArchiveError"),
        (b"{}", "application/json", 415, "WrongContentType"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "WrongContentType"),
        (b"--x\r\n", "multipart/form-data; boundary=x", 422, "ArchiveError"),
        (b"--x--\r\n", "multipart/form-data", 422, "ArchiveError"),
        (outside.getvalue(), "application/zip", 422, "ArchiveError"),
        (nobody.getvalue(), "application/zip", 422, "ManifestError"),
        (b"\0" * (17 << 20), "application/x-tar", 413, "ArchiveTooLarge"),
        (iter([b"PK" + b"\0" * (1 << 20)] * 17), "application/zip", 413, "ArchiveTooLarge"),
    ):
        headers = {"Content-Type": kind} if kind else {}
        answer = door.call("site_a", "POST", "/v1/cases", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (status, error)
        assert answer.json()["action"]
        assert "secret-name" not in answer.text
    assert door.house.store.snapshot().sequence == sequence
    assert inbox(door) == []


# --- servers that are killed -------------------------------------------------------------------
@pytest.mark.cores
def test_what_was_acknowledged_is_never_lost_and_a_client_goes_on(
    tmp_path: Path, phantoms: PhantomCohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House.open(settings_of(tmp_path), create=True)
    keys = make_keys(house)
    case, other = phantoms.cases[0], phantoms.cases[1]
    monkeypatch.setattr(site_client, "PART_BYTES", 10_000)
    first_sent = threading.Event()

    def push_other() -> dict[str, Any]:
        def progress(_: str, done: float) -> None:
            if done > 0.3:
                first_sent.set()

        with site_client.SiteClient(first.url, keys[other.site]) as client:
            return client.push_case(other.folder, progress=progress)

    with DoorProcess(tmp_path, carries=False) as first, ThreadPoolExecutor(1) as pool:
        door = Door(house, first.url, keys)
        ticket = door.call(case.site, "POST", "/v1/cases", content=packed(case.folder)).json()
        assert ticket["state"] == "received"
        pushed = pool.submit(push_other)
        assert first_sent.wait(60)
        first.kill()
        assert house.store.snapshot().sequence == 0
        with DoorProcess(tmp_path, port=int(first.url.rpartition(":")[2])):
            receipt = pushed.result(timeout=120)
            for site, case_id in ((case.site, ticket["case_id"]), (other.site, receipt["case_id"])):
                report = door.call(site, "GET", f"/v1/cases/{case_id}?wait=60").json()
                assert (report["state"], report["receipt"]["findings"]) == ("validated", [])
                assert [step["state"] for step in report["history"]] == ["received", "validated"]
    assert len(house.store.snapshot().table("cases")) == 2
    uploads = house.intake.inbox.book.in_state("done")
    assert sorted(upload.site for upload in uploads) == sorted([case.site, other.site])  # gone on with, not begun anew
    assert list(house.intake.inbox.folder.iterdir()) == []


def test_a_case_that_brings_its_reader_down_is_given_up_and_one_that_the_store_refuses_is_not(
    tmp_path: Path, phantoms: PhantomCohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_door(tmp_path, carries=False) as door:
        intake, case = door.house.intake, phantoms.cases[0]
        case_id = door.call(case.site, "POST", "/v1/cases", content=packed(case.folder)).json()["case_id"]
        fails: list[BaseException] = [StoreError("full")] * 5 + [RuntimeError("a bug")] * 3

        def ingest_folder(*_: object) -> None:
            raise fails.pop(0)

        monkeypatch.setattr(door.house.ingest, "ingest_folder", ingest_folder)
        while fails:
            with pytest.raises((StoreError, RuntimeError)):
                intake.carry_out(case_id)
            assert door.call(case.site, "GET", f"/v1/cases/{case_id}").json()["state"] == "received"
        assert intake.carry_out(case_id)
        report = door.call(case.site, "GET", f"/v1/cases/{case_id}").json()
        assert (report["state"], report["receipt"]["state"]) == ("rejected", "rejected")
        assert "3 times" in report["reasons"][0]
        assert inbox(door) == []
        monkeypatch.undo()  # sent again, it is tried again
        assert door.call(case.site, "POST", "/v1/cases", content=packed(case.folder)).json()["known"] is False
        intake.carry_out(case_id)
        assert door.call(case.site, "GET", f"/v1/cases/{case_id}").json()["state"] == "validated"


@pytest.mark.cores
def test_memory_does_not_grow_with_the_upload(tmp_path: Path) -> None:
    """256 MB of noise through the door's process: what it takes beyond its start is bounded by its buffers."""
    house = House.open(settings_of(tmp_path), create=True)
    keys = make_keys(house)
    with DoorProcess(tmp_path, carries=False) as process:
        door = Door(house, process.url, keys)
        door.call("site_a", "POST", "/v1/cases", content=b"warm")
        before = process.memory_mb("VmRSS")
        block = os.urandom(1 << 20)
        for _ in range(2):
            answer = door.call("site_a", "POST", "/v1/cases", content=(block for _ in range(128)))
            assert answer.json()["error"] == "ArchiveError"
        assert process.memory_mb() - before < 64


def test_a_complete_upload_is_accepted_by_one_and_by_whoever_comes_after_a_kill(
    door: Door, phantoms: PhantomCohort
) -> None:
    case, intake = phantoms.cases[0], door.house.intake
    data = packed(case.folder, "w") + bytes(512)  # bytes of its own
    upload = intake.inbox.begin(case.site, "pacs", len(data))
    intake.inbox.packed(upload).write_bytes(data)
    upload = intake.inbox.book.complete(intake.inbox.book.advance(upload, len(data)))
    where = f"{UPLOADS}/{upload.upload_id}"
    with Leases(door.house.control).take(f"accept:{upload.upload_id}", "another process", 60):
        assert door.call(case.site, "GET", where).json()["state"] == "complete"
        with pytest.raises(Conflict):
            intake.accept(upload)
    became = door.call(case.site, "GET", where).json()  # that one died: asking is enough
    assert became["case_id"] is not None
    assert door.call(case.site, "GET", f"/v1/cases/{became['case_id']}?wait=60").json()["state"] == "validated"
    with pytest.raises(Conflict):
        intake.accept(upload)


def test_who_loses_the_lease_while_reading_stores_nothing(
    tmp_path: Path, phantoms: PhantomCohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, house = phantoms.cases[0], House.open(settings_of(tmp_path), create=True)
    intake, leases = house.intake, Leases(house.control)
    case_id = waiting(house, case).case_id
    read = handler.read_case

    def slowly(folder: Path) -> Any:
        reading = read(folder)
        leases.release(f"case:{case_id}", str(leases.holder(f"case:{case_id}")))
        assert leases.take(f"case:{case_id}", "another process", 60)
        return reading

    with monkeypatch.context() as patched:
        patched.setattr(handler, "read_case", slowly)
        with pytest.raises(LeaseLost):
            intake.carry_out(case_id)
    assert house.store.snapshot().sequence == 0
    assert list(house.store.blobs.names("images")) == []
    assert not intake.carry_out(case_id)  # the other one is at it
    leases.release(f"case:{case_id}", "another process")
    assert intake.carry_out(case_id)
    assert house.ingest.case(case_id).state == "validated"


def test_two_requests_to_one_upload_do_not_mix(door: Door) -> None:
    data = os.urandom(3 << 20)
    where = begin(door, data)
    release = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield data[: 1 << 20]
        release.wait(10)
        yield data[1 << 20 : 2 << 20]

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(
            lambda: httpx.patch(
                door.url + where,
                content=slowly(),
                timeout=30,
                headers={**PART, "Upload-Offset": "0", "Authorization": f"Bearer {door.keys['site_a']}"},
            )
        )
        for _ in range(100):
            quick = patch(door, where, 0, b"\0" * 10)
            if quick.status_code == 409:
                break
            time.sleep(0.02)
        release.set()
        assert quick.status_code == 409
        assert slow.result().status_code in (204, 409)
    assert door.call("site_a", "DELETE", where).status_code == 204
