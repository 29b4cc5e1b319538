"""Cases whose masks people drew: what there is to learn a sequence's segmentation from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from feature_store.blobs import Blobs
from feature_store.errors import GridMismatch, MaskUnreadable, NotFound, UsageError
from feature_store.schemas import CASES
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from feature_store.vocabulary import ALL, LEVELS, PRIMARY_SEGMENTATION, UNKNOWN, Partition, levels_of_all
from models.segmentation.recipe import SegmentClass
from pipelines.cases.case import CaseReading, case_rows, store_images
from pipelines.imaging.images import read_canonical

Levels = Literal["each", "all", "every"]
"""``each``: the lumbar levels apart, muscles by side; ``all``: one class a structure, the study's ROI; ``every``: all
that was drawn, other levels too."""


@dataclass(frozen=True)
class DrawnCase:
    """One image and the regions people drew in it: of each, its mask's hash and its label numbers there."""

    site: str
    patient_id: str
    image_hash: str
    regions: dict[SegmentClass, tuple[str, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def patient(self) -> str:
        return f"{self.site}/{self.patient_id}"

    @property
    def sources(self) -> list[str]:
        """What decides this case's part in a training: image, masks and label numbers."""
        drawn = (f"{one}:{mask}:{labels}" for one, (mask, labels) in self.regions.items())
        return [self.patient, self.image_hash, *sorted(drawn)]

    def structures(self) -> set[str]:
        return {one.structure for one in self.regions}

    def read_image(self, blobs: Blobs) -> sitk.Image:
        return read_canonical(blobs.local_path("images", self.image_hash), self.image_hash)

    def read_labels(self, blobs: Blobs, classes: Sequence[SegmentClass]) -> sitk.Image:
        """Label map (unsigned 8 bit): label n where ``classes[n - 1]`` is drawn.

        Raises MaskUnreadable where two of the classes share voxels: a voxel can be learnt as one thing only.
        """
        masks = {mask for one, (mask, _) in self.regions.items() if one in classes}
        read = {mask: read_canonical(blobs.local_path("masks", mask), mask) for mask in masks}
        image = self.read_image(blobs)
        labels = np.zeros(image.GetSize()[::-1], dtype=np.uint8)
        for number, one in enumerate(classes, start=1):
            if one not in self.regions:
                continue
            mask, numbers = self.regions[one]
            if read[mask].GetSize() != image.GetSize():
                raise GridMismatch("a stored mask has another size than its image.", action="Ingest the case again.")
            here = np.isin(sitk.GetArrayViewFromImage(read[mask]), numbers)
            if labels[here].any():
                other = classes[int(labels[here].max()) - 1]
                raise MaskUnreadable(
                    f"{one.structure} and {other.structure} share voxels, and a voxel can be one thing only.",
                    action="Name the structures to learn: --structures vertebral_body,intervertebral_disc.",
                )
            labels[here] = number
        label_map = sitk.GetImageFromArray(labels)
        label_map.CopyInformation(image)
        return label_map


def drawn_cases(store: FeatureStore, sequence: str, *, with_test_patients: bool = False) -> list[DrawnCase]:
    """Cases with an image of the sequence and regions of the primary segmentation that no U-Net drew.

    Patients whom a cohort keeps for judging (any partition but training) are left out unless asked for.
    """
    snapshot = store.snapshot()
    kept_apart = set() if with_test_patients else _kept_apart(snapshot)
    images = {
        tuple(row[name] for name in CASES.key): row["image_hash"]
        for row in snapshot.table("series", [*CASES.key, "image_hash"], {"sequence": sequence}).to_pylist()
    }
    where = {"sequence": sequence, "segmentation": PRIMARY_SEGMENTATION}
    found: dict[tuple[str, ...], DrawnCase] = {}
    for row in snapshot.table("rois", where=where).to_pylist():
        key = tuple(row[name] for name in CASES.key)
        if row["segmenter"] or images.get(key) != row["image_hash"] or (row["site"], row["patient_id"]) in kept_apart:
            continue
        case = found.setdefault(key, DrawnCase(row["site"], row["patient_id"], row["image_hash"]))
        one = SegmentClass(structure=row["structure"], level=row["level"], side=row["side"])
        case.regions[one] = (row["mask_hash"], tuple(row["labels"]))
    return [found[key] for key in sorted(found)]


def store_of_readings(readings: Iterable[CaseReading], at: Path) -> FeatureStore:
    """A store of its own for cases that were read from folders, so that they are learnt from as stored ones are.

    Raises UsageError where none of them can be used.
    """
    store = FeatureStore.open(at, create=True)
    usable = False
    for reading in readings:
        if reading.manifest is not None and reading.usable:
            store_images(reading, store.blobs)
            rows = case_rows(reading)
            store.push({name: rows[name] for name in ("series", "rois")}, kind="case", source=reading.manifest.site)
            usable = True
    if not usable:
        raise UsageError("none of the cases can be used.", action="`asdeg validate` says why.")
    return store


def _kept_apart(snapshot: Snapshot) -> set[tuple[str, str]]:
    rows = snapshot.table("cohorts", ["site", "patient_id", "partition"]).to_pylist()
    return {(row["site"], row["patient_id"]) for row in rows if row["partition"] != Partition.TRAINING}


def choose_classes(
    cases: Sequence[DrawnCase], levels: Levels = "each", structures: Sequence[str] | None = None
) -> list[SegmentClass]:
    """The classes to learn, in order of structure, level and side. Raises NotFound where nothing fits."""
    wanted = set(structures) if structures is not None else {s for case in cases for s in case.structures()}
    seen = Counter(one for case in cases for one in case.regions if one.structure in wanted)
    by_structure: dict[str, list[SegmentClass]] = defaultdict(list)
    for one in seen:
        by_structure[one.structure].append(one)
    chosen: list[SegmentClass] = []
    for structure, there in by_structure.items():
        union = [one for one in there if one.level == ALL and one.side == "both"]
        own = [one for one in there if one not in union]
        lumbar = levels_of_all(structure)
        if levels == "all" and union:
            chosen += union
        elif levels == "each" and lumbar and any(one.level in lumbar for one in own):
            chosen += [one for one in own if one.level in lumbar]
        elif levels == "each" and lumbar and any(one.level == UNKNOWN for one in own):
            chosen += [one for one in own if one.level == UNKNOWN]
        else:
            chosen += own or union
    missing = sorted(wanted - set(by_structure))
    if missing or not chosen:
        raise NotFound(
            f"no case has a drawn mask of {', '.join(missing) or 'anything'} in this sequence.",
            action="Ingest cases with masks, or name other --structures.",
        )
    return sorted(chosen, key=lambda one: (one.structure, LEVELS.index(one.level), one.side))


def usable_for(case: DrawnCase, classes: Sequence[SegmentClass]) -> bool:
    """Whether the case was drawn in the way of these classes: of each structure, at least one of them.

    A level that is missing then lies outside the image; a structure that is missing was not drawn, and learning
    it as background would be wrong.
    """
    structures = {one.structure for one in classes}
    return structures == {one.structure for one in classes if one in case.regions}
