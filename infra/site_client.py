"""What a site, a scientist or an application sends to the services, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from feature_store.errors import AsdegError, Conflict, NotReady
from infra.case_archive import CaseArchive

TIMEOUT_S = 120.0
KEPT_S = 2.0
"""An idle connection is used again for so long: less than servers keep one (uvicorn 5 s), else a request may go into
one that the server is just closing, and nobody knows whether it was read."""
POLL_S = 0.5
UPLOADS = "/v1/cases/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
PART_BYTES = 8 << 20
TRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 10, 0.25, 30.0
LONGEST_WAIT_S = 50


class RequestRefused(AsdegError):
    """The service answered with an error; its message is the service's own."""


class OffsetMoved(RequestRefused):
    """Another request sent to the upload, or an answer was lost."""


class SiteClient:
    """A caller with one key. Use as a context manager."""

    def __init__(self, url: str, key: str) -> None:
        limits = httpx.Limits(keepalive_expiry=KEPT_S)
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, limits=limits)

    def __enter__(self) -> SiteClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def push_case(
        self,
        case_dir: Path,
        replaced: Mapping[str, bytes] | None = None,
        progress: Callable[[str, float], None] = lambda step, done: None,
    ) -> dict[str, Any]:
        """Send a case folder and wait until it is read; the receipt (see services.ingest.messages.CaseReceipt).

        A broken connection is taken up where it broke; so is the upload of an earlier call that died, and of what is
        there already nothing is sent. ``replaced`` has other contents for files of the folder. Raises RequestRefused.
        """
        archive = CaseArchive(case_dir, dict(replaced or {}))
        digest = archive.sha256(lambda done: progress("looking at it", 0.1 * done / archive.size))
        metadata = f"sha256 {base64.b64encode(digest.encode()).decode()}"
        headers = {**TUS, "Upload-Length": str(archive.size), "Upload-Metadata": metadata}
        where = self._patiently("POST", UPLOADS, headers=headers).headers["Location"]
        became = self._send_parts(where, archive, lambda done: progress("sending", 0.1 + 0.8 * done))
        progress("being read", 0.9)
        receipt = self._receipt(became["case_id"])
        return {**receipt, "unchanged": True} if became["known"] else receipt

    def _send_parts(self, where: str, archive: CaseArchive, progress: Callable[[float], None]) -> dict[str, Any]:
        """Send what is not there yet; what it became (see services.ingest.messages.UploadStatus)."""
        while True:
            answer = self._patiently("HEAD", where, headers=TUS)
            offset = int(answer.headers["Upload-Offset"])
            while offset < archive.size:
                progress(offset / archive.size)
                part = archive.read(offset, PART_BYTES)
                checksum = base64.b64encode(hashlib.sha256(part).digest()).decode()
                headers = {
                    **TUS,
                    "Content-Type": "application/offset+octet-stream",
                    "Upload-Offset": str(offset),
                    "Upload-Checksum": f"sha256 {checksum}",
                }
                try:
                    self._patiently("PATCH", where, content=part, headers=headers)
                except OffsetMoved:  # an answer was lost, or bytes were
                    break
                offset += len(part)
            else:
                became: dict[str, Any] = self._patiently("GET", where).json()
                while became["state"] == "complete":  # a large one is being unpacked
                    time.sleep(POLL_S)
                    became = self._patiently("GET", where).json()
                if became["refused"]:
                    raise RequestRefused(
                        f"{became['refused']['error']}: {became['refused']['message']}",
                        action=became["refused"]["action"],
                    )
                return became

    def _receipt(self, case_id: str) -> dict[str, Any]:
        while True:
            report = self._patiently("GET", f"/v1/cases/{case_id}", params={"wait": LONGEST_WAIT_S}).json()
            if report["state"] != "received":
                receipt: dict[str, Any] = report["receipt"]
                return receipt

    def put_outcome(self, case_id: str, measurements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Send follow-up measurements; the label that follows from them."""
        return self._send("PUT", f"/v1/cases/{case_id}/outcome", json=[dict(row) for row in measurements])

    def run(self, kind: str, request: Mapping[str, Any], waiting: Callable[[float], None]) -> dict[str, Any]:
        """Start a selection or training run and wait for its end; ``waiting(seconds so far)`` meanwhile.

        Raises Conflict where the run failed.
        """
        path = f"/v1/{kind}-runs"
        run_id = self._send("POST", path, json=dict(request))["run_id"]
        start = time.monotonic()
        while (status := self._send("GET", f"{path}/{run_id}"))["state"] == "running":
            waiting(time.monotonic() - start)
            time.sleep(POLL_S)
        if status["state"] != "finished":
            raise Conflict(f"The {kind} run ended as {status['state']}: {status['error']}", action="`asdeg runs`")
        return status

    def release(self, run_id: str, reason: str) -> list[dict[str, Any]]:
        """Release the signatures of a run."""
        lines: list[dict[str, Any]] = self._send("POST", "/v1/releases", json={"run_id": run_id, "reason": reason})
        return lines

    def score(self, signature: str, site: str, patient_id: str) -> dict[str, Any]:
        """Ask for a risk; ``signature`` is rad-sign, dl-sign or combined."""
        return self._send("POST", f"/v1/scores/{signature}", json={"site": site, "patient_id": patient_id})

    def _send(self, method: str, path: str, **request: Any) -> Any:
        return self._ask(method, path, **request).json()

    def _patiently(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Asked again, later and later, where the services are away for a while or say that it is too much at once."""
        for attempt in range(TRIES):
            try:
                return self._ask(method, path, **request)
            except NotReady:
                if attempt == TRIES - 1:
                    raise
            time.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))
        raise AssertionError("the last try raises")

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise NotReady(
                f"The services do not answer ({type(error).__name__}).", action="Start them with `asdeg serve`."
            ) from error
        if answer.is_success:
            return answer
        if answer.status_code in (429, 502, 503, 504):
            raise NotReady(f"The services are busy ({answer.status_code}).", action="Try again later.")
        if answer.status_code == 409 and method == "PATCH":
            raise OffsetMoved("The upload ends somewhere else.")
        try:
            body = answer.json()
            raise RequestRefused(f"{body['error']}: {body['message']}", action=body.get("action", ""))
        except (ValueError, KeyError, TypeError):
            raise RequestRefused(f"{method} {path} was answered with {answer.status_code}.") from None
