"""What quality control failed is recorded with the reason and not extracted, unless asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feature_store.control import ControlDatabase
from feature_store.store import FeatureStore
from pipelines.extraction.plan import ExtractionPlan, ExtractionSettings, plan_extraction
from pipelines.extraction.run import extract
from tests.pipelines.extraction.extraction_store import add_series

RADIOMICS = ExtractionSettings(encoder=None, rois="every")
REASON = "FlatRegion: nine tenths of its voxels hold the same value, 7: it has no texture."


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """One series with L4, L5 and their union, all of which passed."""
    store = FeatureStore.open(tmp_path / "store", create=True)
    add_series(store, "p1")
    judge(store, {"image": "pass", "L4": "pass", "L5": "pass", "all": "pass"})
    return store


def judge(store: FeatureStore, verdicts: dict[str, str], **changed: Any) -> None:
    """Verdicts by level (``image``: the series), on the masks that are stored."""
    snapshot = store.snapshot()
    rows = []
    for roi in snapshot.table("rois").to_pylist():
        key = {name: roi[name] for name in ("site", "patient_id", "case_id", "sequence", "image_hash", "mask_hash")}
        shared = {
            **key,
            "side": "both",
            "segmentation": "primary",
            "measured": json.dumps({"voxels": 5}),
            "quality_settings": "quality-00000000",
            "overlay_hash": None,
            "software_version": "test",
        }
        for level, structure in ((roi["level"], roi["structure"]), ("image", "image")):
            if level in verdicts and not (level == "image" and roi["level"] != "all"):
                verdict = verdicts[level]
                row = {**shared, "structure": structure, "level": "all" if level == "image" else level}
                row |= {"verdict": verdict, "reasons": [REASON] if verdict == "fail" else [], **changed}
                rows.append(row | ({"mask_hash": None} if level == "image" else {}))
    receipt = store.push({"quality": rows}, kind="case", source="a")
    assert not receipt.rejected


def plan(store: FeatureStore, **changed: Any) -> ExtractionPlan:
    return plan_extraction(store.snapshot(), RADIOMICS.model_copy(update=changed), None)


def levels(jobs: Any) -> list[str]:
    return sorted(job.source.name.level for job in jobs)


def planned(found: ExtractionPlan) -> tuple[list[str], list[str]]:
    return levels(job for one in found.series for job in one.rois), levels(job for job, _ in found.refused)


def test_a_failed_roi_is_refused_and_the_others_go_on(store: FeatureStore) -> None:
    assert planned(plan(store)) == (["L4", "L5", "all"], [])
    judge(store, {"L4": "fail", "L5": "warn"})
    found = plan(store)
    assert planned(found) == (["L5", "all"], ["L4"])
    assert [reason for _, reason in found.refused] == [f"QualityRefused: {REASON}"]
    assert (found.total, found.left_out) == (3, 0)
    assert planned(plan(store, include_failed_quality=True)) == (["L4", "L5", "all"], [])


def test_a_failed_series_takes_its_rois_along(store: FeatureStore) -> None:
    judge(store, {"image": "fail"})
    found = plan(store)
    assert planned(found) == ([], ["L4", "L5", "all"])
    assert {reason for _, reason in found.refused} == {f"QualityRefused: series: {REASON}"}
    assert planned(plan(store, sites=("b",))) == ([], [])


def test_a_verdict_on_another_image_or_mask_does_not_count(store: FeatureStore) -> None:
    judge(store, {"L4": "fail"}, mask_hash="00")
    judge(store, {"image": "fail"}, image_hash="00")
    assert planned(plan(store)) == (["L4", "L5", "all"], [])


def test_without_a_verdict_a_case_is_extracted_as_before(tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path / "store", create=True)
    add_series(store, "p1")
    assert planned(plan(store)) == (["L4", "L5", "all"], [])


def test_refusals_are_recorded_and_taken_back(store: FeatureStore, tmp_path: Path) -> None:
    control = ControlDatabase.open(f"sqlite:///{tmp_path / 'control.sqlite'}")
    judge(store, {"image": "fail"})
    report = extract(store, RADIOMICS, control)  # nothing is left to compute, so Ray is not started
    assert (report.done, report.failed, report.errors) == (0, 3, {"QualityRefused": 3})
    rows = store.snapshot().table("radiomics").to_pylist()
    assert len(rows) == 3
    assert {(row["error"], row["values"]) for row in rows} == {(f"QualityRefused: series: {REASON}", None)}
    (case,) = control.cases()
    assert case.state == "rejected"
    assert any("QualityRefused" in reason for reason in case.reasons)

    again = extract(store, RADIOMICS, control)
    assert (again.failed, again.left_out) == (0, 3)  # it is recorded already
    assert planned(plan(store, retry_failed=True)) == ([], ["L4", "L5", "all"])
    assert planned(plan(store, include_failed_quality=True)) == (["L4", "L5", "all"], [])
    judge(store, {"image": "pass"})  # mended, or judged by other bounds
    assert planned(plan(store)) == (["L4", "L5", "all"], [])
    control.close()
