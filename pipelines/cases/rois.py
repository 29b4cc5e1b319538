"""From the labels a site declares to regions of interest with names.

Every distinct (structure, level, side) is an ROI of its own; labels declared alike are united. Beside them
stands ``all`` (both sides): of bones the union of L1 to L5, of discs of L1-L2 to L5-S1, of muscles and the
sacrum of every label. A label declared with level ``all`` is itself the ``all``. Where nothing of the union
is there, ``all`` does not exist and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from feature_store.errors import InputError, LabelEmpty, RoiTooSmall
from feature_store.vocabulary import ALL, LEVELS, PRIMARY_SEGMENTATION, UNKNOWN, RoiName, Side, levels_of_all

MIN_ROI_VOXELS = 8
"""Fewer voxels carry no texture: a 2 x 2 x 2 block is the smallest region with neighbours in every direction."""
MIN_ROI_DIMENSIONS = 2
"""PyRadiomics refuses a line of voxels (its ``minimumROIDimensions``)."""


@dataclass(frozen=True)
class LabelName:
    """What one label number of a mask stands for."""

    structure: str
    level: str = UNKNOWN
    side: str = Side.BOTH.value


@dataclass(frozen=True)
class Roi:
    """A region that features can be computed on: the voxels of ``labels`` in its mask."""

    name: RoiName
    labels: tuple[int, ...]
    levels: tuple[str, ...]
    voxel_count: int
    volume_mm3: float


@dataclass(frozen=True)
class AbsentRoi:
    """An ``all`` that does not exist, and why."""

    name: RoiName
    reason: str


@dataclass(frozen=True)
class FoundRois:
    """Usable ROIs in name order, the absent ``all``, and what was wrong with single labels."""

    rois: list[Roi] = field(default_factory=list)
    absent: list[AbsentRoi] = field(default_factory=list)
    errors: list[InputError] = field(default_factory=list)


def find_rois(
    mask: sitk.Image,
    labels: Mapping[int, LabelName],
    sequence: str,
    segmentation: str = PRIMARY_SEGMENTATION,
    file: str = "",
) -> FoundRois:
    """Name the regions of a label map. Label numbers that are not declared are left alone.

    The result's ``errors`` hold a LabelEmpty for each declared label without a voxel, and a RoiTooSmall for
    each region under MIN_ROI_VOXELS voxels or on a single line; the others are unaffected.
    """
    voxels = sitk.GetArrayViewFromImage(mask)
    counts = np.bincount(voxels.ravel(), minlength=max(labels, default=0) + 1)
    found = FoundRois()
    present: dict[int, LabelName] = {}
    for number in sorted(labels):
        if counts[number]:
            present[number] = labels[number]
        else:
            found.errors.append(
                LabelEmpty(
                    f"label {number} ({labels[number].structure}) is declared and has no voxel.",
                    action="Draw it, or take it out of labels in case.yaml.",
                    file=file,
                )
            )
    groups = _own(present) | _unions(present)
    voxel_mm3 = float(np.prod(mask.GetSpacing()))
    for (structure, level, side), numbers in sorted(groups.items()):
        name = RoiName(sequence, structure, level, side, segmentation)
        count = int(counts[list(numbers)].sum())
        if count < MIN_ROI_VOXELS or _dimensions(voxels, numbers, count) < MIN_ROI_DIMENSIONS:
            found.errors.append(
                RoiTooSmall(
                    f"{structure} {level} ({side}) has {count} voxels; at least {MIN_ROI_VOXELS}, "
                    "not all on one line, are needed.",
                    action="Check the drawing, or take the label out of case.yaml.",
                    file=file,
                )
            )
            continue
        levels = tuple(sorted({present[n].level for n in numbers}, key=LEVELS.index))
        found.rois.append(Roi(name, numbers, levels, count, count * voxel_mm3))
    for structure in sorted({name.structure for name in labels.values()}):
        if (structure, ALL, Side.BOTH.value) not in groups:
            name = RoiName(sequence, structure, segmentation=segmentation)
            found.absent.append(AbsentRoi(name, _why_absent(structure, labels, present)))
    return found


def roi_mask(mask: sitk.Image, labels: Iterable[int]) -> np.ndarray:
    """Boolean array (z, y, x) of the voxels that carry one of ``labels``."""
    voxels = sitk.GetArrayViewFromImage(mask)
    wanted = np.zeros(int(voxels.max()) + 1, dtype=bool)
    wanted[[number for number in labels if number < wanted.size]] = True
    inside = np.empty(voxels.shape, dtype=bool)
    for part, slice_ in zip(inside, voxels, strict=True):
        part[...] = wanted[slice_]  # slice by slice: NumPy indexes with 64 bits a voxel
    return inside


_Groups = dict[tuple[str, str, str], tuple[int, ...]]


def _own(present: Mapping[int, LabelName]) -> _Groups:
    groups: _Groups = {}
    for number, name in present.items():
        key = (name.structure, name.level, str(name.side))
        groups[key] = (*groups.get(key, ()), number)
    return groups


def _unions(present: Mapping[int, LabelName]) -> _Groups:
    groups: _Groups = {}
    for structure in {name.structure for name in present.values()}:
        of_structure = {n: name for n, name in present.items() if name.structure == structure}
        whole = [n for n, name in of_structure.items() if name.level == ALL and name.side == Side.BOTH]
        levels = levels_of_all(structure)
        numbers = whole or [n for n, name in of_structure.items() if not levels or name.level in (*levels, ALL)]
        if numbers:
            groups[structure, ALL, Side.BOTH.value] = tuple(sorted(numbers))
    return groups


def _why_absent(structure: str, labels: Mapping[int, LabelName], present: Mapping[int, LabelName]) -> str:
    declared = {name.level for name in labels.values() if name.structure == structure}
    levels = levels_of_all(structure)
    if not levels or declared & {*levels, ALL}:
        return f"every label of {structure} that `all` is made of is empty"
    given = sorted({name.level for name in present.values() if name.structure == structure}, key=LEVELS.index)
    have = f"the mask has {', '.join(given)}" if given else "its labels are empty"
    return f"`all` of {structure} is the union of {levels[0]} to {levels[-1]}; {have}"


def _dimensions(voxels: np.ndarray, numbers: tuple[int, ...], count: int) -> int:
    """Along how many axes the region is more than one voxel thick; a large region needs no look."""
    if count > max(voxels.shape):
        return MIN_ROI_DIMENSIONS
    places = np.nonzero(np.isin(voxels, numbers))
    return sum(int(place.max() > place.min()) for place in places)
