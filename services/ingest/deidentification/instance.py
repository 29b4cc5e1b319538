"""One DICOM instance, made anew without its patient.

The Basic Profile of DICOM PS3.15 with the options *Retain Longitudinal Temporal Information with Modified Dates* (the
study date, moved by the site's key) and *Clean Descriptors* (names of regions made of anatomical words). More goes
than the profile asks for: only what the readers need is copied (:mod:`kept`). Pixels stay as they are, bit for bit,
whatever they are compressed with.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from feature_store.errors import DeidentificationRefused, DicomSeriesError, UsageError
from pipelines.imaging.dicom_file import dicom_call, sop_class
from services.ingest.deidentification.kept import allowed_vrs, kept
from services.ingest.deidentification.profile import EDITION
from services.ingest.deidentification.pseudonym import pseudonym, shifted
from services.ingest.deidentification.refusals import refuse_what_shows
from services.ingest.deidentification.site_key import SiteKey
from services.ingest.deidentification.values import new_uid

METHOD = f"{EDITION} Basic Profile; only listed attributes kept"
METHOD_CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113105", "Clean Descriptors Option"),
)
_EMPTY = ("AccessionNumber", "PatientBirthDate", "PatientSex", "ReferringPhysicianName", "StudyID", "StudyTime")
"""Attributes of type 2: they must be there, and may be empty."""
_PIXEL_DATA = BaseTag(0x7FE00010)


def deidentify(dataset: Dataset, key: SiteKey) -> Dataset:
    """A new data set, with its file meta group, that says nothing about who the patient is; ``dataset`` stays.

    PatientID is the pseudonym. UIDs are new and stay consistent between instances, series, masks, days and processes.
    StudyDate is moved (:func:`pseudonym.shifted`, by the pseudonym); move the surgery date by the same.

    Raises DeidentificationRefused for what may show the patient in its pixels or is no image or mask, or comes without
    a patient id; DicomSeriesError where the data set is damaged.
    """
    return dicom_call(lambda: _deidentified(dataset, key), DicomSeriesError, "an instance's header is damaged", "")


def _deidentified(dataset: Dataset, key: SiteKey) -> Dataset:
    refuse_what_shows(dataset)
    try:
        patient = pseudonym(key, str(dataset.get("PatientID") or ""))
    except UsageError:
        raise DeidentificationRefused(
            "An instance comes without a patient id.", action="Send it from a system that writes PatientID."
        ) from None
    made = _kept(dataset, key)
    made.file_meta = _file_meta(dataset, key)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID
    made.PatientName = made.PatientID = patient
    day = _study_date(dataset)
    made.StudyDate = "" if day is None else f"{shifted(key, patient, day):%Y%m%d}"
    for keyword in _EMPTY:
        setattr(made, keyword, "")
    _complete_mask(made)
    _say_how(made)
    made.set_original_encoding(dataset.original_encoding[0], dataset.original_encoding[1], "iso8859")
    return made


def _kept(dataset: Dataset, key: SiteKey) -> Dataset:
    made, rules = Dataset(), kept()
    for tag in dataset.keys():  # noqa: SIM118  # iterating over the data set itself would parse what is not kept
        if tag not in rules:
            continue
        element = dataset[tag]
        rule = rules[tag]
        if element.VR not in allowed_vrs(tag):
            continue
        if rule is None:
            made[tag] = DataElement(tag, "SQ", [_kept(item, key) for item in element.value])
        elif element.is_empty:
            made[tag] = DataElement(tag, element.VR, None)
        elif (value := rule(element.value, key)) is not None:
            made[tag] = _element(element, value)
    return made


def _element(element: DataElement, value: Any) -> DataElement:
    made = DataElement(element.tag, element.VR, value, already_converted=value is element.value)
    if element.tag == _PIXEL_DATA:
        made.is_undefined_length = element.is_undefined_length
    return made


def _file_meta(dataset: Dataset, key: SiteKey) -> FileMetaDataset:
    """A new one: the old one names machines, and may hold anything in private information."""
    old = getattr(dataset, "file_meta", None) or FileMetaDataset()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class(dataset))
    instance = str(dataset.get("SOPInstanceUID") or old.get("MediaStorageSOPInstanceUID") or "")
    if not instance:
        raise DeidentificationRefused("An instance comes without its own UID.", action="Export the series again.")
    meta.MediaStorageSOPInstanceUID = UID(new_uid(key, instance))
    meta.TransferSyntaxUID = old.get("TransferSyntaxUID") or _syntax(dataset)
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    return meta


def _syntax(dataset: Dataset) -> UID:
    implicit, little = dataset.original_encoding
    if little is False:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def _study_date(dataset: Dataset) -> date | None:
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate"):
        text = str(dataset.get(keyword) or "")
        try:
            return datetime.strptime(text[:8], "%Y%m%d").date()
        except ValueError:
            continue
    return None


def _complete_mask(made: Dataset) -> None:
    """Attributes that a SEG or RTSTRUCT must have and whose text is not kept."""
    for item in made.get("SegmentSequence") or []:
        if not item.get("SegmentLabel"):
            item.SegmentLabel = f"segment {item.get('SegmentNumber', 0)}"
    for item in made.get("StructureSetROISequence") or []:
        if not item.get("ROIName"):
            item.ROIName = f"roi {item.get('ROINumber', 0)}"
    if made.get("Modality") == "RTSTRUCT":
        made.StructureSetLabel, made.StructureSetDate, made.StructureSetTime = "STRUCTURES", "", ""
    if made.get("Modality") == "SEG":
        made.ContentLabel = "SEGMENTATION"


def _say_how(made: Dataset) -> None:
    made.PatientIdentityRemoved = "YES"
    made.DeidentificationMethod = METHOD
    made.DeidentificationMethodCodeSequence = [_code(*code) for code in METHOD_CODES]
    made.LongitudinalTemporalInformationModified = "MODIFIED"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
