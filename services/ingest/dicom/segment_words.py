"""What the segments of a DICOM mask stand for, and how that stands in the staged file.

Segments have names that people typed, and codes. A name is looked up in the site's own label map, read as this
house writes it (``vertebral_body L5``, ``psoas_major left``), or looked up in the label maps that come along, where
all of those that know it agree; then the SNOMED codes are asked. What none of them knows is left alone: nothing is
guessed. De-identification empties names, so this is done at the door, and the staged file carries the house's words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from pydantic import ValidationError
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from feature_store.vocabulary import DISCS, LEVELS, STRUCTURES, UNKNOWN, VERTEBRAE, Side
from pipelines.cases.label_map import LabelMap, shipped_label_map, shipped_names
from pipelines.cases.label_meaning import LabelMeaning

LEFT_RIGHT = {("7771000", "SCT"): Side.LEFT, ("24028007", "SCT"): Side.RIGHT}
SEGMENTS, ROIS = "SegmentSequence", "StructureSetROISequence"


def segment_meanings(mask: Dataset, label_map: LabelMap | None = None) -> dict[int, LabelMeaning]:
    """By segment or ROI number, those that are known; ``label_map`` is the site's own and goes first."""
    found = {}
    for number, name, item in _segments(mask):
        meaning = _in_map(name, label_map) or house_meaning(name) or _everywhere().get(_plain(name)) or _by_code(item)
        if meaning is not None:
            found[number] = meaning
    return found


def write_house_words(mask: Dataset, meanings: dict[int, LabelMeaning]) -> None:
    """Give every segment the house's words for a name, in place; what is not known has none."""
    for number, _, item in _segments(mask):
        words = house_words(meanings[number]) if number in meanings else ""
        if "ROINumber" in item:
            item.ROIName = words
        else:
            item.SegmentLabel = words


def house_words(meaning: LabelMeaning) -> str:
    """``vertebral_body L5 both``."""
    return f"{meaning.structure} {meaning.level} {meaning.side}"


def house_meaning(name: str) -> LabelMeaning | None:
    """The inverse, also of ``vertebral_body L5`` and ``psoas_major left``; None for other words."""
    structure, *rest = name.strip().split()[:4] or [""]
    level, side = UNKNOWN, Side.BOTH.value
    for word in rest:
        if word in LEVELS:
            level = word
        elif word in tuple(Side):
            side = word
        else:
            return None
    return _checked(structure, level, side) if structure in STRUCTURES else None


def _segments(mask: Dataset) -> Iterator[tuple[int, str, Dataset]]:
    for item in mask.get(SEGMENTS) or []:
        yield int(item.SegmentNumber), str(item.get("SegmentLabel") or ""), item
    for item in mask.get(ROIS) or []:
        yield int(item.ROINumber), str(item.get("ROIName") or ""), item


def _in_map(name: str, label_map: LabelMap | None) -> LabelMeaning | None:
    return None if label_map is None else _by_own_name(label_map).get(_plain(name))


def _by_own_name(label_map: LabelMap) -> dict[str, LabelMeaning]:
    return {
        _plain(label.name): LabelMeaning(structure=label.structure, level=label.level, side=label.side)
        for label in label_map.labels.values()
        if label.name
    }


@functools.cache
def _everywhere() -> dict[str, LabelMeaning]:
    """Own names of the shipped maps on which all that know them agree."""
    said: dict[str, set[LabelMeaning]] = {}
    for name in shipped_names():
        for own, meaning in _by_own_name(shipped_label_map(name)).items():
            said.setdefault(own, set()).add(meaning)
    return {own: next(iter(meanings)) for own, meanings in said.items() if len(meanings) == 1}


@functools.cache
def _coded() -> dict[tuple[str, str], tuple[str, str]]:
    """Structure and level by (code, scheme) of pydicom's own SNOMED dictionary."""
    table: dict[tuple[str, str], tuple[str, str]] = {}

    def add(keyword: str, structure: str, level: str) -> None:
        code = getattr(codes.SCT, keyword, None)
        if code is not None:
            table[(code.value, code.scheme_designator)] = (structure, level)

    for level in VERTEBRAE:
        add(f"{level}Vertebra", "vertebra", level)
    for level in DISCS:
        add(f"{level.replace('-', '')}Disc", "intervertebral_disc", level)
    add("Vertebra", "vertebra", UNKNOWN)
    for keyword in ("Sacrum", "BoneStructureOfSacrum"):
        add(keyword, "sacrum", UNKNOWN)
    for keyword in ("ErectorSpinaeMuscle", "StructureOfErectorSpinaeMuscle"):
        add(keyword, "paraspinal_muscle", UNKNOWN)
    return table


def _by_code(item: Dataset) -> LabelMeaning | None:
    """From the property type, or the anatomic region where the type is none of ours; the side from its modifier."""
    for sequence, modifiers in (
        ("SegmentedPropertyTypeCodeSequence", "SegmentedPropertyTypeModifierCodeSequence"),
        ("AnatomicRegionSequence", "AnatomicRegionModifierSequence"),
    ):
        for code in item.get(sequence) or []:
            known = _coded().get(_code(code))
            if known is not None:
                sides = [LEFT_RIGHT.get(_code(one)) for one in code.get(modifiers) or item.get(modifiers) or []]
                side = next((one for one in sides if one), Side.BOTH)
                return _checked(*known, side.value)
    return None


def _code(item: Dataset) -> tuple[str, str]:
    return str(item.get("CodeValue") or ""), str(item.get("CodingSchemeDesignator") or "")


def _checked(structure: str, level: str, side: str) -> LabelMeaning | None:
    try:
        return LabelMeaning(structure=structure, level=level, side=side)
    except ValidationError:
        return None


def _plain(name: str | None) -> str:
    return re.sub(r"[^a-z0-9]+", "_", (name or "").lower()).strip("_")
