"""Can features of this ROI mean anything? Size, pieces, holes, the image's edge, intensities, place.

Each (structure, level, side) of a mask is measured once. A union (``all``) is judged by the sum of its
parts, so that it has as many pieces as levels even where neighbours touch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import SimpleITK as sitk

from feature_store.vocabulary import ALL, LUMBAR_DISCS, LUMBAR_VERTEBRAE, STRUCTURES, UNKNOWN, StructureKind
from pipelines.cases.quality.body_axes import AXES, BodyAxes
from pipelines.cases.quality.order import Key, mirrored, out_of_order
from pipelines.cases.quality.pieces import Region, boxes, joined, measure
from pipelines.cases.quality.series import Intensities
from pipelines.cases.quality.settings import DEFAULT, QualitySettings
from pipelines.cases.quality.verdict import Number, Quality, Reason, fail, warn
from pipelines.cases.rois import Roi

ONE_PIECE = ("vertebral_body", "intervertebral_disc")
"""Of these one level cannot be two pieces; the arch of a whole vertebra may part from its body in thick slices."""


def judge_rois(
    image: sitk.Image,
    mask: sitk.Image,
    rois: Sequence[Roi],
    intensities: Intensities,
    settings: QualitySettings = DEFAULT,
) -> list[Quality]:
    """A verdict for each of ``rois``, which are those of ``mask``, a label map on the image's grid."""
    axes = BodyAxes.of(image)
    voxels = axes.view(sitk.GetArrayViewFromImage(image))
    labels = axes.view(sitk.GetArrayViewFromImage(mask))
    air = settings.air_hu
    if not intensities.is_ct:
        air = intensities.lowest + settings.mr_background * (intensities.p99 - intensities.lowest)
    found = boxes(labels)
    parts: dict[tuple[int, ...], Region] = {}
    members = {roi.name: _members(roi, rois) for roi in rois}
    for numbers in {numbers for of_roi in members.values() for numbers in of_roi}:
        around = [box for number in numbers if number <= len(found) and (box := found[number - 1]) is not None]
        parts[numbers] = measure(voxels, labels, numbers, joined(around), air)
    own = {_key(roi): parts[roi.labels] for roi in rois if roi.labels in parts and roi.name.level != ALL}
    centres = {key: axes.world(image, region.centre) for key, region in own.items()}
    wrong_level, wrong_side = out_of_order(centres), mirrored(centres)
    judge = _Judge(axes, intensities, settings)
    qualities = []
    for roi in rois:
        regions = [parts[numbers] for numbers in members[roi.name]]
        quality = judge.judge(roi, regions)
        placed = _placed(roi, wrong_level, wrong_side)
        qualities.append(Quality((*placed, *quality.reasons), quality.measured))
    return qualities


def _key(roi: Roi) -> Key:
    return (roi.name.structure, roi.name.level, str(roi.name.side))


def _members(roi: Roi, rois: Sequence[Roi]) -> list[tuple[int, ...]]:
    """The label numbers of the regions that a union is made of; of any other ROI its own."""
    if roi.name.level != ALL:
        return [roi.labels]
    inside = [
        other.labels
        for other in rois
        if other.name.structure == roi.name.structure
        and other.name.level != ALL
        and set(other.labels) <= set(roi.labels)
    ]
    covered = {number for numbers in inside for number in numbers}
    rest = tuple(number for number in roi.labels if number not in covered)  # a label too small to be an ROI of its own
    return [*inside, *([rest] if rest else [])]


def _placed(roi: Roi, wrong_level: Mapping[Key, str], wrong_side: Mapping[Key, str]) -> list[Reason]:
    """What a swapped level or mirrored side means for this ROI.

    A union of the swapped labels holds the same voxels whichever is which: a warning. It is the wrong union
    where one of the swapped labels lies outside of it.
    """
    key = _key(roi)
    if roi.name.level != ALL:
        reasons = [fail("LevelOrder", wrong_level[key])] if key in wrong_level else []
        return reasons + ([fail("SideMirrored", wrong_side[key])] if key in wrong_side else [])
    reasons = []
    levels = {other[1]: sentence for other, sentence in wrong_level.items() if other[0] == roi.name.structure}
    if inside := sorted(set(levels) & set(roi.levels)):
        severity = warn if set(levels) <= set(roi.levels) else fail
        reasons.append(severity("LevelOrder", levels[inside[0]]))
    sides = [sentence for other, sentence in wrong_side.items() if other[0] == roi.name.structure]
    if sides:
        reasons.append(warn("SideMirrored", sides[0]))
    return reasons


