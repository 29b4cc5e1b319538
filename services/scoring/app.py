"""Routes of the scoring service, with the health of the whole door."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Response
from starlette.concurrency import run_in_threadpool

from services import http_errors
from services.access import APPLICATION, SCIENTIST, SITE, Credential, KeyBook, allow, check_site
from services.scoring.handler import ScoringHandler
from services.scoring.messages import Readiness, ScoreAnswer, ScoreRequest


def build_app(
    handler: ScoringHandler,
    book: KeyBook,
    *,
    routers: tuple[APIRouter, ...] = (),
    openapi: Callable[[], dict[str, Any]] | None = None,
) -> FastAPI:
    """The FastAPI application at the door's root.

    ``routers`` are routes that are served beside the scores; ``openapi`` gives the document of all
    services, which /docs shows.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        handler.log.start()
        yield
        await run_in_threadpool(handler.log.close)

    app = FastAPI(title="asdeg scoring", description="Scores out. For research use only.", lifespan=lifespan)
    http_errors.install(app)
    askers = allow(book, SITE, APPLICATION, SCIENTIST)

    def score(kind: str, request: ScoreRequest, caller: Credential) -> ScoreAnswer:
        check_site(caller, request.site)
        return handler.score(kind, request.site, request.patient_id, asked_by=caller.name)

    @app.post("/v1/scores/rad-sign", tags=["scoring"], responses=http_errors.RESPONSES)
    def rad_sign(request: ScoreRequest, caller: Annotated[Credential, Depends(askers)]) -> ScoreAnswer:
        """Risk by the radiomics signature."""
        return score("rad", request, caller)

    @app.post("/v1/scores/dl-sign", tags=["scoring"], responses=http_errors.RESPONSES)
    def dl_sign(request: ScoreRequest, caller: Annotated[Credential, Depends(askers)]) -> ScoreAnswer:
        """Risk by the signature of 3D ViT embeddings."""
        return score("dl", request, caller)

    @app.post("/v1/scores/combined", tags=["scoring"], responses=http_errors.RESPONSES)
    def combined(request: ScoreRequest, caller: Annotated[Credential, Depends(askers)]) -> ScoreAnswer:
        """Risk by the combined model: both signatures and the clinical variables."""
        return score("combined", request, caller)

    @app.get("/v1/scores/{score_id}", tags=["scoring"], responses=http_errors.RESPONSES)
    def get_score(score_id: str, caller: Annotated[Credential, Depends(askers)]) -> ScoreAnswer:
        """An answer that was given before."""
        answer = handler.answer(score_id)
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
