"""Verdicts and pictures through the handler and over HTTP, on a real store."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import SimpleITK as sitk
import yaml
from PIL import Image

from feature_store.control import ControlDatabase
from feature_store.errors import NotFound
from feature_store.store import FeatureStore
from pipelines.cases.case import case_rows, read_case
from services.ingest.handler import IngestHandler
from services.ingest.quality import verdicts_of
from tests.services.door import open_door


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlDatabase]:
    database = ControlDatabase.open(f"sqlite:///{tmp_path / 'control.sqlite'}")
    yield database
    database.close()


@pytest.fixture
def handler(tmp_path: Path, control: ControlDatabase) -> IngestHandler:
    return IngestHandler(FeatureStore.open(tmp_path / "store", create=True), control)


@pytest.fixture
def spoilt(case_dir: Path, tmp_path: Path) -> Path:
    """The sound case with two swapped vertebrae on T2 and an axial series called sagittal."""
    folder = tmp_path / "spoilt"
    shutil.copytree(case_dir, folder)
    manifest = yaml.safe_load((folder / "case.yaml").read_text(encoding="utf-8"))
    series = {entry["sequence"]: entry for entry in manifest["series"]}
    labels = series["t2_sag"]["labels"]
    numbers = {meaning["level"]: n for n, meaning in labels.items() if meaning["structure"] == "vertebral_body"}
    labels[numbers["L2"]]["level"], labels[numbers["L4"]]["level"] = "L4", "L2"
    series["t2_ax"]["sequence"] = "dixon_sag"
    (folder / "case.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return folder


def test_verdicts_come_with_the_case_in_one_push(handler: IngestHandler, case_dir: Path) -> None:
    receipt = handler.ingest_folder(case_dir, "site_a")
    snapshot = handler._store.snapshot()
    assert snapshot.sequence == 1
    assert (receipt.quality_warnings, receipt.quality_failures) == (4, 0)
    assert len(snapshot.table("quality")) == 4 + receipt.rois
    verdicts = handler.quality.verdicts("site_a", receipt.case_id)
    assert verdicts == sorted(verdicts_of(read_case(case_dir)), key=lambda v: verdicts.index(v))
    assert [verdict.verdict for verdict in verdicts[:5]] == ["warn"] * 4 + ["pass"]  # worst first
    assert handler.quality.verdicts("site_b") == []
    assert {v.sequence for v in handler.quality.verdicts(verdict="warn")} == {"ct", "t1_sag", "t2_sag", "t2_ax"}


def test_pictures_are_kept_by_their_hash(handler: IngestHandler, case_dir: Path) -> None:
    receipt = handler.ingest_folder(case_dir, "site_a")
    names = handler.quality.overlays(receipt.case_id)
    assert set(names) == {(sequence, "primary") for sequence in receipt.sequences}
    for (sequence, segmentation), name in names.items():
        png = handler.quality.overlay(receipt.case_id, sequence, segmentation)
        assert handler._store.blobs.put_bytes("overlays", png) == name
        assert Image.open(io.BytesIO(png)).format == "PNG"
    assert all(promise.broken == 0 for promise in handler._store.check())
    with pytest.raises(NotFound, match="picture"):
        handler.quality.overlay(receipt.case_id, "ct", "reader_b")
    with pytest.raises(NotFound, match="verdicts"):
        handler.quality.overlays("0" * 16)


def test_what_failed_is_counted_and_named(handler: IngestHandler, spoilt: Path) -> None:
    receipt = handler.ingest_folder(spoilt, "site_a")
    assert receipt.state == "validated"
    assert receipt.findings == []
    failed = handler.quality.verdicts(case_id=receipt.case_id, verdict="fail")
    assert receipt.quality_failures == len(failed)
    reasons = {(v.sequence, v.roi): v.reasons[0].split(":")[0] for v in failed}
    assert reasons[("dixon_sag", "")] == "PlaneDiffers"
    assert reasons[("t2_sag", "vertebral_body L2")] == reasons[("t2_sag", "vertebral_body L4")] == "LevelOrder"
    assert not any(sequence == "ct" for sequence, _ in reasons)
    assert ("t2_sag", "vertebral_body all") not in reasons  # the same voxels, whichever is which


def test_a_corrected_mask_has_a_new_verdict_and_the_old_one_is_history(
    handler: IngestHandler, case_dir: Path, spoilt: Path
) -> None:
    first = handler.ingest_folder(spoilt, "site_a")
    second = handler.ingest_folder(case_dir, "site_a")
    assert first.case_id == second.case_id
    assert second.quality_failures == 0
    assert handler.quality.verdicts(case_id=first.case_id, verdict="fail") == []
    assert len(handler.quality.verdicts(case_id=first.case_id)) == 4 + second.rois


def test_other_bounds_do_not_set_a_case_back(
    handler: IngestHandler, control: ControlDatabase, case_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case that was judged by other bounds before is judged again, and is as extracted as it was."""
    first = handler.ingest_folder(case_dir, "site_a")
    reading = read_case(case_dir)
    assert reading.manifest is not None
    older = [{**row, "quality_settings": "quality-00000000"} for row in case_rows(reading)["quality"]]
    handler._store.push({"quality": older}, kind="case", source="site_a")
    control.set_case_state("site_a", reading.manifest.patient_id, first.case_id, "extracted")
    again = handler.ingest_folder(case_dir, "site_a")
    assert (again.unchanged, again.state) == (False, "extracted")
    assert {v.quality_settings for v in handler.quality.verdicts()} != {"quality-00000000"}


