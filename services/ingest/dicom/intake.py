"""One DICOM instance in: judged, de-identified, and on the disk before it is acknowledged; the same from both doors.

Kept are images of CT and MR, segmentations and structure sets. Everything else that a PACS sends with a study
(reports, presentation states, dose, captures, PET) is acknowledged with a warning that nothing of it is kept: no case
is made of it, and refusing it would stop many a PACS from sending the rest.

An instance that is here already stays as it is. One of the same UID is the same instance where its header is the
same and its pixels decode to the same numbers, however they are compressed; another is refused as a duplicate,
because which of two contents is meant nobody can tell.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID

from feature_store.audit import OK, Act
from feature_store.control import ControlDatabase
from feature_store.erasures import Erased, refused
from feature_store.errors import AsdegError
from pipelines.cases.manifest import case_id
from pipelines.imaging.dicom_file import dicom_call, sop_class
from pipelines.imaging.dicom_pixels import stored_frames
from services.ingest.deidentification.instance import deidentify
from services.ingest.deidentification.pseudonym import shifted
from services.ingest.deidentification.site_key import SiteKey, SiteKeys
from services.ingest.dicom.segment_words import segment_meanings, write_house_words
from services.ingest.dicom.sites import DicomSite
from services.ingest.dicom.staging import IMAGES, MASKS, Staging
from services.ingest.dicom.statuses import (
    DUPLICATE,
    ELEMENTS_DISCARDED,
    NO_MATCH,
    OTHER_STUDY,
    SUCCESS,
    SYNTAX_NOT_SUPPORTED,
    InstanceRefused,
    status_of,
)
from services.ingest.handler import RECEIVED, WITHDRAWN

log = structlog.get_logger(__name__)

KINDS = {"CT": IMAGES, "MR": IMAGES, "SEG": MASKS, "RTSTRUCT": MASKS}
"""By modality what is kept, and where."""
SYNTAXES = (
    "1.2.840.10008.1.2.1",  # explicit little endian; the order is that of preference
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.2",  # big endian
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless, then lossy
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless, then near-lossless
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.50",  # JPEG of 8 and 12 bits
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.201",  # HTJ2K
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
)
"""Transfer syntaxes that the readers decode."""
ERASED_S = 10.0
"""So long an erasure may not be known here; what slips in meanwhile goes when its case would be made."""
_DAMAGED = "it is damaged, or cut short"
_AGAIN = "Send the instance again as the PACS has it."


@dataclass(frozen=True)
class Outcome:
    """What became of an instance. The UIDs are those that the sender knows, '' where it cannot be read at all.

    With SUCCESS it is safe on the disk, or was; with ELEMENTS_DISCARDED nothing of it is kept; else ``reason`` says
    why it was refused (``Code: message``).
    """

    sop_class: str
    sop_instance: str
    status: int
    case_id: str = ""
    reason: str = ""

    @property
    def refused(self) -> bool:
        return self.status not in (SUCCESS, ELEMENTS_DISCARDED)


def acts_of(outcomes: Sequence[Outcome], site: str, door: str) -> list[Act]:
    """For the audit log: a row for each case that was sent to, and one for what was refused."""
    by_case: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_case.setdefault(outcome.case_id, []).append(outcome)
    return [
        Act(
            "push",
            site=site,
            case_id=case or None,
            outcome=OK if case else some[0].reason.split(":")[0] or "NotKept",
            details={"instances": len(some), "door": door},
        )
        for case, some in by_case.items()
    ]


class Intake:
    """Takes instances into the staging folder; safe to share between threads."""

    def __init__(
        self, staging: Staging, control: ControlDatabase, keys: SiteKeys, erased: Callable[[], Erased]
    ) -> None:
        """``erased`` says of whom nothing may be taken in; it is asked again after a while."""
        self.staging = staging
        self._control, self._keys, self._ask_erased = control, keys, erased
        self._erased, self._asked = Erased(), -ERASED_S
        self._at_once = threading.Semaphore(2)
        silence()

    def take(self, read: Callable[[], Dataset], site: DicomSite, study: str | None = None) -> Outcome:
        """Keep one instance, which is on the disk when this returns; ``read`` gives it, with its file meta group.

        With ``study``, only one of that Study Instance UID is taken. Never raises: the outcome says what was wrong.
        """
        sop = instance = ""
        with self._at_once:  # each is whole in memory
            try:
                dataset = dicom_call(read, InstanceRefused, "it is no DICOM instance", "", _AGAIN)
                sop, instance = _identity(dataset)
                case = self._take(dataset, sop, instance, site, study)
                return Outcome(sop, instance, SUCCESS if case else ELEMENTS_DISCARDED, case)
            except AsdegError as error:
                log.info("instance refused", site=site.name, error=error.code, status=status_of(error))
                return Outcome(sop, instance, status_of(error), reason=f"{error.code}: {error.message}")
            except Exception as error:
                log.error("instance failed", site=site.name, kind=type(error).__name__)
                return Outcome(sop, instance, status_of(error), reason=type(error).__name__)

    def _take(self, dataset: Dataset, sop: str, instance: str, site: DicomSite, study: str | None) -> str:
        """The id of the case it belongs to; '' where nothing of it is kept."""
        kind = dicom_call(lambda: _kind(dataset, sop), InstanceRefused, _DAMAGED, "", _AGAIN)
        _check(dataset, sop, instance, study)
        if kind is None:
            return ""
        if str(dataset.file_meta.TransferSyntaxUID) not in SYNTAXES:
            raise InstanceRefused(
                "its transfer syntax is not supported.", action="Send it uncompressed.", status=SYNTAX_NOT_SUPPORTED
            )
        key = self._keys.needed(site.name)
        clean = dicom_call(lambda: _clean(dataset, kind, site, key), InstanceRefused, _DAMAGED, "", _AGAIN)
        data = dicom_call(lambda: _as_file(clean), InstanceRefused, _DAMAGED, "", _AGAIN)
        patient, uid = str(clean.PatientID), str(clean.SOPInstanceUID)
        self._check_erased(site.name, patient)
        if self.staging.put(site.name, patient, kind, uid, str(clean.StudyInstanceUID), data) is None:
            _check_same(self.staging.find(site.name, patient, kind, uid), data)
        return self._receive(site.name, patient)

    def _check_erased(self, site: str, patient: str) -> None:
        if time.monotonic() - self._asked > ERASED_S:
            self._erased, self._asked = self._ask_erased(), time.monotonic()
        if self._erased.holds(site, patient):
            raise refused()

    def _receive(self, site: str, patient: str) -> str:
        case = case_id(site, patient)
        state = self._control.case(case, site)
        if state is None or state.state == WITHDRAWN:
            self._control.note_case(site, patient, case, RECEIVED)
        return case


def _check_same(path: Path, data: bytes) -> None:
    try:
        there = path.read_bytes()
    except FileNotFoundError:  # its case was finished and it was given up meanwhile
        return
    if there != data and not dicom_call(lambda: _same(there, data), InstanceRefused, _DAMAGED, "", _AGAIN):
        raise InstanceRefused(
            "an instance of this UID is here with another content.",
            action="Give what was changed a SOP Instance UID of its own.",
            status=DUPLICATE,
        )


def _identity(dataset: Dataset) -> tuple[str, str]:
    """SOP class and instance as the sender wrote them; '' where the instance does not say."""
    meta = getattr(dataset, "file_meta", None) or {}

    def look() -> tuple[str, str]:
        instance = dataset.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID") or ""
        return sop_class(dataset), str(instance)

    return dicom_call(look, InstanceRefused, _DAMAGED, "", _AGAIN)


def _kind(dataset: Dataset, sop: str) -> str | None:
    """Where it belongs; None for what no case is made of."""
    kind = KINDS.get(str(dataset.get("Modality") or ""))
    if kind == IMAGES and not (dataset.get("Rows") and "Image Storage" in UID(sop).name):
        return None
    if kind == IMAGES and "Secondary Capture" in UID(sop).name:
        return None
    return kind


def _check(dataset: Dataset, sop: str, instance: str, study: str | None) -> None:
    missing = [name for name in ("StudyInstanceUID", "SeriesInstanceUID") if not dataset.get(name)]
    missing += ["SOPClassUID"] * (not sop) + ["SOPInstanceUID"] * (not instance)
    if not str(dataset.get("PatientID") or "").strip():
        missing.append("PatientID")
    if missing:
        raise InstanceRefused(f"it lacks {', '.join(missing)}.", action=_AGAIN, status=NO_MATCH)
    if study is not None and str(dataset.StudyInstanceUID) != study:
        raise InstanceRefused("it is of another study.", action="Send it to its own study.", status=OTHER_STUDY)


def _clean(dataset: Dataset, kind: str, site: DicomSite, key: SiteKey) -> Dataset:
    """De-identified; a mask with the house's words for its segments, and with the (moved) day it was drawn."""
    clean = deidentify(dataset, key)
    if kind == MASKS:
        write_house_words(clean, segment_meanings(dataset, site.label_map))
        clean.ContentDate, clean.ContentTime = _drawn(dataset, key, str(clean.PatientID))
    clean.preamble = b"\0" * 128
    return clean


