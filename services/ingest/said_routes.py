"""Routes for what a site says of a case by itself: outcome, clinical variables, surgeons' readings, the surgery's day.

Each is versioned: PUT of what is there already changes nothing, anything else is a new revision, GET shows them all.
"""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
from typing import Annotated

from fastapi import APIRouter, Body, Depends

from feature_store.control import CaseState
from feature_store.errors import Conflict
from feature_store.schemas import CLINICAL, FOLLOW_UP, SURGEON_READS
from pipelines.cases.manifest_schema import Clinical
from services import http_errors
from services.access import SCIENTIST, SITE, KeyBook
from services.ingest.case_access import own_case
from services.ingest.handler import WITHDRAWN, IngestHandler
from services.ingest.messages import (
    DayOfSurgery,
    ImagingDays,
    Measurement,
    OutcomeReceipt,
    Reading,
    Said,
    Versions,
)


def said_router(handler: IngestHandler, book: KeyBook) -> APIRouter:
    """PUT and GET /v1/cases/{case_id}/outcome, /clinical, /reads, /index-date."""
    router = APIRouter(tags=["ingest"], responses=http_errors.RESPONSES)
    readable, own = own_case(handler, book, SITE, SCIENTIST), own_case(handler, book, SITE)

    def standing(case: Annotated[CaseState, Depends(own)]) -> CaseState:
        if case.state == WITHDRAWN:
            raise Conflict("The case was withdrawn: nothing is said of it.", action="Push it again first.")
        return case

    @router.put("/v1/cases/{case_id}/outcome")
    def put_outcome(
        measurements: Annotated[list[Measurement], Body(max_length=10_000)],
        case: Annotated[CaseState, Depends(standing)],
    ) -> OutcomeReceipt:
        """Add follow-up measurements; the answer is the label that follows from all there are."""
        return handler.outcome(case.case_id, measurements)

    @router.get("/v1/cases/{case_id}/outcome")
    def get_outcome(case: Annotated[CaseState, Depends(readable)]) -> Versions:
        """Follow-up measurements as they stand, with every revision."""
        return handler.versions(FOLLOW_UP.name, case)

    @router.put("/v1/cases/{case_id}/clinical")
    def put_clinical(variables: Clinical, case: Annotated[CaseState, Depends(standing)]) -> Said:
        """Replace the clinical variables; what is not named is not known. A repeated push of the case keeps them."""
        return handler.clinical.put(case, variables)

    @router.get("/v1/cases/{case_id}/clinical")
    def get_clinical(case: Annotated[CaseState, Depends(readable)]) -> Versions:
        """Clinical variables as they stand, with every revision."""
        return handler.versions(CLINICAL.name, case)

    @router.put("/v1/cases/{case_id}/reads")
    def put_reads(
        readings: Annotated[list[Reading], Body(max_length=100)], case: Annotated[CaseState, Depends(standing)]
    ) -> Said:
        """Add surgeons' predictions; one of the same surgeon is replaced."""
        return handler.reads.put(case, readings)

    @router.get("/v1/cases/{case_id}/reads")
    def get_reads(case: Annotated[CaseState, Depends(readable)]) -> Versions:
        """Surgeons' predictions as they stand, with every revision."""
        return handler.versions(SURGEON_READS.name, case)

    @router.put("/v1/cases/{case_id}/index-date")
    def put_index_date(day: DayOfSurgery, case: Annotated[CaseState, Depends(standing)]) -> ImagingDays:
        """Say when the surgery was or will be: imaging days are counted from it; no calendar date is kept."""
        return handler.surgery.put(case, day)

    @router.get("/v1/cases/{case_id}/index-date")
    def get_index_date(case: Annotated[CaseState, Depends(readable)]) -> ImagingDays:
        """Imaging days as they stand, with every revision."""
        return handler.surgery.days(case)

    return router
