"""Every error that asdeg raises on purpose.

The tree (each leaf says what is wrong and what to do about it):

    AsdegError
    ├── UsageError                 the call itself is off                     exit 2   HTTP 400
    │   ├── WrongContentType       a body of a kind that is not taken there                HTTP 415
    │   └── WrongProtocol          another version of the upload protocol                  HTTP 412
    ├── InputError                 what was sent cannot be used               exit 1   HTTP 422
    │   ├── ManifestError          case.yaml: unknown key, missing field, wrong unit
    │   │   └── LabelMapError      a label map that does not exist or breaks its rules
    │   ├── BidsError              a BIDS data set whose names or tables contradict or leave open
    │   ├── ArchiveError           an upload that is no usable archive of a case folder
    │   │   ├── ArchiveTooLarge    an upload over the limit, packed or unpacked          HTTP 413
    │   │   └── ChecksumMismatch   bytes that are not those that were sent               HTTP 460
    │   ├── BodyTooLarge           a request over the limit that is no upload            HTTP 413
    │   ├── ImageUnreadable        no reader takes this file or folder
    │   ├── DicomSeriesError       a DICOM folder that is not one whole series
    │   ├── DeidentificationRefused  an instance that may show who the patient is
    │   ├── ImageNotFinite         NaN or infinite voxels
    │   ├── ImageConstant          every voxel has the same value
    │   ├── ImageUnitError         voxel values that cannot be what the sequence says
    │   ├── MaskUnreadable         no label map
    │   ├── GridMismatch           mask and image do not share their voxels
    │   ├── LabelEmpty             a declared label has no voxel
    │   ├── RoiTooSmall            fewer voxels than features can be computed on
    │   ├── QualityRefused         an ROI or series that quality control failed
    │   ├── FollowUpError          a follow-up row that breaks its schema
    │   ├── PatientTableError      clinical variables or readings that break their schema
    │   ├── FeatureTableError      a feature table that `study` cannot use
    │   ├── LeakageFound           what is fitted would know patients it is judged on
    │   ├── CheckpointError        a file that holds no weights of the encoder it is for
    │   └── SettingsError          a settings file with an unknown key or value
    ├── NotFound                   no such case, patient, run, cohort, signature       HTTP 404
    ├── NotReady                   exists, but a step before it is missing             HTTP 409
    │   ├── FeaturesMissing        the patient has no features a signature needs
    │   ├── NothingReleased        no signature of that kind is released
    │   └── TooFewPatients         the cohort cannot carry the protocol
    ├── Conflict                   contradicts what is stored                          HTTP 409
    │   ├── PatientErased          a patient who was erased comes back only by consent
    │   ├── PartitionConflict      a patient's partition is given once, for ever
    │   ├── LeaseLost              another may have taken over what this process was at
    │   └── RunCancelled           somebody asked for the run to stop
    ├── TooMuchAtOnce              more than a site may ask or leave lying at once     HTTP 429
    ├── AccessDenied               a role that may not, or another site's data         HTTP 403
    │   └── KeyRefused             no key, or one that nobody has                      HTTP 401
    ├── ExtractionError            an ROI whose features could not be computed         HTTP 500
    ├── WorkerLost                 processes that carried out a part of a run died     HTTP 500
    └── StoreError                 the store cannot keep or find what it should        HTTP 500
        ├── SchemaError            rows that do not have the table's columns at all
        ├── StoreNotFound          no store at that address
        ├── BlobCorrupt            stored bytes no longer have their hash
        └── AuditBroken            a row of the audit log was changed, removed or put in

A message names columns, files, rules and counts. It never carries a patient's values or identifiers.
"""

from __future__ import annotations

import os