class _Judge:
    """The checks of one ROI, each a few lines, in the order a reader would make them."""

    def __init__(self, axes: BodyAxes, intensities: Intensities, settings: QualitySettings) -> None:
        self._axes, self._intensities, self._settings = axes, intensities, settings
        self._voxel_mm3 = float(np.prod(axes.spacing))

    def judge(self, roi: Roi, regions: Sequence[Region]) -> Quality:
        count = sum(region.voxels for region in regions)
        edges = {face: sum(r.at_faces.get(face, 0) for r in regions) for face in "SIAPRL"}
        edges = {face: n for face, n in edges.items() if n}
        cut = self._cut(roi, edges)
        measured: dict[str, Number] = {
            "voxels": count,
            "volume_mm3": round(count * self._voxel_mm3, 1),
            "pieces": sum(self._large(region) for region in regions),
            "largest_piece_share": _share(sum(region.pieces[0] for region in regions), count),
            "hollow_share": _share(sum(region.hollow for region in regions), count),
            "edge_share": _share(sum(region.at_edge for region in regions), count),
            "edge_faces": "".join(edges),
            "thinnest_voxels": min(min(region.thickness) for region in regions),
            "mean": round(sum(region.mean * region.voxels for region in regions) / count, 3),
            "p5": round(min(region.low for region in regions), 3),
            "p95": round(max(region.high for region in regions), 3),
            "outside_share": _share(sum(region.outside for region in regions), count),
        }
        reasons = [
            *self._flat(measured),
            *self._outside(roi, measured),
            *self._edge(edges, cut, measured, count),
            *self._pieces(roi, regions, measured),
            *self._size(roi, regions, measured, bool(cut)),
            *self._thin(regions),
            *self._hollow(measured),
            *self._density(roi, measured),
        ]
        return Quality(tuple(reasons), measured)

    def _large(self, region: Region) -> int:
        return sum(size >= self._settings.piece_share * region.voxels for size in region.pieces)

    # --- what makes features meaningless -------------------------------------------------------
    def _flat(self, measured: Mapping[str, Number]) -> list[Reason]:
        if measured["p5"] != measured["p95"]:
            return []
        return [
            fail("FlatRegion", f"nine tenths of its voxels hold the same value, {measured['p5']:g}: it has no texture.")
        ]

    def _outside(self, roi: Roi, measured: Mapping[str, Number]) -> list[Reason]:
        share = float(measured["outside_share"])
        dark = not self._intensities.is_ct and STRUCTURES[roi.name.structure] is StructureKind.DISC
        if (
            dark or share <= self._settings.outside_warn
        ):  # a degenerated disc is as black on T2 as what is around the body
            return []
        where = f"below {self._settings.air_hu:.0f} HU" if self._intensities.is_ct else "in the dark background"
        most = self._settings.outside_fail if share > self._settings.outside_fail else self._settings.outside_warn
        severity = fail if share > self._settings.outside_fail else warn
        return [severity("OutsideBody", f"{share:.0%} of it lies {where}; at most {most:.0%}: is the mask misplaced?")]

    def _edge(self, edges: Mapping[str, int], cut: str, measured: Mapping[str, Number], count: int) -> list[Reason]:
        share = float(measured["edge_share"])
        if share > self._settings.edge_fail:
            sentence = f"{share:.0%} of it lies in the image's outermost layer; at most {self._settings.edge_fail:.0%}."
            return [fail("MostlyAtEdge", sentence)]
        if not cut:
            return []
        shares = ", ".join(f"{edges[face] / count:.1%} at {face}" for face in cut)
        return [
            warn(
                "ClippedAtEdge",
                f"the image ends inside it ({shares} in the outermost layer; at most {self._settings.edge_warn:.0%}).",
            )
        ]

    def _cut(self, roi: Roi, edges: Mapping[str, int]) -> str:
        """Faces at which it goes on outside. A muscle, and the sacrum below, are longer than any lumbar image."""
        long = STRUCTURES[roi.name.structure] is StructureKind.MUSCLE
        expected = "SI" if long else "I" if roi.name.structure == "sacrum" else ""
        most = self._settings.edge_warn * roi.voxel_count
        return "".join(face for face, n in edges.items() if face not in expected and n > most)

    def _pieces(self, roi: Roi, regions: Sequence[Region], measured: Mapping[str, Number]) -> list[Reason]:
        structure, level = roi.name.structure, roi.name.level
        known = level not in (ALL, UNKNOWN)
        if known and structure in ONE_PIECE and len(regions[0].pieces) > 1:
            second = regions[0].pieces[1] / regions[0].voxels
            if second >= self._settings.second_piece_fail:
                most = self._settings.second_piece_fail
                sentence = f"a second piece holds {second:.0%} of it, {most:.0%} or more: two of them under {level}?"
                return [fail("TwoPieces", sentence)]
        kind = STRUCTURES[structure]
        unnamed = any(other == UNKNOWN for other in roi.levels) and kind is not StructureKind.MUSCLE
        if unnamed or (level == ALL and roi.levels == (ALL,)):  # how many there are is not said: only specks count
            specks = 1.0 - sum(
                size for r in regions for size in r.pieces if size >= self._settings.piece_share * r.voxels
            ) / sum(r.voxels for r in regions)
            if specks > 1.0 - self._settings.least_largest_share:
                return [
                    warn(
                        "Scattered",
                        f"{specks:.1%} of it are specks; at most {1 - self._settings.least_largest_share:.0%}.",
                    )
                ]
            return []
        share = float(measured["largest_piece_share"])
        if share >= self._settings.least_largest_share:
            return []
        what = "its parts' largest pieces hold" if len(regions) > 1 else "its largest piece holds"
        pieces = sum(len(region.pieces) for region in regions)
        return [
            warn(
                "Scattered",
                f"{what} {share:.1%} of it ({pieces} pieces); at least {self._settings.least_largest_share:.0%}.",
            )
        ]

    # --- what a reader should know --------------------------------------------------------------
    def _size(self, roi: Roi, regions: Sequence[Region], measured: Mapping[str, Number], cut: bool) -> list[Reason]:
        reasons = []
        if int(measured["voxels"]) < self._settings.least_roi_voxels:
            reasons.append(
                warn(
                    "VoxelsFew", f"it has {measured['voxels']} voxels; textures want {self._settings.least_roi_voxels}."
                )
            )
        bounds = self._settings.of_structure(roi.name.structure)
        if bounds.volume_mm3 is not None and _lumbar(roi):
            each = float(measured["volume_mm3"]) / max(1, int(measured["pieces"]))
            low, high = bounds.volume_mm3
            if (each < low and not cut) or each > high:
                code, word = ("VolumeSmall", "at least") if each < low else ("VolumeLarge", "at most")
                bound = (low if each < low else high) / 1000
                per = " a level" if int(measured["pieces"]) > 1 else ""
                reasons.append(
                    warn(code, f"it measures {each / 1000:.1f} cm³{per}; a {_words(roi)} has {word} {bound:.0f} cm³.")
                )
        if bounds.area_mm2 is not None:
            area = max(r.voxels * self._voxel_mm3 / (r.thickness[0] * self._axes.spacing[0]) for r in regions)
            least = min(r.voxels * self._voxel_mm3 / (r.thickness[0] * self._axes.spacing[0]) for r in regions)
            low, high = bounds.area_mm2
            if least < low or area > high:
                value, word, bound = (least, "at least", low) if least < low else (area, "at most", high)
                code = "AreaSmall" if least < low else "AreaLarge"
                sentence = (
                    f"its mean cross-section is {value / 100:.1f} cm²; one such muscle has {word} {bound / 100:.1f}."
                )
                reasons.append(warn(code, sentence))
        return reasons

    def _thin(self, regions: Sequence[Region]) -> list[Reason]:
        for axis in range(3):
            if all(region.thickness[axis] == 1 for region in regions):
                return [
                    warn(
                        "OneSlice",
                        f"it is one voxel thick along {AXES[axis]}; features are computed in three dimensions.",
                    )
                ]
        return []

    def _hollow(self, measured: Mapping[str, Number]) -> list[Reason]:
        share = float(measured["hollow_share"])
        if share <= self._settings.most_hollow:
            return []
        return [warn("Hollow", f"closed holes measure {share:.1%} of it; at most {self._settings.most_hollow:.0%}.")]

    def _density(self, roi: Roi, measured: Mapping[str, Number]) -> list[Reason]:
        if not self._intensities.is_ct:
            return []
        low, high = self._settings.of_structure(roi.name.structure).ct_mean_hu
        mean = float(measured["mean"])
        if low <= mean <= high:
            return []
        return [
            warn(
                "DensityImplausible",
                f"its mean is {mean:.0f} HU; a {_words(roi)} has {low:.0f} to {high:.0f} HU.",
            )
        ]


def _words(roi: Roi) -> str:
    return roi.name.structure.replace("_", " ")


def _lumbar(roi: Roi) -> bool:
    """Whether the volume bounds, which are of lumbar levels, apply."""
    return set(roi.levels) <= {*LUMBAR_VERTEBRAE, *LUMBAR_DISCS, ALL, UNKNOWN}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6)
