"""Routes of releases: who may change which signature answers."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
from typing import Annotated

from fastapi import APIRouter, Depends

from services import http_errors
from services.access import APPLICATION, SCIENTIST, SITE, Credential, KeyBook, allow
from services.training.messages import ReleaseEntry, ReleaseRequest
from services.training.releases import Releases


def release_router(releases: Releases, book: KeyBook) -> APIRouter:
    """POST and GET /v1/releases."""
    router = APIRouter(tags=["releases"], responses=http_errors.RESPONSES)
    deciders, readers = allow(book, SCIENTIST), allow(book, SCIENTIST, SITE, APPLICATION)

    @router.post("/v1/releases")
    def change(request: ReleaseRequest, caller: Annotated[Credential, Depends(deciders)]) -> list[ReleaseEntry]:
        """Release a run, roll back, or recall a signature. Answers with the new lines of the history."""
        if request.run_id is not None:
            return releases.release(request.run_id, by=caller.name, reason=request.reason)
        if request.recall is not None:
            return releases.recall(request.recall, by=caller.name, reason=request.reason)
        kind = None if request.rollback == "all" else request.rollback
        return releases.rollback(kind, by=caller.name, reason=request.reason)

    @router.get("/v1/releases")
    def history(caller: Annotated[Credential, Depends(readers)]) -> list[ReleaseEntry]:
        """The whole history; `current` marks what answers now."""
        return releases.entries()

    return router
