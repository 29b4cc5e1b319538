"""From the staged instances of a patient to one case: which series are taken, and which masks drawn on them count.

The case is a function of what is staged, the site's settings and what the site said, and of nothing else: not of the
order or the time of arrival. So what arrives twice, late, in pieces or by both doors ends the same.

**Series.** Of each sequence that the site sends, a volume whose header states it (see
:mod:`pipelines.imaging.dicom_study`: plane and weighting must be stated, not merely not contradicted). Where the
site named a series number, that one. Otherwise: of several, those that a mask was drawn on; of studies, the
newest (one after the surgery only where there is no other, and then it is refused); then the study's own rules. A
tie is an error, which lists the candidates.

**Masks.** A mask belongs to the series that it refers to, or else to the only taken series of its frame of reference.
Of two masks that draw one structure the one drawn later counts; drawn at the same time, both are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from pydicom.dataset import Dataset

from feature_store.errors import DicomSeriesError, ImageUnitError, InputError, MaskUnreadable
from pipelines.cases.case import CaseReading, read_case
from pipelines.cases.label_meaning import LabelMeaning
from pipelines.cases.manifest import CaseManifest
from pipelines.cases.manifest_schema import Clinical, SeriesEntry
from pipelines.imaging.dicom_file import read_dataset
from pipelines.imaging.dicom_study import Candidate, DicomStudy, read_study
from services.ingest.dicom.segment_words import segment_meanings
from services.ingest.dicom.sites import DicomSite
from services.ingest.dicom.staging import IMAGES, MASKS, StagedCase

FOLDER = "DICOM"
"""What the staged images are called in errors."""


@dataclass(frozen=True)
class Said:
    """What the site said of the case besides its images. The index date is moved as the images' dates are."""

    index_date: date | None = None
    clinical: Clinical = field(default_factory=Clinical)
    series_numbers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Mask:
    path: Path
    name: str
    drawn: tuple[str, str]
    series: frozenset[str]
    frames_of_reference: frozenset[str]
    meanings: dict[int, LabelMeaning]


@dataclass(frozen=True)
class Used:
    """What of the staged instances one sequence was made of: its series, and the files by their names."""

    series: str
    images: tuple[str, ...]
    masks: tuple[str, ...]


@dataclass(frozen=True)
class StagedReading:
    """A case, what it was made of, and the (moved) day each image was taken, by sequence."""

    case: CaseReading
    used: dict[str, Used]
    days: dict[str, date]


def read_staged(case: StagedCase, site: DicomSite, said: Said, view: Path) -> StagedReading:
    """Read and check a patient's case as :func:`pipelines.cases.case.read_case` does any other.

    ``view`` is an empty folder on the staging folder's file system; the case folder is laid out in it.
    """
    errors: list[InputError] = []
    notes: list[str] = []
    masks = list(_masks(case, errors))
    taken = _taken(case, site, said, masks, errors, notes)
    entries: list[SeriesEntry] = []
    used = {}
    left = list(masks)
    for sequence, chosen in taken.items():
        images = sorted({frame.path for frame in chosen.volume.frames})
        _link(images, view / sequence)
        mine = [mask for mask in masks if _belongs(mask, chosen, taken)]
        left = [mask for mask in left if mask not in mine]
        found, counted = _entries(sequence, mine, view, errors, notes)
        entries += found
        used[sequence] = Used(_series(chosen), tuple(path.stem for path in images), tuple(sorted(counted)))
    errors += [
        MaskUnreadable(
            "it was drawn on no series that is taken.",
            action="Send the series it was drawn on, or name it by its number.",
            file=mask.name,
        )
        for mask in left
    ]
    if not entries and not errors:
        wanted = ", ".join(site.sequences)
        message = f"nothing that was sent fits {wanted}."
        errors.append(DicomSeriesError(message, action="Send the series of the case.", file=FOLDER))
    manifest = CaseManifest(patient_id=case.patient_id, site=case.site, index_date=said.index_date, series=entries)
    days = {sequence: day for sequence, chosen in taken.items() if (day := chosen.header.study_date)}
    reading = read_case(view, manifest, errors, notes)
    assert reading.manifest is not None
    known = reading.manifest.model_copy(update={"clinical": said.clinical})  # its words are plain or codes already
    return StagedReading(replace(reading, manifest=known), used, days)


def _taken(
    case: StagedCase, site: DicomSite, said: Said, masks: Sequence[_Mask], errors: list[InputError], notes: list[str]
) -> dict[str, Candidate]:
    if not case.files(IMAGES):
        errors.append(DicomSeriesError("no image has come.", action="Send the series as well.", file=FOLDER))
        return {}
    try:
        study = read_study(case.folder / IMAGES, FOLDER)
    except InputError as error:
        errors.append(error)
        return {}
    drawn_on = frozenset().union(*(mask.series for mask in masks))
    taken = {}
    for sequence in dict.fromkeys((*site.sequences, *said.series_numbers)):
        try:
            chosen = _chosen(study, sequence, said, drawn_on)
        except (DicomSeriesError, ImageUnitError) as error:
            errors.append(error)
            continue
        if chosen is None:
            notes.append(f"nothing that was sent is a {sequence}")
        else:
            taken[sequence] = chosen
    return taken


