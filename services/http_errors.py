"""How our errors look over HTTP: one table from error class to status, and one body for all of them.

``{"error": "GridMismatch", "message": "…", "action": "…", "file": "ct_mask.nii.gz"}``; never what the caller
sent, which may be a patient's.
"""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feature_store import errors
from feature_store.errors import AsdegError, place_of
from feature_store.plain_words import plain_file

log = structlog.get_logger(__name__)

STATUS: dict[type[AsdegError], int] = {
    errors.UsageError: 400,
    errors.KeyRefused: 401,
    errors.AccessDenied: 403,
    errors.NotFound: 404,
    errors.NotReady: 409,
    errors.Conflict: 409,
    errors.WrongProtocol: 412,
    errors.ArchiveTooLarge: 413,
    errors.BodyTooLarge: 413,
    errors.WrongContentType: 415,
    errors.InputError: 422,
    errors.TooMuchAtOnce: 429,
    errors.ChecksumMismatch: 460,  # as the tus protocol has it
    errors.ExtractionError: 500,
    errors.WorkerLost: 500,
    errors.StoreError: 500,
}
"""A class that is not here has the status of its nearest ancestor that is."""


class ErrorBody(BaseModel):
    """What every answer that is no success holds."""

    error: str = Field(description="stable name that programs match on")
    message: str = Field(description="what is wrong")
    action: str = Field(description="what to do about it")
    file: str = Field(description="file inside the case folder it is about, if any")


RESPONSES: dict[int | str, dict[str, object]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 460, 500)
}
"""For the OpenAPI document of every route."""

_HTTP_NAMES = {404: "NotFound", 405: "MethodNotAllowed"}
_HTTP_ACTIONS = {404: "See /docs for what there is.", 405: "See /docs for how it is called."}


def status_of(error: type[AsdegError]) -> int | None:
    """HTTP status of an error class, from the nearest ancestor in the table; None where there is none."""
    for cls in error.__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return None


def respond(status: int, error: str, message: str, action: str = "", file: str = "") -> JSONResponse:
    """An answer with the one body."""
    body = ErrorBody(error=error, message=message, action=action, file=file)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "5"}}.get(status)
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Give a FastAPI application the handlers that turn every failure into the one body."""

    @app.exception_handler(AsdegError)
    async def named(request: Request, error: AsdegError) -> JSONResponse:
        request.state.outcome = error.code
        status = status_of(type(error)) or 500
        file = plain_file(error.file)
        log.info("refused", error=error.code, status=status, file=file)
        return respond(status, error.code, error.message, error.action, file)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = [_fault(e["loc"], e["type"], e["msg"]) for e in error.errors()]
        shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
        return respond(422, "RequestInvalid", shown, "Send what /docs describes.")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        name = _HTTP_NAMES.get(error.status_code, "HttpError")
        return respond(error.status_code, name, str(error.detail), _HTTP_ACTIONS.get(error.status_code, ""))

    app.add_middleware(LastResort)


class LastResort:
    """Answers for exceptions that nobody meant to raise.

    The text of a foreign exception may quote what was sent, so the log names its kind and place only;
    Starlette's own last handler would raise it again into the server's log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            log.error("unexpected", kind=type(error).__name__, place=place_of(error))
            if scope["type"] != "http" or started:
                raise RuntimeError("the answer broke off") from None
            answer = respond(
                500, "InternalError", "Something failed that should not have.", "Look at the service's log."
            )
            await answer(scope, receive, send)


def _fault(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    """Where and why, without a word of what was sent: an unknown key is the caller's own word, too."""
    if kind == "extra_forbidden":
        loc, message = loc[:-1], "a key that is not known here"
    return f"{'.'.join(str(part) for part in loc)}: {message}"
