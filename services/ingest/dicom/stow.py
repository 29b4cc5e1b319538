"""STOW-RS (DICOM PS3.18 10.5): studies in over HTTP, as a PACS sends them.

    POST /dicom-web/studies                   instances of any studies
    POST /dicom-web/studies/{study}           of that study only
    POST /dicom-web/studies/{study}/complete  all of it is there: make the case now (our own)
    GET  /dicom-web                           what is staged of the caller's cases (our own)

The caller's key (Bearer, X-API-Key, or as the password of Basic) says the site.
"""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
import re
from collections.abc import AsyncIterator
from typing import IO, Annotated, Any

import pydicom
from fastapi import Body, Depends, FastAPI, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from pydicom.dataset import Dataset
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from feature_store.audit import AuditLog
from feature_store.control import Credential
from feature_store.errors import ArchiveError, NotFound
from pipelines.cases.manifest import case_id
from services import http_errors
from services.access import SITE, AtOnce, KeyBook, allow
from services.audit_trail import AuditTrail
from services.body_limit import BodyLimit
from services.ingest.deidentification.site_key import SiteKeys
from services.ingest.deidentification.values import new_uid
from services.ingest.dicom.assembler import Assembler
from services.ingest.dicom.intake import Intake, Outcome, acts_of
from services.ingest.dicom.related import DICOM, RelatedParts, boundary_of
from services.ingest.dicom.sites import DicomSites
from services.ingest.dicom.statuses import NO_MATCH, SUCCESS
from services.ingest.messages import CaseReceipt

STREAMED = (re.compile(r"POST /dicom-web/studies(/[^/]+)?/?"),)
_BUFFER = 1 << 20
_REASONS = 5
"""So many different reasons are told in words; the numbers are told of every instance."""
_MULTIPART = {
    "requestBody": {
        "required": True,
        "description": "DICOM instances (PS3.10 files), one a part",
        "content": {'multipart/related; type="application/dicom"': {"schema": {"type": "string", "format": "binary"}}},
    },
    "responses": {200: {"content": {"application/dicom+json": {}}, "description": "all are kept"}},
}
Uid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$", description="Study Instance UID")]


class Staged(BaseModel):
    """A case of which instances are staged."""

    case_id: str
    instances: int
    assembled: bool = Field(description="false: more has come since, or it was never made into a case")


class Completion(BaseModel):
    """What the site says of a study that is complete."""

    model_config = {"extra": "forbid"}

    series_numbers: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="which series each sequence is, where several fit: {'ct': 4}"
    )


