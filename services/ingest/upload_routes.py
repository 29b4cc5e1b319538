"""Routes by which cases come: in one request, or resumable by the tus protocol (1.0.0, https://tus.io).

    POST   /v1/cases               the whole archive as the body
    POST   /v1/cases/uploads       Upload-Length, Upload-Metadata: sha256 …    → 201, Location
    HEAD   /v1/cases/uploads/ID                                                → Upload-Offset
    PATCH  /v1/cases/uploads/ID    Upload-Offset, Upload-Checksum, bytes       → 204, Upload-Offset
    GET    /v1/cases/uploads/ID                                                → which case it became
    DELETE /v1/cases/uploads/ID

The last PATCH accepts the case, and says so in Asdeg-Case. An upload whose metadata has the SHA-256 of the whole is
checked against it, and a sender that has lost the address gets the same upload again by asking for it anew.
"""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
import base64
import binascii
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from feature_store.errors import ArchiveError, Conflict, UsageError, WrongContentType, WrongProtocol
from feature_store.uploads import DONE, OPEN, RECEIVED, REFUSED, Upload
from services import http_errors
from services.access import SITE, Credential, KeyBook, allow
from services.ingest.case_access import site_of
from services.ingest.case_routes import Wait, followed
from services.ingest.handler import IngestHandler
from services.ingest.inbox import HASHES, Checksum
from services.ingest.intake import Intake
from services.ingest.messages import Ticket, UploadStatus
from services.ingest.receive import ARCHIVES, FORM, archive_chunks

TUS = "1.0.0"
PATH = "/v1/cases/uploads"
BYTES = "application/offset+octet-stream"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ARCHIVE_BODY = {
    "requestBody": {
        "required": True,
        "description": "one case folder (case.yaml, images, masks) as .zip, .tar or .tar.gz",
        "content": {
            **{kind: _BINARY for kind in ARCHIVES[:4]},
            FORM: {"schema": {"type": "object", "properties": {"case": _BINARY["schema"]}, "required": ["case"]}},
        },
    }
}
_PART_BODY = {"requestBody": {"required": True, "content": {BYTES: _BINARY}}}
UploadId = Annotated[str, Path(max_length=64)]
Resumable = Annotated[str, Header(description="the version of the tus protocol: 1.0.0")]