def _chosen(study: DicomStudy, sequence: str, said: Said, drawn_on: frozenset[str]) -> Candidate | None:
    if sequence in said.series_numbers:
        return study.chosen(sequence, said.series_numbers[sequence])
    fitting = [one for one in study.candidates if not one.left_out and not one.contradiction(sequence, stated=True)]
    if not fitting:
        return None
    fitting = [one for one in fitting if _series(one) in drawn_on] or fitting
    after = said.index_date or date.max
    fitting = [one for one in fitting if (one.header.study_date or date.min) <= after] or fitting
    newest = max(one.header.study_date or date.min for one in fitting)
    fitting = [one for one in fitting if (one.header.study_date or date.min) == newest]
    files = {frame.path for one in fitting for frame in one.volume.frames}
    return DicomStudy(tuple(fitting), len(files), FOLDER).chosen(sequence)


def _masks(case: StagedCase, errors: list[InputError]) -> Iterator[_Mask]:
    for number, path in enumerate(case.files(MASKS), start=1):
        name = f"mask {number}"
        try:
            dataset = read_dataset(path, name, MaskUnreadable)
        except InputError as error:
            errors.append(error)
            continue
        yield _Mask(
            path,
            name,
            (str(dataset.get("ContentDate") or ""), str(dataset.get("ContentTime") or "")),
            frozenset(_referred(dataset)),
            frozenset(_frames_of_reference(dataset)),
            segment_meanings(dataset),
        )


def _referred(mask: Dataset) -> Iterator[str]:
    """Series that a segmentation or structure set says it was drawn on."""
    for item in mask.get("ReferencedSeriesSequence") or []:
        yield str(item.get("SeriesInstanceUID") or "")
    for frame in mask.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            for item in study.get("RTReferencedSeriesSequence") or []:
                yield str(item.get("SeriesInstanceUID") or "")


def _frames_of_reference(mask: Dataset) -> Iterator[str]:
    if mask.get("FrameOfReferenceUID"):
        yield str(mask.FrameOfReferenceUID)
    for keyword in ("StructureSetROISequence", "ReferencedFrameOfReferenceSequence"):
        for item in mask.get(keyword) or []:
            frame = item.get("ReferencedFrameOfReferenceUID") or item.get("FrameOfReferenceUID")
            if frame:
                yield str(frame)


def _belongs(mask: _Mask, chosen: Candidate, taken: dict[str, Candidate]) -> bool:
    if mask.series - {""}:
        return _series(chosen) in mask.series
    same = [one for one in taken.values() if one.header.frame_of_reference in mask.frames_of_reference]
    return len({_series(one) for one in same}) == 1 and chosen in same


def _series(candidate: Candidate) -> str:
    """Its Series Instance UID: a frame's key is study, series and series number."""
    return candidate.volume.frames[0].series[1]


def _entries(
    sequence: str, masks: Sequence[_Mask], view: Path, errors: list[InputError], notes: list[str]
) -> tuple[list[SeriesEntry], list[str]]:
    """One entry a mask that counts, or one without a mask; and the names of the masks that count."""
    entries, names = [], []
    for number, mask in enumerate(sorted(masks, key=lambda one: (one.drawn, one.path.name), reverse=True), start=1):
        counted, replaced, tied = _counted(mask, masks)
        if tied:
            errors.append(
                MaskUnreadable(
                    f"it and another mask draw {', '.join(sorted(tied))} of {sequence}, and neither is newer.",
                    action="Send one more that replaces both, with the time it was drawn.",
                    file=mask.name,
                )
            )
        if replaced:
            notes.append(f"{sequence}: {', '.join(sorted(replaced))} of an older mask is replaced by a newer one")
        if not mask.meanings:
            errors.append(
                MaskUnreadable(
                    "no name or code of its segments says what they are.",
                    action="Name them as `asdeg label-maps` lists, or give the site a label map.",
                    file=mask.name,
                )
            )
        if counted:
            file = f"{sequence}_mask_{number}.dcm"
            os.link(mask.path, view / file)
            names.append(mask.path.stem)
            entries.append(SeriesEntry(sequence=sequence, image=sequence, mask=file, labels=counted))
    return entries or [SeriesEntry(sequence=sequence, image=sequence)], names


def _counted(mask: _Mask, masks: Sequence[_Mask]) -> tuple[dict[int, LabelMeaning], set[str], set[str]]:
    """Labels of the mask that count; structures that a newer mask draws; structures on which two are tied."""
    others = [other for other in masks if other is not mask]
    mine = {meaning.structure for meaning in mask.meanings.values()}
    newer = {m.structure for other in others if other.drawn > mask.drawn for m in other.meanings.values()} & mine
    tied = {m.structure for other in others if other.drawn == mask.drawn for m in other.meanings.values()} & mine
    tied -= newer
    counted = {n: meaning for n, meaning in mask.meanings.items() if meaning.structure not in newer | tied}
    return counted, newer, tied


def _link(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir()
    for file in files:
        os.link(file, folder / file.name)
