"""The ingest service: routers behind one set of limits, errors and records."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from services import http_errors
from services.access import KeyBook, MeteredBook
from services.audit_trail import AuditTrail, Recorder
from services.body_limit import BodyLimit
from services.ingest.case_routes import case_router
from services.ingest.handler import IngestHandler
from services.ingest.intake import Intake
from services.ingest.said_routes import said_router
from services.ingest.upload_routes import PATH, upload_router

STREAMED = (re.compile(r"POST /v1/cases/?"), re.compile(rf"PATCH {PATH}/[^/]+"))


@dataclass(frozen=True)
class DoorLimits:
    """What a caller may ask: bytes of a body that is no upload, and requests of one key a minute."""

    body: int = 16 << 20
    per_minute: int = 1200


class Worker(Protocol):
    """Work behind the door, done for as long as the application is up."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


def build_app(
    handler: IngestHandler,
    intake: Intake,
    book: KeyBook,
    audit: Recorder,
    limits: DoorLimits,
    *,
    workers: Sequence[Worker] = (),
) -> FastAPI:
    """The FastAPI application; ``workers`` carry out what was accepted."""

    @asynccontextmanager
    async def up(_: FastAPI) -> AsyncIterator[None]:
        for worker in workers:
            await run_in_threadpool(worker.start)
        yield
        for worker in workers:
            await run_in_threadpool(worker.stop)

    app = FastAPI(title="asdeg ingest", description="Cases and outcomes in. For research use only.", lifespan=up)
    metered = MeteredBook(book, limits.per_minute)
    for router in (
        upload_router(handler, intake, metered),  # before the cases: `uploads` is no case's id
        case_router(handler, metered),
        said_router(handler, metered),
    ):
        app.include_router(router)
    app.add_middleware(BodyLimit, limit=limits.body, streamed=STREAMED)
    app.add_middleware(AuditTrail, log=audit)
    http_errors.install(app)
    return app
