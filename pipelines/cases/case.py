"""A case folder, read: usable images with their ROIs, and a finding for everything that is not.

One bad series, mask or label never spoils the rest. Nothing here knows the store; :func:`case_rows` gives
rows of its tables and :func:`store_images` hands canonical files to its blobs.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import SimpleITK as sitk

from feature_store.errors import ImageUnitError, InputError, ManifestError
from feature_store.plain_words import plain_file
from feature_store.vocabulary import RoiName, is_phantom
from pipelines.cases.case_quality import OVERLAYS, CaseQuality, case_overlays, case_quality_rows, judge_case
from pipelines.cases.manifest import CaseManifest, day_offsets, read_manifest, resolve_inside
from pipelines.cases.manifest_schema import Scanner, SeriesEntry
from pipelines.cases.mask_labels import MaskLabels
from pipelines.cases.plain_manifest import plain_manifest, plain_scanner
from pipelines.cases.rois import FoundRois, Roi, find_rois
from pipelines.imaging.images import LoadedImage, check_image, content_hash, load_image, write_canonical
from pipelines.imaging.masks import align_mask, read_mask

MODALITY = {"ct": "CT", "t1_sag": "MR", "t2_sag": "MR", "t2_ax": "MR"}
"""What a DICOM header must say of the paper's sequences; a site's own names may be anything."""
MOST_DAYS_BEFORE = 3650
"""An image older than this at surgery has a wrong date."""

IMAGES = "images"
MASKS = "masks"


@dataclass(frozen=True)
class Finding:
    """One thing that could not be used. ``code`` is the error's class name; ``file`` lies in the case folder.

    Words of a file's name that may be a person's are ``*``: findings are kept.
    """

    code: str
    file: str
    message: str
    action: str

    @classmethod
    def of(cls, error: InputError) -> Finding:
        return cls(error.code, plain_file(error.file), error.message, error.action)

    def line(self) -> str:
        return ": ".join(part for part in (self.code, self.file, self.message) if part)


@dataclass(frozen=True)
class SeriesReading:
    """One entry of ``series``: a checked image, its mask on the same grid (or None), and the ROIs."""

    sequence: str
    segmentation: str
    image: sitk.Image
    image_hash: str
    mask: sitk.Image | None
    mask_hash: str
    rois: list[Roi]
    days_from_index: int | None
    scanner: Scanner


@dataclass(frozen=True)
class CaseReading:
    """What a case folder holds. ``manifest`` carries no dates and is None where case.yaml cannot be used at all.

    ``findings`` are faults; ``notes`` say what does not exist though nothing is wrong (an ``all`` without its
    levels, a series without a mask). ``quality`` has the verdicts on the images and ROIs that are here.
    """

    manifest: CaseManifest | None
    index_date_known: bool = False
    series: list[SeriesReading] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    quality: CaseQuality = field(default_factory=CaseQuality)

    @cached_property
    def overlays(self) -> dict[tuple[str, str], bytes]:
        """A PNG for each (sequence, segmentation), drawn when first asked for."""
        phantom = self.manifest is not None and is_phantom(self.manifest.patient_id)
        return case_overlays(self.series, self.quality, "PHANTOM" if phantom else "")

    @property
    def usable(self) -> bool:
        """Whether at least one image can be kept."""
        return bool(self.series)

    @property
    def rois(self) -> list[RoiName]:
        return sorted({roi.name for series in self.series for roi in series.rois})

    def summary(self) -> str:
        """One line for people: what can be used and what not."""
        sequences = len({series.sequence for series in self.series})
        state = f"{sequences} sequences, {len(self.rois)} ROIs" if self.usable else "nothing in this case can be used"
        return f"{state}; {len(self.findings)} findings"


def read_case(
    case_dir: Path, manifest: CaseManifest | None = None, errors: Iterable[InputError] = (), notes: Iterable[str] = ()
) -> CaseReading:
    """Read and check a case folder. Never raises for what the folder holds: that becomes findings.

    Where another source than ``case.yaml`` says what the folder holds (:mod:`pipelines.cases.bids`), it gives
    the ``manifest``, whose paths lie in ``case_dir``, and what it found wrong or worth a note on the way.
    """
    if manifest is None:
        try:
            manifest, errors = read_manifest(case_dir)
        except ManifestError as error:
            return CaseReading(None, findings=[Finding.of(error)])
    findings = [Finding.of(error) for error in errors]
    manifest, told = plain_manifest(manifest)
    notes = [*notes, *told]
    mask_labels = MaskLabels(manifest.series)
    loaded = _load_images(case_dir, manifest.series, findings)
    studies = [_study_date(entry, loaded.get(_source(entry))) for entry in manifest.series]
    days = day_offsets(manifest.index_date, studies)
    series: list[SeriesReading] = []
    for entry, day in zip(manifest.series, days, strict=True):
        if image := loaded.get(_source(entry)):
            try:
                series.append(_read_series(case_dir, entry, image, day, mask_labels, findings, notes))
            except InputError as error:
                findings.append(Finding.of(error))
    return CaseReading(
        manifest=manifest.without_dates(),
        index_date_known=manifest.index_date is not None,
        series=series,
        findings=list(dict.fromkeys(findings)),
        notes=notes,
        quality=judge_case(series),
    )


def _study_date(entry: SeriesEntry, loaded: LoadedImage | None) -> Any:
    """The manifest's date goes before the header's: pseudonymised headers carry shifted dates."""
    header = loaded.header if loaded else None
    return entry.study_date or (header.study_date if header else None)


_Source = tuple[str, str, int | None]


def _source(entry: SeriesEntry) -> _Source:
    """What decides which image it is: entries may name one DICOM study folder and mean different series of it."""
    return entry.image, entry.sequence, entry.series_number


def _load_images(case_dir: Path, entries: Sequence[SeriesEntry], findings: list[Finding]) -> dict[_Source, LoadedImage]:
    """Each image once, by its source; what cannot be used is missing and has a finding."""
    loaded: dict[_Source, LoadedImage] = {}
    tried: set[_Source] = set()
    for entry in entries:
        if _source(entry) in tried:
            continue
        tried.add(_source(entry))
        try:
            path = resolve_inside(case_dir, entry.image, "image")
            image = load_image(path, entry.image, sequence=entry.sequence, series_number=entry.series_number)
            _check_modality(entry, image)
            check_image(image.image, entry.sequence, entry.image)
            loaded[_source(entry)] = image
        except InputError as error:
            findings.append(Finding.of(error))
    return loaded


def _check_modality(entry: SeriesEntry, loaded: LoadedImage) -> None:
    modality = loaded.header.modality if loaded.header else ""
    wanted = MODALITY.get(entry.sequence, modality)
    if modality and modality != wanted:
        raise ImageUnitError(
            f"the header says {modality[:16]}, which is no {entry.sequence}.",
            action="Name the right series, or give it its own sequence name.",
            file=entry.image,
        )


def _read_series(
    case_dir: Path,
    entry: SeriesEntry,
    loaded: LoadedImage,
    day: int | None,
    mask_labels: MaskLabels,
    findings: list[Finding],
    notes: list[str],
) -> SeriesReading:
    if day is not None and not -MOST_DAYS_BEFORE <= day <= 0:
        rule = "after index_date, so it is not preoperative" if day > 0 else "more than ten years before index_date"
        raise ManifestError(
            f"the image was taken {rule}.", action="Mend index_date or study_date, or leave it out.", file=entry.image
        )
    mask, found = None, FoundRois()
    if entry.mask is None:
        notes.append(f"{entry.sequence} has no mask, so it has no ROIs yet")
    else:
        try:
            wanted = {*entry.label_map.labels, *entry.label_map.also} if entry.label_map else {*entry.labels}
            read = read_mask(resolve_inside(case_dir, entry.mask, "mask"), entry.mask, loaded, wanted)
            mask = align_mask(read, loaded.image, entry.mask)
            labels, left_alone = mask_labels.of(entry, mask)
            notes.extend(f"{entry.sequence}: {note}" for note in left_alone)
            found = find_rois(mask, labels, entry.sequence, entry.segmentation, entry.mask)
        except InputError as error:
            findings.append(Finding.of(error))
    findings.extend(Finding.of(error) for error in found.errors)
    notes.extend(f"{entry.sequence}: {absent.reason}" for absent in found.absent)
    header = loaded.header
    return SeriesReading(
        sequence=entry.sequence,
        segmentation=entry.segmentation,
        image=loaded.image,
        image_hash=content_hash(loaded.image),
        mask=mask,
        mask_hash="" if mask is None else content_hash(mask),
        rois=found.rois,
        days_from_index=day,
        scanner=plain_scanner(
            Scanner(
                vendor=entry.scanner.vendor or (header.vendor if header else None),
                model=entry.scanner.model or (header.model if header else None),
                field_strength_t=entry.scanner.field_strength_t or (header.field_strength_t if header else None),
            )
        ),
    )


def case_rows(reading: CaseReading) -> dict[str, list[dict[str, Any]]]:
    """Rows of ``cases``, ``series``, ``rois``, ``quality`` and ``clinical`` as their schemas declare them.

    Empty without a usable manifest: nobody knows whose case it is.
    """
    manifest = reading.manifest
    if manifest is None:
        return {}
    key = {"site": manifest.site, "patient_id": manifest.patient_id, "case_id": manifest.case_id}
    series = {one.sequence: one for one in reversed(reading.series)}
    return {
        "cases": [
            {
                **key,
                "manifest_hash": _manifest_hash(manifest, reading),
                "sequences": sorted(series),
                "index_date_known": reading.index_date_known,
                "rejected": [finding.line() for finding in reading.findings],
            }
        ],
        "series": [{**key, **_series_row(series[sequence])} for sequence in sorted(series)],
        "rois": [{**key, **roi_row(roi, one.image_hash, one.mask_hash)} for one in reading.series for roi in one.rois],
        "quality": [{**key, **row} for row in case_quality_rows(reading.series, reading.quality, reading.overlays)],
        "clinical": [{**key, "days_from_index": 0, **manifest.clinical.model_dump()}],
    }


def _series_row(one: SeriesReading) -> dict[str, Any]:
    return {
        "sequence": one.sequence,
        "image_hash": one.image_hash,
        "size": list(one.image.GetSize()),
        "spacing": list(one.image.GetSpacing()),
        "origin": list(one.image.GetOrigin()),
        "direction": list(one.image.GetDirection()),
        "days_from_index": one.days_from_index,
        "scanner_vendor": one.scanner.vendor,
        "scanner_model": one.scanner.model,
        "field_strength_t": one.scanner.field_strength_t,
    }


def roi_row(roi: Roi, image_hash: str, mask_hash: str, segmenter: str | None = None) -> dict[str, Any]:
    """A row of ``rois`` but for the case's key; ``segmenter`` is the id of the U-Net that drew the mask."""
    return {
        "sequence": roi.name.sequence,
        "structure": roi.name.structure,
        "level": roi.name.level,
        "side": str(roi.name.side),
        "segmentation": roi.name.segmentation,
        "image_hash": image_hash,
        "mask_hash": mask_hash,
        "labels": list(roi.labels),
        "levels": list(roi.levels),
        "voxel_count": roi.voxel_count,
        "volume_mm3": roi.volume_mm3,
        "segmenter": segmenter,
    }