class AsdegError(Exception):
    """Base of all errors raised on purpose.

    ``str(error)`` is one line: what is wrong. ``action`` is one line: what the user can do.
    ``file`` is the path inside the case folder (never of the machine) it is about, if any.
    """

    exit_code = 1

    def __init__(self, message: str, *, action: str = "", file: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.action = action
        self.file = file

    @property
    def code(self) -> str:
        """The stable name that programs match on: the class's own name."""
        return type(self).__name__

    def line(self) -> str:
        """One line for stderr and logs: ``Code: file: message. action``."""
        where = f"{self.file}: " if self.file else ""
        action = f" {self.action}" if self.action else ""
        return f"{self.code}: {where}{self.message}{action}"

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (Ray); keyword arguments do not survive the default pickling.
        return (_rebuild, (type(self), self.message, self.action, self.file))


def _rebuild(cls: type[AsdegError], message: str, action: str, file: str) -> AsdegError:
    return cls(message, action=action, file=file)


def told_of(error: BaseException) -> str:
    """What may be told of a foreign exception: its kind and where it was raised. Its text may quote a patient's data;
    of the operating system's errors the words of the system."""
    reason = f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno is not None else ""
    return f"{type(error).__name__}{reason} at {place_of(error)}"


def place_of(error: BaseException) -> str:
    """``file:line`` that raised it; empty where it never was."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""


class UsageError(AsdegError):
    """The call itself is off."""

    exit_code = 2


class WrongContentType(UsageError):
    """A body of a kind that is not taken there."""


class WrongProtocol(UsageError):
    """The client speaks another version of the upload protocol."""


class InputError(AsdegError):
    """What was sent cannot be used; its sender can mend it."""


class ManifestError(InputError):
    """case.yaml has an unknown key, misses a field, or holds a value outside its range."""


class LabelMapError(ManifestError):
    """A label map that does not exist, or whose file breaks its rules."""


class BidsError(InputError):
    """A BIDS data set whose names, sidecars or tables contradict each other or leave something open."""


class ArchiveError(InputError):
    """An upload that is no usable archive of a case folder."""


class ArchiveTooLarge(ArchiveError):
    """An upload over the limit, packed or unpacked."""


class ChecksumMismatch(ArchiveError):
    """Bytes that came are not those that were sent; none of them is kept."""


class BodyTooLarge(InputError):
    """A request that is no upload and yet over the limit."""


class ImageUnreadable(InputError):
    """No reader takes this file or folder as an image."""


class DicomSeriesError(InputError):
    """A DICOM folder that is not one whole series."""


class DeidentificationRefused(InputError):
    """A DICOM instance that may show who the patient is, or does not say whose it is."""


class ImageNotFinite(InputError):
    """The image has NaN or infinite voxels."""


class ImageConstant(InputError):
    """Every voxel of the image has the same value."""


class ImageUnitError(InputError):
    """Voxel values that cannot be what the sequence says (a CT that is not in Hounsfield units)."""


class MaskUnreadable(InputError):
    """No reader takes this file as a label map of whole numbers."""


class GridMismatch(InputError):
    """Mask and image do not share their voxels."""


class LabelEmpty(InputError):
    """A declared label has no voxel in its mask."""


class RoiTooSmall(InputError):
    """An ROI has fewer voxels than features can be computed on."""


class QualityRefused(InputError):
    """An ROI that quality control failed, by itself or with its series, and so is not extracted."""


class FollowUpError(InputError):
    """A follow-up row breaks its schema."""


class PatientTableError(InputError):
    """Clinical variables or surgeons' readings that break their schema."""


class FeatureTableError(InputError):
    """A feature table that ``study`` cannot use."""


class LeakageFound(InputError):
    """What is fitted would know patients it is judged on."""


class CheckpointError(InputError):
    """A file that does not hold the weights of the encoder it is for."""


class SettingsError(InputError):
    """A settings file has an unknown key or a value outside its range."""


class NotFound(AsdegError):
    """No such case, patient, run, cohort or signature."""


class NotReady(AsdegError):
    """The thing exists, but a step before it is missing."""


class FeaturesMissing(NotReady):
    """The patient has no features (or not all) that a signature needs."""


class NothingReleased(NotReady):
    """No signature of that kind is released."""


class TooFewPatients(NotReady):
    """The cohort cannot carry the protocol."""


class Conflict(AsdegError):
    """The request contradicts what is stored."""


class PatientErased(Conflict):
    """A patient who was erased is not taken in again without a consent on record."""


class PartitionConflict(Conflict):
    """A patient's partition is given once, for ever."""


class LeaseLost(Conflict):
    """Another process may have taken over the work that this one was at; it has committed nothing since."""


class TooMuchAtOnce(AsdegError):
    """More than a site may ask for, or leave lying in the inbox, at once; later it may."""


class RunCancelled(Conflict):
    """Somebody asked for the run to stop."""


class AccessDenied(AsdegError):
    """A role that may not do this, or another site's data."""


class KeyRefused(AccessDenied):
    """No key, or one that nobody has."""


class ExtractionError(AsdegError):
    """An ROI whose features could not be computed."""


class WorkerLost(AsdegError):
    """The processes that carried out a part of a run died, as often as it was tried."""


class StoreError(AsdegError):
    """The store cannot keep or find what it should."""


class SchemaError(StoreError):
    """Rows that do not have the table's columns at all (against rejected rows, which break a rule)."""


class StoreNotFound(StoreError):
    """There is no store at that address."""


class BlobCorrupt(StoreError):
    """Stored bytes no longer have the hash they are kept under."""


class AuditBroken(StoreError):
    """A row of the audit log was changed, removed or put in."""
