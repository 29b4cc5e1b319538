"""The bytes of an archive out of a request, chunk by chunk: never whole in memory, never on disk twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from feature_store.errors import ArchiveError, WrongContentType

ARCHIVES = (
    "application/zip",
    "application/x-tar",
    "application/gzip",
    "application/octet-stream",
    "application/x-zip-compressed",
    "application/x-gzip",
    "application/x-gtar",
    "application/x-compressed-tar",
)
FORM = "multipart/form-data"


def archive_chunks(request: Request) -> AsyncIterator[bytes]:
    """The body itself, or the one file of a multipart form. Raises WrongContentType for a body of another kind.

    While it is read: ArchiveError for a form that cannot be read or has not one file, ClientDisconnect.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        return _file_of_form(request)
    if kind and kind not in ARCHIVES:
        raise WrongContentType(
            "The body is no archive by its Content-Type.",
            action=f"Send a .zip, .tar or .tar.gz as {ARCHIVES[0]}, {ARCHIVES[1]} or {ARCHIVES[2]}.",
        )
    return request.stream()


async def _file_of_form(request: Request) -> AsyncIterator[bytes]:
    form = _Form()
    boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary")
    if not boundary or len(boundary) > 256:
        raise _unreadable()
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for chunk in request.stream():
            parser.write(chunk)
            for part in form.take():
                yield part
        parser.finalize()
    except MultipartParseError:
        raise _unreadable() from None
    if not form.ended:
        raise _unreadable()
    if form.files != 1:
        raise ArchiveError("The form holds no file.", action="Send it as a file: -F case=@case.zip.")


class _Form:
    """What the parser finds: the content of the part that has a file's name."""

    def __init__(self) -> None:
        self.files, self.ended = 0, False
        self._name, self._value = bytearray(), bytearray()
        self._in_file, self._ready = False, list[bytes]()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def take(self) -> list[bytes]:
        ready, self._ready = self._ready, []
        return ready

    def _begin(self) -> None:
        self._in_file = False

    def _header(self) -> None:
        if (
            bytes(self._name).lower() == b"content-disposition"
            and b"filename" in parse_options_header(bytes(self._value))[1]
        ):
            self._in_file = True
            self.files += 1
            if self.files > 1:
                raise ArchiveError("The form holds several files.", action="Send one case per upload.")
        self._name.clear()
        self._value.clear()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._ready.append(data[start:end])

    def _end(self) -> None:
        self.ended = True


def _unreadable() -> ArchiveError:
    return ArchiveError("The form cannot be read.", action="Send the archive as the body itself.")
