"""Routes of the scoring service, with the health of the whole door."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from services import http_errors
from services.access import APPLICATION, SCIENTIST, SITE, Credential, KeyBook, allow, check_site
from services.audit_trail import AuditTrail, Recorder
from services.scoring.handler import ScoringHandler
from services.scoring.messages import Readiness, ScoreAnswer, ScoreRequest


def build_app(
    handler: ScoringHandler,
    book: KeyBook,
    audit: Recorder,
    *,
    routers: tuple[APIRouter, ...] = (),
    openapi: Callable[[], dict[str, Any]] | None = None,
) -> FastAPI:
    """The FastAPI application at the door's root.

    ``routers`` are routes that are served beside the scores; ``openapi`` gives the document of all
    services, which /docs shows. A score is on record among the scores, everything else in the ``audit`` log.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        handler.log.start()
        yield
        await run_in_threadpool(handler.log.close)

    app = FastAPI(title="asdeg scoring", description="Scores out. For research use only.", lifespan=lifespan)
    app.add_middleware(AuditTrail, log=audit)
    http_errors.install(app)
    askers = allow(book, SITE, APPLICATION, SCIENTIST)

    def score(kind: str, asked: ScoreRequest, request: Request, caller: Credential) -> ScoreAnswer:
        check_site(caller, asked.site)
        answer = handler.score(kind, asked.site, asked.patient_id, asked_by=caller.name)
        request.state.recorded = True
        return answer

    @app.post("/v1/scores/rad-sign", tags=["scoring"], responses=http_errors.RESPONSES)
    def rad_sign(asked: ScoreRequest, request: Request, caller: Annotated[Credential, Depends(askers)]) -> ScoreAnswer:
        """Risk by the radiomics signature."""
        return score("rad", asked, request, caller)

    @app.post("/v1/scores/dl-sign", tags=["scoring"], responses=http_errors.RESPONSES)
    def dl_sign(asked: ScoreRequest, request: Request, caller: Annotated[Credential, Depends(askers)]) -> ScoreAnswer:
        """Risk by the signature of 3D ViT embeddings."""
        return score("dl", asked, request, caller)

    @app.post("/v1/scores/combined", tags=["scoring"], responses=http_errors.RESPONSES)
    def combined(asked: ScoreRequest, request: Request, caller: Annotated[Credential, Depends(askers)]) -> ScoreAnswer:
        """Risk by the combined model: both signatures and the clinical variables."""
        return score("combined", asked, request, caller)

    @app.get("/v1/scores/{score_id}", tags=["scoring"], responses=http_errors.RESPONSES)
    def get_score(score_id: str, request: Request, caller: Annotated[Credential, Depends(askers)]) -> ScoreAnswer:
        """An answer that was given before, and whether its case was corrected or withdrawn since."""
        answer = handler.answer(score_id)
        request.state.about = (answer.site, answer.patient_id, None)
        check_site(caller, answer.site)
        return answer

    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], responses={503: {"model": Readiness}})
    def readyz(response: Response) -> Readiness:
        """The store can be read; `signatures` says what is released (nothing yet is ready, too)."""
        readiness = handler.readiness()
        response.status_code = 200 if readiness.ready else 503
        return readiness

    for router in routers:
        app.include_router(router)
    if openapi is not None:
        app.openapi = openapi  # type: ignore[method-assign]
    return app