def upload_router(handler: IngestHandler, intake: Intake, book: KeyBook) -> APIRouter:
    """POST /v1/cases, and the resumable uploads under /v1/cases/uploads."""
    router = APIRouter(tags=["ingest"], responses=http_errors.RESPONSES)
    inbox, site_only = intake.inbox, allow(book, SITE)
    Caller = Annotated[Credential, Depends(site_only)]

    async def accepted(upload: Upload, request: Request) -> Ticket:
        ticket = await run_in_threadpool(intake.accept, upload)
        case = handler.find(ticket.case_id)
        request.state.about = (case.site, case.patient_id, case.case_id)
        return ticket

    @router.post("/v1/cases", status_code=202, openapi_extra=_ARCHIVE_BODY)
    async def push_case(request: Request, response: Response, caller: Caller, wait: Wait = 0) -> Ticket:
        """Take a case in. The answer comes once it is safe here; its state is followed by its id.

        The same case again changes nothing. `wait=30` waits as GET does, and puts what became of it into the answer.
        """
        length = _whole(request.headers.get("content-length"))
        chunks = archive_chunks(request)
        upload = await run_in_threadpool(inbox.begin, site_of(caller), caller.name, length)
        try:
            upload = await inbox.append(upload, chunks)
            if not upload.held:
                raise ArchiveError("The upload is empty.", action="Send a .zip, .tar or .tar.gz of a case folder.")
            upload = await run_in_threadpool(inbox.book.complete, upload)
        except BaseException as error:
            await run_in_threadpool(_drop, upload)
            if isinstance(error, ClientDisconnect):
                raise ArchiveError("The upload was cut off.", action="Send it again.") from None
            raise
        ticket = await accepted(upload, request)
        report = await followed(handler, ticket.case_id, wait)
        response.headers["Location"] = f"/v1/cases/{ticket.case_id}"
        return ticket.model_copy(update={"state": report.state, "receipt": report.receipt})

    def _drop(upload: Upload) -> None:
        inbox.book.remove(upload.upload_id)
        inbox.discard(upload)

    def own(upload_id: str, caller: Credential) -> Upload:
        return inbox.book.get(upload_id, site_of(caller))

    def told(response: Response, upload: Upload) -> None:
        response.headers["Tus-Resumable"] = TUS
        response.headers["Cache-Control"] = "no-store"
        response.headers["Upload-Offset"] = str(upload.held)
        if upload.case_id is not None:
            response.headers["Asdeg-Case"] = upload.case_id
        if upload.state == OPEN:
            over = datetime.fromtimestamp(upload.changed_at + inbox.hours * 3600, UTC)
            response.headers["Upload-Expires"] = format_datetime(over, usegmt=True)

    @router.options(PATH, status_code=204)
    def what_is_possible(response: Response) -> None:
        """Version, extensions and limits of the upload protocol."""
        response.headers["Tus-Resumable"] = response.headers["Tus-Version"] = TUS
        response.headers["Tus-Extension"] = "creation,checksum,expiration,termination"
        response.headers["Tus-Checksum-Algorithm"] = ",".join(HASHES)
        response.headers["Tus-Max-Size"] = str(inbox.limits.packed)

    @router.post(PATH, status_code=201)
    def begin(
        response: Response,
        caller: Caller,
        upload_length: Annotated[int, Header(ge=1, le=2**62)],
        tus_resumable: Resumable = TUS,
        upload_metadata: Annotated[str, Header(max_length=4096)] = "",
    ) -> None:
        """Begin a resumable upload, or go on with one. Metadata: `sha256` of the whole in hex digits, base64-coded."""
        _check_version(tus_resumable)
        upload = inbox.begin(site_of(caller), caller.name, upload_length, _declared_sha256(upload_metadata))
        told(response, upload)
        response.headers["Location"] = f"{PATH}/{upload.upload_id}"

    @router.head(PATH + "/{upload_id}")
    def offset(upload_id: UploadId, response: Response, caller: Caller, tus_resumable: Resumable = TUS) -> None:
        """How many bytes are here."""
        _check_version(tus_resumable)
        upload = own(upload_id, caller)
        told(response, upload)
        if upload.length is not None:
            # once it is a case its own length stands for it: nothing is left to send
            response.headers["Upload-Length"] = str(upload.length)

    @router.patch(PATH + "/{upload_id}", status_code=204, openapi_extra=_PART_BODY)
    async def append(
        upload_id: UploadId,
        request: Request,
        response: Response,
        caller: Caller,
        upload_offset: Annotated[int, Header(ge=0, le=2**62)],
        tus_resumable: Resumable = TUS,
        upload_checksum: Annotated[str, Header(max_length=200)] = "",
    ) -> None:
        """Append the body at the offset. With a checksum (`sha256 BASE64`) all of it or, where it differs, nothing."""
        _check_version(tus_resumable)
        if request.headers.get("content-type", "").partition(";")[0].strip() != BYTES:
            raise WrongContentType("That is no part of an upload.", action=f"Send it as {BYTES}.")
        upload = await run_in_threadpool(own, upload_id, caller)
        if upload_offset != upload.held or upload.state != OPEN:
            raise Conflict("The offset is not where the upload ends.", action="Ask for it with HEAD, and go on there.")
        upload = await inbox.append(upload, request.stream(), _checksum(upload_checksum))
        if upload.held == upload.length:
            upload = await run_in_threadpool(inbox.book.complete, upload)
            ticket = await accepted(upload, request)
            response.headers["Asdeg-Case"] = ticket.case_id
        response.headers["Tus-Resumable"] = TUS
        response.headers["Upload-Offset"] = str(upload.held)

    @router.get(PATH + "/{upload_id}")
    def became(upload_id: UploadId, caller: Caller) -> UploadStatus:
        """How far an upload is, which case it became, or why it was refused."""
        upload = intake.settle(own(upload_id, caller))
        refused = upload.answer if upload.state == REFUSED else None
        case_id = upload.case_id if upload.state in (RECEIVED, DONE) else None
        return UploadStatus(
            upload_id=upload.upload_id,
            state=upload.state,
            offset=upload.held,
            length=upload.length,
            case_id=case_id,
            known=case_id is not None and upload.accepted_at is None,
            refused=None if refused is None else dict(refused),
        )

    @router.delete(PATH + "/{upload_id}", status_code=204)
    def end(upload_id: UploadId, response: Response, caller: Caller, tus_resumable: Resumable = TUS) -> None:
        """End an upload that is not complete; its bytes go."""
        _check_version(tus_resumable)
        upload = own(upload_id, caller)
        if upload.state not in (OPEN, REFUSED):
            raise Conflict("It has become a case.", action="Withdraw the case instead.")
        _drop(upload)
        response.headers["Tus-Resumable"] = TUS

    return router


def _check_version(version: str) -> None:
    if version != TUS:
        raise WrongProtocol("That version of the upload protocol is not spoken here.", action=f"Speak tus {TUS}.")


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 19 else None


def _declared_sha256(metadata: str) -> str | None:
    """``key BASE64,key BASE64``; only ``sha256`` counts here. Raises UsageError."""
    for pair in metadata.split(","):
        key, _, value = pair.strip().partition(" ")
        if key == "sha256":
            digest = _decoded(value).decode("ascii", "replace").lower()
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise UsageError("sha256 is no hash.", action="Send its 64 hex digits, base64-coded.")
            return digest
    return None


def _checksum(header: str) -> Checksum | None:
    if not header:
        return None
    algorithm, _, digest = header.strip().partition(" ")
    if algorithm not in HASHES:
        raise UsageError("That checksum is not known here.", action=f"Send one of {', '.join(HASHES)}.")
    return Checksum(algorithm, _decoded(digest))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("A header is not base64.", action="Encode it as tus says.") from None
