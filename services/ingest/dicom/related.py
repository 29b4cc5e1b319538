"""``multipart/related`` bodies, part by part: each part is poured into an anonymous file and handed over when whole.

What was sent has real names in it, so a part never gets a name on the disk: its file is unlinked from the start, and
its blocks are free as soon as the process lets go of it or is killed. Standard: RFC 2387, DICOM PS3.18 8.6.1.2.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from email.message import Message
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from feature_store.errors import ArchiveError, ArchiveTooLarge, WrongContentType

DICOM = "application/dicom"


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises WrongContentType for anything but related DICOM parts."""
    header = Message()
    header["Content-Type"] = content_type
    kind = str(header.get_param("type") or DICOM).strip('"').lower()
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/related" or kind != DICOM or not isinstance(boundary, str):
        raise WrongContentType(
            "STOW-RS takes multipart/related with application/dicom parts.",
            action='Send Content-Type: multipart/related; type="application/dicom"; boundary=….',
        )
    return boundary.encode("latin-1", "replace")


class RelatedParts:
    """Feed it the body as it comes; ``take`` gets the content type and the file (at its start) of each whole part."""

    def __init__(self, boundary: bytes, take: Callable[[str, IO[bytes]], None], limit: int, folder: str) -> None:
        self._take, self._limit, self._folder = take, limit, folder
        self._file: IO[bytes] | None = None
        self._name, self._value, self._type, self._written, self._ended = b"", b"", "", 0, False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._field,
                    "on_header_value": self._said,
                    "on_header_end": self._header_end,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._all,
                },
            )
        except FormParserError:
            raise _broken() from None

    def feed(self, data: bytes) -> None:
        """The next bytes of the body. Raises ArchiveError where it is no such body, ArchiveTooLarge for a part."""
        try:
            self._parser.write(data)
        except FormParserError:  # its text quotes the body
            raise _broken() from None

    def finish(self) -> None:
        """The body has ended. Raises ArchiveError where it ended in the middle."""
        if not self._ended:
            raise ArchiveError("The upload was cut off.", action="Send again what was not acknowledged.")

    def close(self) -> None:
        """Let go of a part that was not finished."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self.close()
        self._file = tempfile.TemporaryFile(dir=self._folder or None)  # noqa: SIM115
        self._type, self._written = "", 0

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _said(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.strip().lower() == b"content-type":
            self._type = self._value.decode("latin-1").split(";")[0].strip().lower()
        self._name = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._written += end - start
        if self._written > self._limit:
            raise ArchiveTooLarge(
                f"An instance is larger than {self._limit >> 20} MB.", action="Raise ASDEG_DICOM_INSTANCE_LIMIT_MB."
            )
        assert self._file is not None
        self._file.write(data[start:end])

    def _end(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        try:
            self._take(self._type, self._file)
        finally:
            self.close()

    def _all(self) -> None:
        self._ended = True


def _broken() -> ArchiveError:
    return ArchiveError(
        "The body is not what its Content-Type says.", action="Send multipart/related with the boundary it names."
    )
