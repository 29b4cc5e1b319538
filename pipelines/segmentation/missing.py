"""Masks for series that have none, drawn by a registered U-Net."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import SimpleITK as sitk

from feature_store.errors import AsdegError
from feature_store.schemas import CASES
from feature_store.store import FeatureStore
from feature_store.vocabulary import PHANTOM_NOTICE, PRIMARY_SEGMENTATION, is_phantom
from pipelines.cases.case import MASKS, roi_row, store_image
from pipelines.cases.case_quality import judge_mask, overlay_hash, quality_rows, store_overlays
from pipelines.cases.overlay import DrawnMask, draw_overlay
from pipelines.cases.rois import find_rois
from pipelines.imaging.images import content_hash, read_canonical
from pipelines.segmentation.registry import ON_PHANTOMS, TRAINED, load_segmenter, segmenters
from pipelines.segmentation.segmenter import Segmenter

LEAST_DICE = 0.7
"""Held-out mean Dice under which a U-Net draws nothing by itself: its masks would be no regions to trust."""


@dataclass
class MissingReport:
    """Counts of series: ``drawn`` by segmenter, ``without`` (no segmenter is fit) by sequence, ``failed`` by error."""

    drawn: Counter[str] = field(default_factory=Counter)
    without: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


def segment_missing(
    store: FeatureStore,
    *,
    sites: Sequence[str] | None = None,
    least_dice: float = LEAST_DICE,
    device: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> MissingReport:
    """Draw the mask of every series whose image has no region, and push its ROIs as the primary segmentation.

    The newest U-Net of the series' sequence draws that was judged on held-out patients, with a mean Dice of at
    least ``least_dice``; one trained on phantoms draws phantoms only. ``rois.segmenter`` says which one it was. Each
    series is a push of its own, so a killed run loses at most the one in hand; what fails is tried again next time.
    """
    report = MissingReport()
    registered = segmenters(store)
    load = lru_cache(maxsize=2)(lambda name: load_segmenter(store, _named(registered, name), device))
    waiting = _without_regions(store, sites)
    for number, series in enumerate(waiting):
        if progress is not None:
            progress(f"{number + 1} of {len(waiting)} without mask", number / len(waiting))
        row = _fit_for(registered, series, least_dice)
        if row is None:
            report.without[series["sequence"]] += 1
            continue
        try:
            _draw(store, series, row["segmenter"], load(row["segmenter"]))
            report.drawn[row["segmenter"]] += 1
        except AsdegError as error:
            report.failed[f"{error.code}: {error.message}"] += 1
    return report


def _without_regions(store: FeatureStore, sites: Sequence[str] | None) -> list[dict[str, Any]]:
    snapshot = store.snapshot()
    where = {"site": list(sites)} if sites is not None else {}
    columns = [*CASES.key, "sequence", "image_hash"]
    have = {tuple(row.values()) for row in snapshot.table("rois", columns, where).to_pylist()}
    rows = snapshot.table("series", columns, where).to_pylist()
    return sorted((row for row in rows if tuple(row.values()) not in have), key=lambda row: tuple(row.values()))


def _fit_for(
    registered: Sequence[Mapping[str, Any]], series: Mapping[str, Any], least_dice: float
) -> Mapping[str, Any] | None:
    origins = (TRAINED, ON_PHANTOMS) if is_phantom(series["patient_id"]) else (TRAINED,)
    for row in registered:
        judged = row["dice"] is not None and row["dice"] >= least_dice
        if row["sequence"] == series["sequence"] and row["origin"] in origins and judged:
            return row
    return None


def _named(registered: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next(row for row in registered if row["segmenter"] == name)


def _draw(store: FeatureStore, series: Mapping[str, Any], name: str, segmenter: Segmenter) -> None:
    image_hash = series["image_hash"]
    image = read_canonical(store.blobs.local_path("images", image_hash), image_hash)
    mask = sitk.Cast(segmenter.segment(image), sitk.sitkUInt16)  # the type ingested masks have
    there = np.flatnonzero(np.bincount(sitk.GetArrayViewFromImage(mask).ravel()))
    labels = {number: meaning for number, meaning in segmenter.labels.items() if number in there}
    found = find_rois(mask, labels, series["sequence"])
    if not found.rois:
        raise found.errors[0]
    mask_hash = content_hash(mask)
    store_image(MASKS, mask, mask_hash, store.blobs)
    case = {column: series[column] for column in CASES.key}
    rows = {
        "rois": [{**case, **roi_row(roi, image_hash, mask_hash, name)} for roi in found.rois],
        "quality": [{**case, **row} for row in _judged(store, series, image, DrawnMask(mask, found.rois), name)],
    }
    store.push(rows, kind="segmentation", source="segmentation")


def _judged(
    store: FeatureStore, series: Mapping[str, Any], image: sitk.Image, drawn: DrawnMask, name: str
) -> list[dict[str, Any]]:
    """Quality control as of masks that people drew: a row a region, and a picture to glance at."""
    sequence, rois = series["sequence"], drawn.rois
    whole, judged = judge_mask(image, drawn.mask, rois, sequence)
    notice = f"drawn by {name}" + (f" · {PHANTOM_NOTICE}" if is_phantom(series["patient_id"]) else "")
    shown = DrawnMask(drawn.mask, rois, judged)
    picture = draw_overlay(image, [shown], sequence, PRIMARY_SEGMENTATION, whole, notice)
    store_overlays({(sequence, PRIMARY_SEGMENTATION): picture}, store.blobs)
    rows = quality_rows(
        sequence, series["image_hash"], whole, content_hash(drawn.mask), rois, judged, overlay_hash(picture)
    )
    return rows[1:]  # the image's own verdict came with the image
