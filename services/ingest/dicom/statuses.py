"""DICOM's own numbers for what became of an instance: one table for both doors.

C-STORE answers them as its Status (PS3.4 B.2.3), STOW-RS as FailureReason and WarningReason (PS3.18 10.5.3.2).
"""

from __future__ import annotations

from feature_store import errors
from feature_store.errors import AsdegError, InputError

SUCCESS = 0x0000
ELEMENTS_DISCARDED = 0xB006
"""Warning: nothing of it is kept, because no case is made of such an object."""
NOT_AUTHORISED = 0x0124
DUPLICATE = 0x0111
OUT_OF_RESOURCES = 0xA700
NO_MATCH = 0xA900
OTHER_STUDY = 0xA901
CANNOT_UNDERSTAND = 0xC000
SYNTAX_NOT_SUPPORTED = 0xC122
PROCESSING_FAILURE = 0x0110


class InstanceRefused(InputError):
    """One DICOM instance that is not taken, and by which of DICOM's numbers."""

    def __init__(self, message: str, *, action: str = "", file: str = "", status: int = CANNOT_UNDERSTAND) -> None:
        super().__init__(message, action=action, file=file)
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        return (_again, (self.message, self.action, self.file, self.status))


def _again(message: str, action: str, file: str, status: int) -> InstanceRefused:
    return InstanceRefused(message, action=action, file=file, status=status)


def status_of(error: Exception) -> int:
    """The number for an error. What we never meant to raise is a processing failure."""
    if isinstance(error, InstanceRefused):
        return error.status
    if isinstance(error, (errors.AccessDenied, errors.PatientErased)):
        return NOT_AUTHORISED
    if isinstance(error, (errors.StoreError, MemoryError, OSError)):
        return OUT_OF_RESOURCES
    return CANNOT_UNDERSTAND if isinstance(error, AsdegError) else PROCESSING_FAILURE
