"""A manifest without free text: what people type may name the patient, and is kept only in words we know.

Names of sequences, segmentations, scanners and label maps, diagnosis and procedure stay as they are where all their
words are known (:mod:`feature_store.plain_words`); else the unknown part becomes a code, the same for the same text,
so that groups stay groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from feature_store.plain_words import coded, is_plain, plain_or_coded
from pipelines.cases.label_map import LabelMap
from pipelines.cases.manifest_schema import CaseManifest, Clinical, Scanner, SeriesEntry

_ICD_10 = re.compile(r"[A-Z]\d\d(\.\d{1,2})?")
IN_NAMES = ("files", "anatomy", "rater")


def plain_manifest(manifest: CaseManifest) -> tuple[CaseManifest, list[str]]:
    """The manifest with codes in place of unknown words, and a note for each key that holds one."""
    series = [_plain_entry(entry) for entry in manifest.series]
    plain = manifest.model_copy(update={"series": series, "clinical": plain_clinical(manifest.clinical)})
    return plain, list(_notes(manifest, plain))


def plain_clinical(clinical: Clinical) -> Clinical:
    """Diagnosis and procedure in known words (``lumbar_stenosis``), as an ICD-10 code, or as a code of ours."""
    texts = {"diagnosis": clinical.diagnosis, "procedure": clinical.procedure}
    return clinical.model_copy(update={name: text and _clinical_text(text) for name, text in texts.items()})


def plain_scanner(scanner: Scanner) -> Scanner:
    """Vendor and model in words that scanners are named by."""
    texts = {"vendor": scanner.vendor, "model": scanner.model}
    return scanner.model_copy(update={name: text and plain_or_coded(text, "scanner") for name, text in texts.items()})


def plain_rater(rater: str) -> str:
    """``rater``, ``A``, ``reader_2``; a person's name becomes a code."""
    return plain_or_coded(rater, "rater", kind="rater")


def _clinical_text(text: str) -> str:
    return text if _ICD_10.fullmatch(text) else plain_or_coded(text, "clinical")


def _plain_entry(entry: SeriesEntry) -> SeriesEntry:
    parts = [part if is_plain(part, *IN_NAMES) else coded(part, "x").replace("-", "") for part in _parts(entry)]
    return entry.model_copy(
        update={
            "sequence": "_".join(parts)[:32],
            "segmentation": plain_or_coded(entry.segmentation, *IN_NAMES, kind="reader"),
            "scanner": plain_scanner(entry.scanner),
            "label_map": entry.label_map and _plain_map(entry.label_map),
        }
    )


def _parts(entry: SeriesEntry) -> list[str]:
    return [part for part in entry.sequence.split("_") if part]


def _plain_map(label_map: LabelMap) -> LabelMap:
    """Only a site's own map has words of its own: they stand in notes."""
    if label_map.shipped:
        return label_map
    labels = {n: label.model_copy(update={"name": _organ(label.name)}) for n, label in label_map.labels.items()}
    also = {number: _organ(name) or str(number) for number, name in label_map.also.items()}
    name = plain_or_coded(label_map.name, *IN_NAMES, kind="map")
    return label_map.model_copy(update={"labels": labels, "also": also, "name": name})


def _organ(name: str | None) -> str | None:
    return name if name and is_plain(name, "anatomy") else None


def _notes(before: CaseManifest, after: CaseManifest) -> Iterable[str]:
    action = "is not made of known words and is kept as a code"
    for name in ("diagnosis", "procedure"):
        if getattr(before.clinical, name) != getattr(after.clinical, name):
            yield f"clinical.{name} {action}"
    for old, new in zip(before.series, after.series, strict=True):
        for name in ("sequence", "segmentation", "scanner"):
            if getattr(old, name) != getattr(new, name):
                yield f"{new.sequence}: its {name} {action}"