def _drawn(mask: Dataset, key: SiteKey, patient: str) -> tuple[str, str]:
    """Of two masks of one structure the one drawn later counts, whichever arrives first."""
    day, hour = (str(mask.get(f"StructureSet{what}") or mask.get(f"Content{what}") or "") for what in ("Date", "Time"))
    try:
        moved = shifted(key, patient, datetime.strptime(day[:8], "%Y%m%d").date())
    except ValueError:
        return "", ""
    return f"{moved:%Y%m%d}", hour if re.fullmatch(r"\d{6}(\.\d{1,6})?", hour) else ""


def _as_file(clean: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, clean, enforce_file_format=True)
    return buffer.getvalue()


def _same(one: bytes, other: bytes) -> bool:
    first, second = (pydicom.dcmread(io.BytesIO(data)) for data in (one, other))
    if _header(first) != _header(second):
        return False
    if "PixelData" not in first:
        return "PixelData" not in second
    frames = [stored_frames(each, range(int(each.get("NumberOfFrames") or 1)), "") for each in (first, second)]
    return all(np.array_equal(a, b) for a, b in zip(*frames, strict=True))


def _header(dataset: Dataset) -> dict[str, object]:
    found: dict[str, object] = dataset.to_json_dict(bulk_data_threshold=2**30)
    found.pop("7FE00010", None)
    return found


def silence() -> None:
    """The libraries' own warnings and logs quote what was sent."""
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?$")
    for name in ("pydicom", "pynetdicom", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
