"""Routes of the selection service."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from services import http_errors
from services.access import SCIENTIST, Credential, KeyBook, allow
from services.audit_trail import AuditTrail, Recorder
from services.run_routes import run_router
from services.runs import RunAccepted
from services.selection.handler import SelectionHandler
from services.selection.messages import SelectRequest


def build_app(handler: SelectionHandler, book: KeyBook, audit: Recorder, background: Callable[[str], None]) -> FastAPI:
    """The FastAPI application; ``background(run_id)`` has the run carried out elsewhere and returns at once.

    Every push and read is on record in the ``audit`` log.
    """
    app = FastAPI(title="asdeg selection", description="Selectors from features. For research use only.")
    app.add_middleware(AuditTrail, log=audit)
    http_errors.install(app)
    app.include_router(run_router(handler, book))
    scientist = allow(book, SCIENTIST)

    @app.post("/v1/selection-runs", status_code=202, tags=["selection"], responses=http_errors.RESPONSES)
    def select(
        asked: SelectRequest, request: Request, caller: Annotated[Credential, Depends(scientist)]
    ) -> RunAccepted:
        """Freeze the cohort and fit the selectors in the background; follow it by the run id."""
        request.state.run_id = run_id = handler.begin(asked)
        background(run_id)
        return RunAccepted(run_id=run_id)

    return app
