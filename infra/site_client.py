"""What a site, a scientist or an application sends to the services, over HTTP."""

from __future__ import annotations

import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from feature_store.errors import AsdegError, Conflict, NotReady

UPLOAD_IN_MEMORY = 32 << 20
TIMEOUT_S = 120.0
POLL_S = 0.5


class RequestRefused(AsdegError):
    """The service answered with an error; its message is the service's own."""


class SiteClient:
    """A caller with one key. Use as a context manager."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S)

    def __enter__(self) -> SiteClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def push_case(self, case_dir: Path) -> dict[str, Any]:
        """Send a case folder as a tar archive; the receipt (see services.ingest.messages.CaseReceipt)."""
        with tempfile.SpooledTemporaryFile(UPLOAD_IN_MEMORY) as upload:
            with tarfile.open(fileobj=upload, mode="w") as archive:
                archive.add(case_dir, arcname=".")
            upload.seek(0)
            return self._send("POST", "/v1/cases", content=upload, headers={"Content-Type": "application/x-tar"})

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
        try:
            answer = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise NotReady(
                f"The services do not answer ({type(error).__name__}).", action="Start them with `asdeg serve`."
            ) from error
        if answer.is_success:
            return answer.json()
        try:
            body = answer.json()
            raise RequestRefused(f"{body['error']}: {body['message']}", action=body.get("action", ""))
        except (ValueError, KeyError, TypeError):
            raise RequestRefused(f"{method} {path} was answered with {answer.status_code}.") from None
