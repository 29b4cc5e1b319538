"""Small rows that keep every rule, for tests to bend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from feature_store.declared import DeclaredLengths
from feature_store.vocabulary import RoiName

Rows = dict[str, list[dict[str, Any]]]

NAMES = ("original_shape_MeshVolume", "original_firstorder_Mean", "wavelet-HHH_gldm_DependenceVariance")
ROIS = (RoiName("ct", "vertebral_body"), RoiName("t2_sag", "intervertebral_disc"))
LATE = 400
FUSED = ["L4-L5"]


def ids(patient: str, site: str = "a") -> dict[str, str]:
    return {"site": site, "patient_id": patient, "case_id": f"case-{site}-{patient}"}


def roi_ids(patient: str, roi: RoiName, site: str = "a") -> dict[str, str]:
    names = {n: str(getattr(roi, n)) for n in ("sequence", "structure", "level", "side", "segmentation")}
    return {**ids(patient, site), **names}


def case(patient: str, site: str = "a", *, days: int | None = -3, **clinical: Any) -> Rows:
    base = ids(patient, site)
    series = {
        "image_hash": "aa", "size": [8, 8, 4], "spacing": [1.0, 1.0, 3.0], "origin": [0.0, 0.0, 0.0],
        "direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], "days_from_index": days,
    }  # fmt: skip
    rois = [
        {**roi_ids(patient, roi, site), "image_hash": "aa", "mask_hash": "bb", "labels": [1], "levels": ["L4"],
         "voxel_count": 100, "volume_mm3": 300.0}
        for roi in ROIS
    ]  # fmt: skip
    return {
        "cases": [{**base, "manifest_hash": "cc", "sequences": ["ct", "t2_sag"], "index_date_known": True}],
        "series": [{**base, **series, "sequence": name} for name in ("ct", "t2_sag")],
        "rois": rois,
        "clinical": [{**base, "age": 50.0, "fused_levels": FUSED, "surgical_segments": 1, **clinical}],
    }


def label(patient: str, outcome: int | None, site: str = "a", last_day: int = LATE) -> dict[str, Any]:
    return {
        "site": site, "patient_id": patient, "rule": "asdeg-v1-180d", "outcome": outcome, "incident": outcome,
        "criteria": [], "reason": "given", "last_day": last_day,
    }  # fmt: skip


def feature_set(name: str = "study-mr-0a1b2c3d", names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    return {
        "feature_set": name, "name": name.rsplit("-", 1)[0], "settings": "{}", "feature_names": list(names),
    }  # fmt: skip


def encoder(name: str = "vit_small-0a1b2c3d", seen: list[str] | None = None, outcomes: bool = False) -> dict[str, Any]:
    return {
        "encoder": name, "architecture": "vit_small", "settings": "{}", "checkpoint_hash": "dd", "origin": "random:0",
        "outcomes_seen": outcomes, "patients_seen": seen, "dimension": 4,
    }  # fmt: skip


def radiomics(
    patient: str, values: Any, roi: RoiName = ROIS[0], site: str = "a", name: str = "study-mr-0a1b2c3d"
) -> dict[str, Any]:
    return {
        **roi_ids(patient, roi, site), "feature_set": name, "image_hash": "aa", "mask_hash": "bb", "values": values,
        "error": None if values is not None else "ExtractionError", "software_version": "test",
    }  # fmt: skip


def embedding(
    patient: str, values: Any, roi: RoiName = ROIS[0], site: str = "a", name: str = "vit_small-0a1b2c3d"
) -> dict[str, Any]:
    row = radiomics(patient, np.asarray(values, np.float32), roi, site)
    del row["feature_set"]
    return {**row, "encoder": name}


@contextmanager
def lengths_unlooked_at() -> Iterator[None]:
    """Values are taken in whatever their length, as damage that a check has to find."""
    with patch.object(DeclaredLengths, "rules", lambda *_: []):
        yield
