"""One picture of a series and what is drawn on it, for a radiologist to glance at.

Slices in true proportions with the masks' contours, a legend, the verdict with its reasons, letters of
orientation and a bar of 50 mm; no patient's id and no date. The same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import SimpleITK as sitk

from feature_store.vocabulary import ALL, STRUCTURES, UNKNOWN, RoiName, Side, StructureKind
from pipelines.cases.overlay_page import Caption, LegendEntry, Remark, draw_page
from pipelines.cases.overlay_planes import cut, grey_window
from pipelines.cases.quality.body_axes import BodyAxes
from pipelines.cases.quality.order import RANK
from pipelines.cases.quality.series import is_ct
from pipelines.cases.quality.verdict import SEVERITY, Quality, gravest
from pipelines.cases.rois import Roi

BY_LEVEL = (
    (255, 150, 79), (6, 214, 160), (255, 90, 110), (76, 201, 240), (255, 209, 102), (179, 136, 255),
    (198, 255, 94), (240, 100, 240), (64, 160, 255), (250, 240, 90), (150, 255, 230),
)  # fmt: skip
"""Bodies and discs in turn from head to foot, so that neighbours never look alike and L3 is always the same."""
BY_SIDE = {
    "psoas_major": ((76, 201, 240), (255, 107, 139)),
    "iliopsoas": ((76, 201, 240), (255, 107, 139)),
    "quadratus_lumborum": ((198, 255, 94), (255, 209, 102)),
    "paraspinal_muscle": ((64, 160, 255), (255, 150, 79)),
}
"""Left, right."""


@dataclass(frozen=True)
class DrawnMask:
    """One label map on the image's grid, its ROIs, and their verdicts in the same order (or none)."""

    mask: sitk.Image
    rois: Sequence[Roi]
    qualities: Sequence[Quality] = field(default_factory=tuple)


def draw_overlay(
    image: sitk.Image,
    masks: Sequence[DrawnMask],
    sequence: str,
    segmentation: str,
    series: Quality,
    notice: str = "",
) -> bytes:
    """PNG of one series with one segmentation, which may come as several masks. ``notice`` goes into the title."""
    axes = BodyAxes.of(image)
    voxels = axes.view(sitk.GetArrayViewFromImage(image))
    regions, names = _regions(masks, axes)
    structures = {name.name.structure for name in names}
    bones = tuple(n for n, roi in enumerate(names, 1) if STRUCTURES[roi.name.structure] is not StructureKind.MUSCLE)
    window = grey_window(voxels, is_ct(sequence), structures)
    slices = cut(voxels, regions, axes, window, bones)
    verdicts = {roi.name: quality for mask in masks for roi, quality in zip(mask.rois, mask.qualities, strict=False)}
    worst = gravest([series.verdict, *(quality.verdict for quality in verdicts.values())])

    unit = " HU" if is_ct(sequence) else ""
    about = (
        f"{' × '.join(str(n) for n in image.GetSize())} voxels of "
        f"{' × '.join(f'{mm:.2f}' for mm in image.GetSpacing())} mm · window {window[0]:.0f} to {window[1]:.0f}{unit}"
    )
    if axes.tilt_deg > 1.0:
        about += f" · tilted {axes.tilt_deg:.0f}°, letters are the nearest"
    legend = [
        LegendEntry(
            _colour(roi), _label(roi), _short(roi), verdicts[roi.name].verdict if roi.name in verdicts else None
        )
        for roi in names
    ]
    caption = Caption(f"{sequence} · {segmentation}", about, notice, worst)
    return draw_page(slices, caption, legend, _remarks(series, verdicts))


# --- what is shown -----------------------------------------------------------------------------
def _regions(masks: Sequence[DrawnMask], axes: BodyAxes) -> tuple[np.ndarray, list[Roi]]:
    """One array of region numbers (in body order) for all masks, and the ROI of each number from 1.

    Unions are left out where their parts are there. Of masks that overlap the later one is on top.
    """
    regions = np.zeros(axes.size, dtype=np.uint8)
    names: list[Roi] = []
    for drawn in masks:
        parts = {roi.name.structure for roi in drawn.rois if roi.name.level != ALL}
        shown = [roi for roi in drawn.rois if roi.name.level != ALL or roi.name.structure not in parts]
        shown = sorted(shown, key=lambda roi: (roi.name.structure, RANK.get(roi.name.level, -1), roi.name))
        labels = axes.view(sitk.GetArrayViewFromImage(drawn.mask))
        # one more entry, which is 0: what nobody declared lies past the declared numbers
        lookup = np.zeros(max((max(roi.labels) for roi in shown), default=0) + 2, dtype=np.uint8)
        for roi in shown[: 255 - len(names)]:
            names.append(roi)
            lookup[list(roi.labels)] = len(names)
        for plane, drawn_plane in zip(regions, labels, strict=True):  # a plane at a time: an index takes 8 bytes
            numbers = lookup[np.minimum(drawn_plane, lookup.size - 1)]
            np.copyto(plane, numbers, where=numbers > 0)
    return regions, names


def _colour(roi: Roi) -> tuple[int, int, int]:
    if roi.name.level in RANK:
        return BY_LEVEL[RANK[roi.name.level] % len(BY_LEVEL)]
    left, right = BY_SIDE.get(roi.name.structure, ((255, 209, 102), (255, 209, 102)))
    if roi.name.structure == "intervertebral_disc":
        return BY_LEVEL[1]
    return right if roi.name.side == Side.RIGHT else left


def _label(roi: Roi) -> str:
    parts = [roi.name.structure.replace("_", " ")]
    parts += [roi.name.level] if roi.name.level != UNKNOWN else []
    parts += [str(roi.name.side)] if roi.name.side != Side.BOTH else []
    return " ".join(parts)


def _short(roi: Roi) -> str:
    return roi.name.level if roi.name.level in RANK else ""


def _remarks(series: Quality, verdicts: Mapping[RoiName, Quality]) -> list[Remark]:
    """What is to be said, gravest first; the same code of several ROIs is said once."""
    found = [(reason.verdict, f"series: {reason.line()}") for reason in series.reasons]
    of_rois = [(name, reason) for name, quality in verdicts.items() for reason in quality.reasons]
    of_rois.sort(key=lambda row: (row[1].code, row[1].verdict, row[0]))
    for _, group in groupby(of_rois, key=lambda row: (row[1].code, row[1].verdict)):
        rows = list(group)
        name, reason = rows[0]
        parts = [name.structure.replace("_", " "), name.level, "" if name.side == Side.BOTH else str(name.side)]
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        found.append((reason.verdict, f"{' '.join(part for part in parts if part)}{more}: {reason.line()}"))
    return sorted(found, key=lambda row: -SEVERITY[row[0]])
