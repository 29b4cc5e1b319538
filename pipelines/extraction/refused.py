"""Which ROIs quality control has failed: they are recorded with the reason and not extracted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feature_store.errors import QualityRefused
from feature_store.schemas import QUALITY_OF_SERIES, ROIS
from feature_store.snapshot import Snapshot

REFUSED = QualityRefused.__name__
_IMAGE = ("site", "patient_id", "case_id", "sequence", "image_hash")
_ROI = (*ROIS.key, "image_hash", "mask_hash")


class QualityGate:
    """The failed verdicts of a snapshot, of ROIs and of whole images.

    A verdict counts for the image and mask it was given on. What has no verdict (ingested before there was
    quality control, or drawn without one) is not refused.
    """

    def __init__(self, snapshot: Snapshot, where: Mapping[str, Any], is_open: bool) -> None:
        self._images: dict[tuple[Any, ...], str] = {}
        self._rois: dict[tuple[Any, ...], str] = {}
        if is_open:
            return
        columns = [*_ROI, "reasons"]
        failed = snapshot.table("quality", columns=columns, where={**where, "verdict": "fail"}).to_pylist()
        for row in failed:
            reason = row["reasons"][0] if row["reasons"] else "no reason is stored."
            if row["structure"] == QUALITY_OF_SERIES:
                self._images[_of(row, _IMAGE)] = f"{REFUSED}: series: {reason}"
            else:
                self._rois[_of(row, _ROI)] = f"{REFUSED}: {reason}"

    def why(self, roi: Mapping[str, Any]) -> str:
        """Why this row of ``rois`` is refused (``QualityRefused: Code: sentence``); empty where it is not."""
        return self._images.get(_of(roi, _IMAGE)) or self._rois.get(_of(roi, _ROI)) or ""


def _of(row: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)