def test_a_case_without_a_mask_has_a_verdict_and_a_picture(handler: IngestHandler, tmp_path: Path) -> None:
    import numpy as np

    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 900, (40, 50, 60)).astype(np.int16))
    sitk.WriteImage(image, str(tmp_path / "t1.nrrd"))
    manifest = {"patient_id": "p1", "site": "a", "series": [{"sequence": "t1_sag", "image": "t1.nrrd"}]}
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(manifest))
    receipt = handler.ingest_folder(tmp_path, "a")
    (verdict,) = handler.quality.verdicts("a")
    assert (verdict.sequence, verdict.roi, verdict.verdict) == ("t1_sag", "", "warn")
    assert handler.quality.overlay(receipt.case_id, "t1_sag").startswith(b"\x89PNG")


# --- over HTTP ---------------------------------------------------------------------------------
def test_over_http_a_site_sees_its_own(case_dir: Path, tmp_path: Path) -> None:
    with open_door(tmp_path) as door:
        receipt = door.push("site_a", case_dir).json()["receipt"]
        assert (receipt["quality_warnings"], receipt["quality_failures"]) == (4, 0)
        case_id = receipt["case_id"]
        verdicts, picture = f"/v1/cases/{case_id}/quality", f"/v1/cases/{case_id}/overlays/t2_sag.png"
        for who in ("site_a", "scientist"):
            answer = door.call(who, "GET", verdicts)
            assert answer.status_code == 200
            assert answer.json()[0]["verdict"] == "warn"
            assert answer.json()[0]["measured"]["plane"] == "volume"
            png = door.call(who, "GET", picture)
            assert (png.status_code, png.headers["content-type"]) == (200, "image/png")
            assert Image.open(io.BytesIO(png.content)).size[0] == 1080
        for who, status in (("site_b", 404), ("application", 403), ("", 401)):
            for path in (verdicts, picture):
                assert door.call(who, "GET", path).status_code == status
        for path in ("/v1/cases/unknown/quality", f"/v1/cases/{case_id}/overlays/no_such.png"):
            assert door.call("site_a", "GET", path).status_code == 404
        other = door.call("site_a", "GET", picture, params={"segmentation": "reader_b"})
        assert other.json()["error"] == "NotFound"
