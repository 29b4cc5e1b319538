"""Routes that every service of runs has alike: follow a run, and stop it."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from services import http_errors
from services.access import SCIENTIST, Credential, KeyBook, allow
from services.runs import RunHandler, RunStatus


def run_router(handler: RunHandler, book: KeyBook) -> APIRouter:
    """GET /v1/KIND-runs, GET and cancel of one."""
    router = APIRouter(prefix=f"/v1/{handler.kind}-runs", tags=[handler.kind], responses=http_errors.RESPONSES)
    scientist = allow(book, SCIENTIST)

    @router.get("")
    def runs(caller: Annotated[Credential, Depends(scientist)]) -> list[RunStatus]:
        """All runs, oldest first."""
        return handler.runs()

    @router.get("/{run_id}")
    def run(run_id: str, request: Request, caller: Annotated[Credential, Depends(scientist)]) -> RunStatus:
        """State of a run and how far it is; its metrics and artefacts when it has finished."""
        found = handler.status(run_id)
        request.state.run_id = found.run_id
        return found

    @router.post("/{run_id}/cancel", status_code=202)
    def cancel(run_id: str, request: Request, caller: Annotated[Credential, Depends(scientist)]) -> RunStatus:
        """Ask a run to stop; it does at its next step and is then `cancelled`."""
        found = handler.cancel(run_id)
        request.state.run_id = found.run_id
        return found

    return router
