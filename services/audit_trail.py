"""Every push and read over HTTP goes into the audit log before it is answered: no record, no answer."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feature_store.audit import OK, Act

READ = ("GET", "HEAD")


class Recorder(Protocol):
    """The audit log, as far as it is needed here."""

    def record(self, by: Any, *acts: Act) -> object: ...


class AuditTrail:
    """Records requests that came with a known key: who, the route's pattern, which case, how it ended.

    Routes say which case it was about in ``request.state.about`` (site, patient, case), which run in
    ``request.state.run_id``, or that they have kept a record of their own (``request.state.recorded``). What a caller
    wrote into the path is not recorded. Parts of an upload, and questions for its offset, are not either: its end is.
    """

    def __init__(self, app: ASGIApp, log: Recorder) -> None:
        self.app, self._log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})

        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.start" and (caller := state.get("caller")) is not None:
                act = _act(scope, state, message["status"])
                if act is not None:
                    await run_in_threadpool(self._log.record, caller, act)
            await send(message)

        await self.app(scope, receive, recorded)


def _act(scope: Scope, state: dict[str, Any], status: int) -> Act | None:
    method, path = scope["method"], getattr(scope.get("route"), "path", "")
    about = state.get("about")
    if state.get("recorded"):
        return None
    if method in ("HEAD", "PATCH") and status < 400 and about is None:
        return None
    site, patient_id, case_id = about or (state["caller"].site, None, None)
    run = {"run_id": state["run_id"]} if "run_id" in state else {}
    return Act(
        "read" if method in READ else "push",
        site=site,
        patient_id=patient_id,
        case_id=case_id,
        outcome=state.get("outcome", OK if status < 400 else str(status)),
        details={"route": f"{method} {path}", "status": status, **run},
    )
