"""Verdicts and pictures of quality control, read from the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from feature_store.errors import NotFound
from feature_store.schemas import QUALITY_OF_SERIES
from feature_store.store import FeatureStore
from feature_store.vocabulary import PRIMARY_SEGMENTATION
from pipelines.cases.case import CaseReading
from pipelines.cases.case_quality import OVERLAYS, case_quality_rows
from services.ingest.messages import QualityVerdict

ROI_KEY = ("site", "patient_id", "case_id", "sequence", "structure", "level", "side", "segmentation")
_WORST_FIRST = {"fail": 0, "warn": 1, "pass": 2}
_NO_QUALITY = "It was ingested before there was quality control, or has no image."


class StoredQuality:
    """Reads ``quality`` and the pictures it names."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def verdicts(
        self, site: str | None = None, case_id: str | None = None, verdict: str | None = None
    ) -> list[QualityVerdict]:
        """Verdicts on images and ROIs as they are now, worst first; each filter may be left out."""
        wanted = {"site": site, "case_id": case_id, "verdict": verdict}
        rows = self._rows({name: value for name, value in wanted.items() if value is not None})
        found = [_verdict(row) for row in rows]
        return sorted(found, key=lambda v: (v.site, v.case_id, _WORST_FIRST[v.verdict], v.sequence, v.roi))

    def overlay(self, case_id: str, sequence: str, segmentation: str = PRIMARY_SEGMENTATION) -> bytes:
        """The PNG of a case's sequence with the contours of one segmentation. Raises NotFound."""
        pictures = self.overlays(case_id)
        if (sequence, segmentation) not in pictures:
            raise NotFound(
                "There is no such picture of this case.", action="`asdeg quality CASE_ID` lists what there is."
            )
        return self._store.blobs.read_bytes(OVERLAYS, pictures[sequence, segmentation])

    def overlays(self, case_id: str) -> dict[tuple[str, str], str]:
        """Hash of each picture by (sequence, segmentation). Raises NotFound where the case has no verdicts."""
        rows = self._rows({"case_id": case_id})
        if not rows:
            raise NotFound("This case has no verdicts.", action=f"{_NO_QUALITY} Push it again.")
        rows.sort(key=lambda row: row["structure"] == QUALITY_OF_SERIES)  # an image's own row only where it has no ROI
        found: dict[tuple[str, str], str] = {}
        for row in rows:
            if row["overlay_hash"] is not None:
                found.setdefault((row["sequence"], row["segmentation"]), row["overlay_hash"])
        return found

    def _rows(self, where: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows of the image and mask that the case has now; what an older mask was judged is history."""
        snapshot = self._store.snapshot()
        place = {name: value for name, value in where.items() if name in ("site", "case_id")}
        images = {
            (row["case_id"], row["sequence"], row["image_hash"])
            for row in snapshot.table("series", ["case_id", "sequence", "image_hash"], where=place).to_pylist()
        }
        masks = {
            (*(row[name] for name in ROI_KEY), row["mask_hash"])
            for row in snapshot.table("rois", [*ROI_KEY, "mask_hash"], where=place).to_pylist()
        }
        return [
            row
            for row in snapshot.table("quality", where=dict(where)).to_pylist()
            if (row["case_id"], row["sequence"], row["image_hash"]) in images
            and (row["mask_hash"] is None or (*(row[name] for name in ROI_KEY), row["mask_hash"]) in masks)
        ]


def verdicts_of(reading: CaseReading) -> list[QualityVerdict]:
    """The verdicts of a case folder that was just read, worst first."""
    manifest = reading.manifest
    if manifest is None:
        return []
    key = {"site": manifest.site, "case_id": manifest.case_id}
    found = [_verdict({**key, **row}) for row in case_quality_rows(reading.series, reading.quality, {})]
    return sorted(found, key=lambda v: (_WORST_FIRST[v.verdict], v.sequence, v.roi))


def _verdict(row: Mapping[str, Any]) -> QualityVerdict:
    series = row["structure"] == QUALITY_OF_SERIES
    side = "" if row["side"] == "both" else f" {row['side']}"
    return QualityVerdict(
        site=row["site"],
        case_id=row["case_id"],
        sequence=row["sequence"],
        segmentation=row["segmentation"],
        roi="" if series else f"{row['structure']} {row['level']}{side}",
        verdict=row["verdict"],
        reasons=list(row["reasons"]),
        measured=json.loads(row["measured"]),
        quality_settings=row["quality_settings"],
    )