def build_app(
    intake: Intake,
    assembler: Assembler,
    sites: DicomSites,
    keys: SiteKeys,
    book: KeyBook,
    audit: AuditLog,
    limit: int,
    at_once: AtOnce,
    body_limit: int = 16 << 20,
    spool: str = "",
) -> FastAPI:
    """``limit``: bytes of the largest instance; ``at_once``: requests of a site; ``body_limit``: bytes of a body that
    holds no instances; ``spool``: folder for the anonymous files of parts."""
    app = FastAPI(title="asdeg DICOMweb", description="Studies in. For research use only.")
    app.add_middleware(BodyLimit, limit=body_limit, streamed=STREAMED)
    app.add_middleware(AuditTrail, log=audit)
    http_errors.install(app)

    async def site_only(
        request: Request, caller: Annotated[Credential, Depends(allow(book, SITE, basic=True))]
    ) -> AsyncIterator[Credential]:
        request.state.recorded = True  # not who asks too often: that would be a row for each time
        with at_once.place(str(caller.site)):
            request.state.recorded = False
            yield caller

    Caller = Annotated[Credential, Depends(site_only, scope="function")]

    async def store(request: Request, caller: Credential, study: str | None) -> JSONResponse:
        site = sites.named(str(caller.site))
        keys.needed(site.name)
        outcomes: list[Outcome] = []

        def take(kind: str, file: IO[bytes]) -> None:
            if kind in ("", DICOM, "application/octet-stream"):
                outcomes.append(intake.take(lambda: pydicom.dcmread(file), site, study))
            else:
                outcomes.append(Outcome("", "", NO_MATCH, reason="InstanceRefused: a part is no application/dicom."))

        parts = RelatedParts(boundary_of(request.headers.get("content-type", "")), take, limit, spool)
        try:
            await _feed(request, parts)
        finally:
            parts.close()
            if outcomes:
                await run_in_threadpool(audit.record, caller, *acts_of(outcomes, site.name, "stow-rs"))
                request.state.recorded = True
        if not outcomes:
            raise ArchiveError("The body holds no instance.", action="Send one instance a part.")
        return _answer(outcomes)

    @app.post("/dicom-web/studies", tags=["dicom"], responses=http_errors.RESPONSES, openapi_extra=_MULTIPART)
    async def store_instances(request: Request, caller: Caller) -> JSONResponse:
        """Keep instances; each that is answered as stored is on the disk. The same again changes nothing."""
        return await store(request, caller, None)

    @app.post("/dicom-web/studies/{study}", tags=["dicom"], responses=http_errors.RESPONSES, openapi_extra=_MULTIPART)
    async def store_study(request: Request, study: Uid, caller: Caller) -> JSONResponse:
        """The same; instances of another study are refused."""
        return await store(request, caller, study)

    @app.post("/dicom-web/studies/{study}/complete", tags=["dicom"], responses=http_errors.RESPONSES)
    def complete_study(
        study: Uid,
        request: Request,
        caller: Caller,
        said: Annotated[Completion | None, Body()] = None,
    ) -> CaseReceipt:
        """Make the case of the study's patient now, without waiting for the quiet time."""
        site = str(caller.site)
        patient = intake.staging.patient_of(site, new_uid(keys.needed(site), study))
        if patient is None:
            raise NotFound("Nothing of this study is staged.", action="Send the study first.")
        request.state.about = (site, patient, case_id(site, patient))
        return assembler.complete(site, patient, said.series_numbers if said else None)

    @app.get("/dicom-web", tags=["dicom"], responses=http_errors.RESPONSES)
    def staged(caller: Caller) -> list[Staged]:
        """What is staged; how far each case is on its way says `GET /v1/cases/{case_id}`."""
        return [
            Staged(case_id=case, instances=instances, assembled=assembled)
            for case, instances, assembled in assembler.staged(str(caller.site))
        ]

    return app


async def _feed(request: Request, parts: RelatedParts) -> None:
    buffer = bytearray()
    try:
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= _BUFFER:
                await run_in_threadpool(parts.feed, bytes(buffer))
                buffer.clear()
    except ClientDisconnect:
        raise ArchiveError("The upload was cut off.", action="Send again what was not acknowledged.") from None
    await run_in_threadpool(parts.feed, bytes(buffer))
    parts.finish()


def _answer(outcomes: list[Outcome]) -> JSONResponse:
    """PS3.18 10.5.3: 200 all kept, 202 some refused or only acknowledged, 409 none kept."""
    refused = [one for one in outcomes if one.refused]
    status = 409 if len(refused) == len(outcomes) else 202 if any(one.status != SUCCESS for one in outcomes) else 200
    headers = {}
    if cases := sorted({one.case_id for one in outcomes if one.case_id}):
        headers["Asdeg-Cases"] = ", ".join(cases)
    if reasons := list(dict.fromkeys(one.reason for one in refused))[:_REASONS]:
        headers["Warning"] = ", ".join(f'299 asdeg "{_quotable(reason)}"' for reason in reasons)
    return JSONResponse(_module(outcomes), status, headers, media_type="application/dicom+json")


def _module(outcomes: list[Outcome]) -> dict[str, Any]:
    """The Store Instances Response Module as DICOM JSON."""
    answer = Dataset()
    answer.RetrieveURL = None
    kept = [_item(one, "WarningReason" if one.status else "") for one in outcomes if not one.refused]
    named = [_item(one, "FailureReason") for one in outcomes if one.refused and one.sop_instance]
    nameless = [_item(one, "FailureReason") for one in outcomes if one.refused and not one.sop_instance]
    for keyword, items in (
        ("ReferencedSOPSequence", kept),
        ("FailedSOPSequence", named),
        ("OtherFailuresSequence", nameless),
    ):
        if items:
            setattr(answer, keyword, items)
    return answer.to_json_dict()


def _item(outcome: Outcome, reason: str) -> Dataset:
    item = Dataset()
    if outcome.sop_instance:
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = outcome.sop_class, outcome.sop_instance
    if reason:
        setattr(item, reason, outcome.status)
    elif outcome.sop_instance:
        item.RetrieveURL = None
    return item


def _quotable(reason: str) -> str:
    return reason.replace("\\", " ").replace('"', "'").encode("ascii", "replace").decode()
