"""Routes of the training service."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from feature_store.errors import NotReady
from services import http_errors
from services.access import SCIENTIST, Credential, KeyBook, allow
from services.audit_trail import AuditTrail, Recorder
from services.run_routes import run_router
from services.runs import RunAccepted
from services.training.handler import TrainingHandler
from services.training.messages import TrainRequest
from services.training.scheduler import Scheduler


def build_app(
    handler: TrainingHandler,
    book: KeyBook,
    audit: Recorder,
    background: Callable[[str], None],
    scheduler: Scheduler | None = None,
) -> FastAPI:
    """The FastAPI application; ``background(run_id)`` has the run carried out elsewhere and returns at once.

    Every push and read is on record in the ``audit`` log. ``scheduler`` calls for as long as the application is up.
    """

    @asynccontextmanager
    async def up(_: FastAPI) -> AsyncIterator[None]:
        if scheduler is not None:
            await run_in_threadpool(scheduler.start)
        yield
        if scheduler is not None:
            scheduler.stop()

    app = FastAPI(title="asdeg training", description="Signatures from features. For research use only.", lifespan=up)
    app.add_middleware(AuditTrail, log=audit)
    http_errors.install(app)
    app.include_router(run_router(handler, book))
    scientist = allow(book, SCIENTIST)

    @app.post("/v1/training-runs", status_code=202, tags=["training"], responses=http_errors.RESPONSES)
    def train(asked: TrainRequest, request: Request, caller: Annotated[Credential, Depends(scientist)]) -> RunAccepted:
        """Freeze the cohort and train in the background; follow it by the run id."""
        request.state.run_id = run_id = handler.begin(asked)
        background(run_id)
        return RunAccepted(run_id=run_id)

    @app.get("/v1/training-runs/{run_id}/report", tags=["training"], responses=http_errors.RESPONSES)
    def report(run_id: str, request: Request, caller: Annotated[Credential, Depends(scientist)]) -> Response:
        """The report, one self-contained HTML file."""
        html = handler.report_file(run_id, "report.html")
        request.state.run_id = run_id  # it exists, or that would have raised
        if html is None:
            raise NotReady("This run has no report.", action="Wait until it has finished.")
        return Response(html, media_type="text/html")

    return app