def _manifest_hash(manifest: CaseManifest, reading: CaseReading) -> str:
    """Of the manifest's meaning: file names do not count (the files' contents have hashes), dates as offsets."""
    by_content = {"image", "series_number", "mask", "study_date"}
    meaning = manifest.model_dump(mode="json", exclude={"series": {"__all__": by_content}})
    for entry, described in zip(manifest.series, meaning["series"], strict=True):
        described.pop("label_map")
        if entry.label_map is not None:
            described["labels"] = entry.label_map.id
    meaning["series"].sort(key=lambda entry: json.dumps(entry, sort_keys=True))
    meaning["days"] = sorted({(one.sequence, one.days_from_index) for one in reading.series}, key=str)
    meaning["index_date_known"] = reading.index_date_known
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


class Blobs(Protocol):
    """The part of the store's blobs that is needed here."""

    def has(self, kind: str, name: str) -> bool:
        """Whether it is kept already."""

    def put_file(self, kind: str, path: Path, sha256: str | None = None) -> str:
        """Keep a file under the given hash."""


def store_images(reading: CaseReading, blobs: Blobs) -> None:
    """Keep each image and aligned mask once, as canonical NRRD under its content hash."""
    for (kind, digest), image in _images(reading).items():
        store_image(kind, image, digest, blobs)


def names_of_blobs(reading: CaseReading) -> dict[str, set[str]]:
    """What images, masks and pictures of the case are kept under, by kind."""
    names = {kind: {name for of, name in _images(reading) if of == kind} for kind in (IMAGES, MASKS)}
    return names | {OVERLAYS: {hashlib.sha256(picture).hexdigest() for picture in reading.overlays.values()}}


def _images(reading: CaseReading) -> dict[tuple[str, str], sitk.Image]:
    found = {(IMAGES, one.image_hash): one.image for one in reading.series}
    return found | {(MASKS, one.mask_hash): one.mask for one in reading.series if one.mask is not None}


def store_image(kind: str, image: sitk.Image, digest: str, blobs: Blobs) -> None:
    """Keep one image or mask under its content hash, unless it is kept already."""
    if blobs.has(kind, digest):
        return
    with tempfile.TemporaryDirectory(prefix="asdeg-") as folder:
        path = Path(folder) / "blob.nrrd"
        write_canonical(image, path)
        blobs.put_file(kind, path, sha256=digest)
