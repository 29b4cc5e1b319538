"""An upload onto disk, chunk by chunk: never whole in memory, never past the limit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from feature_store.errors import ArchiveError, ArchiveTooLarge

_BUFFER = 1 << 22


async def receive(request: Request, target: Path, limit: int) -> None:
    """Write the request's archive to ``target``: the body itself, or the one file of a multipart form.

    Raises ArchiveTooLarge over ``limit`` bytes (at once, where Content-Length says so), ArchiveError for an
    empty or cut-off upload.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    try:
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            written = await _from_form(request, target, limit)
        else:
            with target.open("wb") as file:
                written = await _pour(_counted(request, limit), file)
    except ClientDisconnect:
        raise ArchiveError("The upload was cut off.", action="Send it again.") from None
    if not written:
        raise ArchiveError("The upload is empty.", action="Send a .zip, .tar or .tar.gz of a case folder.")


async def _pour(chunks: AsyncIterator[bytes], file: BinaryIO) -> int:
    written, buffer = 0, bytearray()
    async for chunk in chunks:
        buffer += chunk
        if len(buffer) >= _BUFFER:
            written += await run_in_threadpool(file.write, bytes(buffer))
            buffer.clear()
    return written + file.write(bytes(buffer))


async def _counted(request: Request, limit: int) -> AsyncIterator[bytes]:
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > limit:
            raise _too_large(limit)
        yield chunk


async def _from_form(request: Request, target: Path, limit: int) -> int:
    parser = MultiPartParser(request.headers, _counted(request, limit), max_files=1, max_fields=8)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise ArchiveError("The form cannot be read.", action="Send the archive as the body itself.") from error
    try:
        uploads = [value for value in form.values() if isinstance(value, UploadFile)]
        if not uploads:
            raise ArchiveError("The form holds no file.", action="Send it as a file: -F case=@case.zip.")

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await uploads[0].read(_BUFFER):
                yield chunk

        with target.open("wb") as file:
            return await _pour(chunks(), file)
    finally:
        await form.close()


def _too_large(limit: int) -> ArchiveTooLarge:
    return ArchiveTooLarge(
        f"The upload is larger than {limit >> 20} MB.",
        action="Send one case per upload, or raise ASDEG_UPLOAD_LIMIT_MB.",
    )
