"""Routes of the ingest service."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import Body, Depends, FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from feature_store.errors import UsageError
from feature_store.vocabulary import PRIMARY_SEGMENTATION
from services import http_errors
from services.access import SCIENTIST, SITE, Credential, KeyBook, allow, check_site
from services.ingest.archive import Limits, unpack_case
from services.ingest.handler import IngestHandler
from services.ingest.messages import CaseReceipt, CaseStatus, Measurement, OutcomeReceipt, QualityVerdict, Withdrawal
from services.ingest.receive import receive

_ARCHIVE_BODY = {
    "requestBody": {
        "required": True,
        "description": "one case folder (case.yaml, images, masks) as .zip, .tar or .tar.gz",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("application/zip", "application/x-tar", "application/gzip", "application/octet-stream")
        },
    }
}


def build_app(handler: IngestHandler, book: KeyBook, limits: Limits, inbox: str = "") -> FastAPI:
    """The FastAPI application; ``inbox`` is the folder uploads are received in (empty: the system's)."""
    app = FastAPI(title="asdeg ingest", description="Cases and outcomes in. For research use only.")
    http_errors.install(app)
    site_only, readers = allow(book, SITE), allow(book, SITE, SCIENTIST)

    @app.post(
        "/v1/cases",
        status_code=202,
        tags=["ingest"],
        responses=http_errors.RESPONSES,
        openapi_extra=_ARCHIVE_BODY,
    )
    async def push_case(request: Request, caller: Annotated[Credential, Depends(site_only)]) -> CaseReceipt:
        """Take a case in. The same case again changes nothing and says `unchanged`."""
        site = _site_of(caller)
        folder = Path(await run_in_threadpool(tempfile.mkdtemp, prefix="asdeg-case-", dir=inbox or None))
        try:
            await receive(request, folder / "upload", limits.packed)
            return await run_in_threadpool(_ingest, handler, folder, site, limits)
        finally:
            await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)

    @app.get("/v1/cases", tags=["ingest"], responses=http_errors.RESPONSES)
    def list_cases(caller: Annotated[Credential, Depends(readers)]) -> list[CaseStatus]:
        """The caller's cases (a scientist's: everybody's) and where they are on their way."""
        return handler.cases(caller.site)

    @app.get("/v1/cases/{case_id}", tags=["ingest"], responses=http_errors.RESPONSES)
    def get_case(case_id: str, caller: Annotated[Credential, Depends(readers)]) -> CaseStatus:
        """Where a case is on its way: received, validated, extracted, or rejected with reasons."""
        status = handler.case(case_id)
        check_site(caller, status.site)
        return status

    @app.post("/v1/cases/{case_id}/withdrawal", tags=["ingest"], responses=http_errors.RESPONSES)
    def withdraw_case(
        case_id: str, withdrawal: Withdrawal, caller: Annotated[Credential, Depends(site_only)]
    ) -> CaseStatus:
        """Take a case back: nothing of it counts from now on; what had used it is flagged. It may be pushed again."""
        check_site(caller, handler.case(case_id).site)
        return handler.withdraw(case_id, withdrawal.reason, caller.name)

    @app.get("/v1/cases/{case_id}/quality", tags=["ingest"], responses=http_errors.RESPONSES)
    def get_quality(case_id: str, caller: Annotated[Credential, Depends(readers)]) -> list[QualityVerdict]:
        """What quality control says of each image and region of a case, worst first."""
        site = handler.case(case_id).site
        check_site(caller, site)
        return handler.quality.verdicts(site, case_id)

    @app.get(
        "/v1/cases/{case_id}/overlays/{sequence}.png",
        tags=["ingest"],
        responses={**http_errors.RESPONSES, 200: {"content": {"image/png": {}}}},
        response_class=Response,
    )
    def get_overlay(
        case_id: str,
        sequence: str,
        caller: Annotated[Credential, Depends(readers)],
        segmentation: str = PRIMARY_SEGMENTATION,
    ) -> Response:
        """The picture of a series: slices, contours, verdict and reasons."""
        check_site(caller, handler.case(case_id).site)
        return Response(handler.quality.overlay(case_id, sequence, segmentation), media_type="image/png")

    @app.put("/v1/cases/{case_id}/outcome", tags=["ingest"], responses=http_errors.RESPONSES)
    def put_outcome(
        case_id: str,
        measurements: Annotated[list[Measurement], Body(max_length=10_000)],
        caller: Annotated[Credential, Depends(site_only)],
    ) -> OutcomeReceipt:
        """Add follow-up measurements; the answer is the label that follows from all there are."""
        check_site(caller, handler.case(case_id).site)
        return handler.outcome(case_id, measurements)

    return app


def _ingest(handler: IngestHandler, folder: Path, site: str, limits: Limits) -> CaseReceipt:
    unpacked = folder / "case"
    unpacked.mkdir()
    case_dir = unpack_case(folder / "upload", unpacked, limits)
    (folder / "upload").unlink()
    return handler.ingest_folder(case_dir, site)


def _site_of(caller: Credential) -> str:
    if not caller.site:
        raise UsageError(
            "This key names no site.", action="Make one with `asdeg keys add NAME --role site --site SITE`."
        )
    return caller.site
