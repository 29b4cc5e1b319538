"""Routes of cases: where they are on their way, what is said of their images, and taking one back."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from feature_store.control import CaseState
from feature_store.vocabulary import PRIMARY_SEGMENTATION
from services import http_errors
from services.access import SCIENTIST, SITE, Credential, KeyBook, allow
from services.ingest.case_access import own_case, read_site
from services.ingest.handler import RECEIVED, IngestHandler
from services.ingest.messages import CasePage, CaseReport, CaseStatus, QualityVerdict, Withdrawal

POLL_S = 0.1
MOST_WAIT_S = 60
USUAL_PAGE, LARGEST_PAGE = 100, 1000
After = Annotated[
    str, Query(pattern=r"^([0-9a-f]{16})?$", description="the case whose followers are wanted; `next` has it")
]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="cases of a page")]
Wait = Annotated[int, Query(ge=0, le=MOST_WAIT_S, description="seconds to wait for the next state")]
Past = Annotated[
    list[Literal["received", "validated"]] | None,
    Query(max_length=2, description="states to wait for the end of  [default: received]"),
]


def case_router(handler: IngestHandler, book: KeyBook) -> APIRouter:
    """GET /v1/cases and what lies below a case."""
    router = APIRouter(tags=["ingest"], responses=http_errors.RESPONSES)
    readers = allow(book, SITE, SCIENTIST)
    readable, own = own_case(handler, book, SITE, SCIENTIST), own_case(handler, book, SITE)

    @router.get("/v1/cases")
    def list_cases(
        caller: Annotated[Credential, Depends(readers)], after: After = "", limit: Limit = USUAL_PAGE
    ) -> CasePage:
        """The caller's cases (a scientist's: everybody's) and where they are on their way, in pages.

        Ask for `next` until it is null: who does has had each case that was there at the beginning exactly once.
        """
        found = handler.cases_after(after, limit + 1, read_site(caller))  # one more shows whether there are more
        more = f"/v1/cases?after={found[limit - 1].case_id}&limit={limit}" if len(found) > limit else None
        return CasePage(cases=found[:limit], next=more)

    @router.get("/v1/cases/{case_id}")
    async def get_case(case: Annotated[CaseState, Depends(readable)], wait: Wait = 0, past: Past = None) -> CaseReport:
        """Where a case is on its way: received, validated, extracted, or rejected with reasons.

        `wait=30` answers as soon as it is no longer received, or after 30 seconds;
        `wait=60&past=received&past=validated` waits for its features.
        """
        return await followed(handler, case.case_id, wait, past)

    @router.post("/v1/cases/{case_id}/withdrawal")
    def withdraw_case(request: Request, withdrawal: Withdrawal, case: Annotated[CaseState, Depends(own)]) -> CaseStatus:
        """Take a case back: nothing of it counts from now on; what had used it is flagged. It may be pushed again."""
        return handler.withdraw(case.case_id, withdrawal.reason, request.state.caller.name)

    @router.get("/v1/cases/{case_id}/quality")
    def get_quality(case: Annotated[CaseState, Depends(readable)]) -> list[QualityVerdict]:
        """What quality control says of each image and region of a case, worst first."""
        return handler.quality.verdicts(case.site, case.case_id)

    @router.get(
        "/v1/cases/{case_id}/overlays/{sequence}.png",
        responses={200: {"content": {"image/png": {}}}},
        response_class=Response,
    )
    def get_overlay(
        sequence: str, case: Annotated[CaseState, Depends(readable)], segmentation: str = PRIMARY_SEGMENTATION
    ) -> Response:
        """The picture of a series: slices, contours, verdict and reasons."""
        return Response(handler.quality.overlay(case.case_id, sequence, segmentation), media_type="image/png")

    return router


async def followed(handler: IngestHandler, case_id: str, wait: int, past: Sequence[str] | None = None) -> CaseReport:
    """The case once it is past the states ``past`` (default: received), or as it is after ``wait`` seconds."""
    over = time.monotonic() + wait
    while True:
        report = await run_in_threadpool(handler.case, case_id)
        if report.state not in (past or [RECEIVED]) or time.monotonic() >= over:
            return report
        await asyncio.sleep(POLL_S)
