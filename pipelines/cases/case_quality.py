"""Quality control of a whole case: verdicts while its images are in memory, pictures, rows of ``quality``.

:func:`judge_mask` and :func:`quality_rows` also serve masks that come later, as a segmentation net's do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import SimpleITK as sitk

from feature_store.schemas import QUALITY_OF_SERIES
from feature_store.software import software_version
from feature_store.vocabulary import ALL, PRIMARY_SEGMENTATION, RoiName, Side
from pipelines.cases.overlay import DrawnMask, draw_overlay
from pipelines.cases.quality.regions import judge_rois
from pipelines.cases.quality.series import Intensities, judge_series
from pipelines.cases.quality.settings import DEFAULT, QualitySettings
from pipelines.cases.quality.verdict import Quality, Verdict
from pipelines.cases.rois import Roi

OVERLAYS = "overlays"


class JudgedSeries(Protocol):
    """What is needed of a series that was read: :class:`pipelines.cases.case.SeriesReading` has it."""

    @property
    def sequence(self) -> str: ...
    @property
    def segmentation(self) -> str: ...
    @property
    def image(self) -> sitk.Image: ...
    @property
    def image_hash(self) -> str: ...
    @property
    def mask(self) -> sitk.Image | None: ...
    @property
    def mask_hash(self) -> str: ...
    @property
    def rois(self) -> list[Roi]: ...


@dataclass(frozen=True)
class CaseQuality:
    """The verdict of every image by its sequence, and of every ROI by its name."""

    series: Mapping[str, Quality] = field(default_factory=dict)
    rois: Mapping[RoiName, Quality] = field(default_factory=dict)
    settings: QualitySettings = DEFAULT

    def count(self, verdict: Verdict) -> int:
        """How many images and ROIs have this verdict."""
        return sum(quality.verdict is verdict for quality in (*self.series.values(), *self.rois.values()))


def judge_mask(
    image: sitk.Image, mask: sitk.Image | None, rois: Sequence[Roi], sequence: str, settings: QualitySettings = DEFAULT
) -> tuple[Quality, list[Quality]]:
    """The verdict on an image, and on each of the ROIs of a mask on its grid."""
    quality, intensities = judge_series(image, sequence, settings)
    return quality, [] if mask is None else judge_rois(image, mask, rois, intensities, settings)


def judge_case(series: Sequence[JudgedSeries], settings: QualitySettings = DEFAULT) -> CaseQuality:
    """Judge every image once and every mask."""
    images: dict[tuple[str, str], tuple[Quality, Intensities]] = {}
    of_sequence: dict[str, Quality] = {}
    rois: dict[RoiName, Quality] = {}
    for one in series:
        key = (one.sequence, one.image_hash)
        if key not in images:
            images[key] = judge_series(one.image, one.sequence, settings)
        quality, intensities = images[key]
        of_sequence.setdefault(one.sequence, quality)
        if one.mask is not None:
            judged = judge_rois(one.image, one.mask, one.rois, intensities, settings)
            rois |= {roi.name: of_roi for roi, of_roi in zip(one.rois, judged, strict=True)}
    return CaseQuality(of_sequence, rois, settings)


def case_overlays(
    series: Sequence[JudgedSeries], quality: CaseQuality, notice: str = ""
) -> dict[tuple[str, str], bytes]:
    """A PNG for each (sequence, segmentation); masks of one segmentation are drawn into one picture."""
    groups: dict[tuple[str, str], list[JudgedSeries]] = {}
    for one in series:
        groups.setdefault((one.sequence, one.segmentation), []).append(one)
    return {
        key: draw_overlay(
            group[0].image,
            [
                DrawnMask(one.mask, one.rois, [quality.rois[roi.name] for roi in one.rois])
                for one in group
                if one.mask is not None
            ],
            *key,
            quality.series[key[0]],
            notice,
        )
        for key, group in groups.items()
    }


def case_quality_rows(
    series: Sequence[JudgedSeries], quality: CaseQuality, overlays: Mapping[tuple[str, str], bytes]
) -> list[dict[str, Any]]:
    """Rows of ``quality`` but for the case's key: one an image and one a ROI."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in series:
        picture = overlays.get((one.sequence, one.segmentation))
        overlay = None if picture is None else overlay_hash(picture)
        judged = [quality.rois[roi.name] for roi in one.rois]
        for row in quality_rows(
            one.sequence, one.image_hash, quality.series[one.sequence], one.mask_hash, one.rois, judged, overlay,
            quality.settings,
        ):  # fmt: skip
            rows.setdefault(
                tuple(row[name] for name in ("sequence", "structure", "level", "side", "segmentation")), row
            )
    return list(rows.values())


def quality_rows(
    sequence: str,
    image_hash: str,
    series: Quality,
    mask_hash: str,
    rois: Sequence[Roi],
    qualities: Sequence[Quality],
    overlay: str | None,
    settings: QualitySettings = DEFAULT,
) -> list[dict[str, Any]]:
    """The image's row and the rows of one mask's ROIs, but for the case's key."""
    whole = RoiName(sequence, QUALITY_OF_SERIES, ALL, Side.BOTH.value, PRIMARY_SEGMENTATION)
    judged = [(whole, series, None), *((roi.name, q, mask_hash) for roi, q in zip(rois, qualities, strict=True))]
    return [
        {
            "sequence": name.sequence,
            "structure": name.structure,
            "level": name.level,
            "side": str(name.side),
            "segmentation": name.segmentation,
            "verdict": quality.verdict.value,
            "reasons": quality.lines(),
            "measured": json.dumps(dict(quality.measured), sort_keys=True),
            "quality_settings": settings.id,
            "image_hash": image_hash,
            "mask_hash": of_mask,
            "overlay_hash": overlay,
            "software_version": software_version(),
        }
        for name, quality, of_mask in judged
    ]


def overlay_hash(picture: bytes) -> str:
    """The name a picture is kept under: SHA-256 of its bytes."""
    return hashlib.sha256(picture).hexdigest()


class PictureBlobs(Protocol):
    """The part of the store's blobs that is needed here."""

    def put_bytes(self, kind: str, data: bytes) -> str:
        """Keep ``data`` under its SHA-256."""


def store_overlays(overlays: Mapping[tuple[str, str], bytes], blobs: PictureBlobs) -> None:
    """Keep each picture once."""
    for picture in overlays.values():
        blobs.put_bytes(OVERLAYS, picture)
