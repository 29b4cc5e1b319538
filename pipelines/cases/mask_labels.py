"""What the label numbers of one mask mean: as case.yaml lists them, or as a label map says of what is there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk

from feature_store.errors import LabelEmpty, ManifestError
from pipelines.cases.manifest_schema import SeriesEntry
from pipelines.cases.rois import LabelName


class MaskLabels:
    """Names of the labels of a case's masks, one mask after the other.

    Two masks of an image may draw the same structure (SPINEPS writes discs into both of its masks). A
    structure that case.yaml lists belongs to the mask it is listed for; where only label maps know it, the
    first mask that holds it has it, and the others' is left alone with a note.
    """

    def __init__(self, entries: Iterable[SeriesEntry]) -> None:
        self._drawn: set[tuple[str, str, str]] = {
            (entry.sequence, entry.segmentation, label.structure)
            for entry in entries
            for label in entry.labels.values()
        }

    def of(self, entry: SeriesEntry, mask: sitk.Image) -> tuple[dict[int, LabelName], list[str]]:
        """Declared labels (all of them), or those of the map that are in the mask, and notes on the others.

        Raises LabelEmpty where the map names nothing that is there, ManifestError where other masks drew all of it.
        """
        if entry.label_map is None:
            return {number: label.label_name for number, label in entry.labels.items()}, []
        present = np.flatnonzero(np.bincount(sitk.GetArrayViewFromImage(mask).ravel()))
        named, notes = entry.label_map.read(present)
        if not named:
            raise LabelEmpty(
                f"the mask holds no label that {entry.label_map.name} has a structure for.",
                action="Name the label map that the mask was drawn with: `asdeg label-maps` lists them.",
                file=entry.mask or "",
            )
        structures = sorted({name.structure for name in named.values()})
        keys = {structure: (entry.sequence, entry.segmentation, structure) for structure in structures}
        taken = [structure for structure in structures if keys[structure] in self._drawn]
        if taken == structures:
            raise ManifestError(
                f"every structure of the mask ({', '.join(taken)}) is drawn by another mask of this segmentation.",
                action="Give a repeated segmentation a name of its own, or leave one of the masks out.",
                file=entry.mask or "",
            )
        self._drawn |= set(keys.values())
        notes += [f"{structure} is drawn by another mask too and is left alone in this one" for structure in taken]
        return {number: name for number, name in named.items() if name.structure not in taken}, notes
