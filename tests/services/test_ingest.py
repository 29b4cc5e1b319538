"""Cases and outcomes through the handler, on a real store."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from feature_store.control import ControlDatabase
from feature_store.errors import AccessDenied, FollowUpError, ManifestError, NotFound
from feature_store.store import FeatureStore
from pipelines.phantom import PhantomCohort
from services.ingest.follow_up import read_follow_up
from services.ingest.handler import IngestHandler, validate_folder
from services.ingest.messages import Measurement

CRITERIA = {"spondylolisthesis_mm": 1.0, "angular_motion_deg": 2.0, "disc_height_loss_pct": 3.0, "ucla": 1}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlDatabase]:
    database = ControlDatabase.open(f"sqlite:///{tmp_path / 'control.sqlite'}")
    yield database
    database.close()


@pytest.fixture
def handler(tmp_path: Path, control: ControlDatabase) -> IngestHandler:
    return IngestHandler(FeatureStore.open(tmp_path / "store", create=True), control)


def blobs(handler: IngestHandler) -> set[str]:
    root = Path(handler._store.uri) / "blobs"
    return {path.name for path in root.rglob("*") if path.is_file()}


def test_a_case_is_stored_in_one_push_with_its_images(handler: IngestHandler, case_dir: Path) -> None:
    receipt = handler.ingest_folder(case_dir, "site_a")
    assert (receipt.state, receipt.unchanged, receipt.findings) == ("validated", False, [])
    assert receipt.sequences == ["ct", "t1_sag", "t2_ax", "t2_sag"]
    snapshot = handler._store.snapshot()
    assert snapshot.sequence == 1
    series = snapshot.table("series").to_pylist()
    assert len(snapshot.table("rois")) == receipt.rois
    assert {f"{row['image_hash']}.nrrd" for row in series} <= blobs(handler)
    assert handler.case(receipt.case_id).state == "validated"
    assert [status.case_id for status in handler.cases("site_a")] == [receipt.case_id]
    assert handler.cases("site_b") == []


def test_the_same_case_again_changes_nothing_and_says_so(
    handler: IngestHandler, control: ControlDatabase, case_dir: Path
) -> None:
    first = handler.ingest_folder(case_dir, "site_a")
    before = blobs(handler)
    control.set_case_state("site_a", "phantom-0001", first.case_id, "extracted")
    again = handler.ingest_folder(case_dir, "site_a")
    assert again.unchanged
    assert again.state == "extracted"  # it does not fall back
    assert handler._store.snapshot().sequence == 1
    assert blobs(handler) == before


def test_a_changed_case_is_a_new_revision(handler: IngestHandler, case_dir: Path, tmp_path: Path) -> None:
    first = handler.ingest_folder(case_dir, "site_a")
    copy = tmp_path / "copy"
    shutil.copytree(case_dir, copy)
    manifest = (copy / "case.yaml").read_text(encoding="utf-8")
    assert "bmi:" in manifest
    lines = ["  bmi: 33.3" if line.strip().startswith("bmi:") else line for line in manifest.splitlines()]
    (copy / "case.yaml").write_text("\n".join(lines))
    second = handler.ingest_folder(copy, "site_a")
    assert second.case_id == first.case_id
    assert not second.unchanged
    snapshot = handler._store.snapshot()
    assert snapshot.table("clinical")["bmi"].to_pylist() == [33.3]
    assert len(snapshot.revisions("clinical")) == 2
    assert len(snapshot.revisions("series")) == 4  # the images did not change


def test_a_corrected_case_no_longer_holds_what_it_left_out(
    handler: IngestHandler, case_dir: Path, tmp_path: Path
) -> None:
    handler.ingest_folder(case_dir, "site_a")
    copy = tmp_path / "copy"
    shutil.copytree(case_dir, copy)
    manifest = yaml.safe_load((copy / "case.yaml").read_text(encoding="utf-8"))
    manifest["series"] = [series for series in manifest["series"] if series["sequence"] != "t1_sag"]
    (copy / "case.yaml").write_text(yaml.safe_dump(manifest))
    assert not handler.ingest_folder(copy, "site_a").unchanged
    snapshot = handler._store.snapshot()
    assert snapshot.sequence == 2
    for table in ("series", "rois"):
        assert set(snapshot.table(table)["sequence"].to_pylist()) == {"ct", "t2_ax", "t2_sag"}
    assert handler.ingest_folder(copy, "site_a").unchanged
    assert set(snapshot.at(1).table("rois")["sequence"].to_pylist()) == {"ct", "t1_sag", "t2_ax", "t2_sag"}


def test_a_withdrawn_case_is_taken_back(handler: IngestHandler, case_dir: Path) -> None:
    receipt = handler.ingest_folder(case_dir, "site_a")
    status = handler.withdraw(receipt.case_id, "wrong side", "registry")
    assert (status.state, status.reasons) == ("withdrawn", ["wrong side"])
    assert len(handler._store.snapshot().table("rois")) == 0
    with pytest.raises(NotFound):
        handler.withdraw(receipt.case_id, "again", "registry")
    with pytest.raises(NotFound):
        handler.withdraw("unknown", "x", "registry")
    again = handler.ingest_folder(case_dir, "site_a")
    assert (again.unchanged, handler.case(again.case_id).state) == (False, "validated")
    assert len(handler._store.snapshot().table("rois")) == receipt.rois


def test_another_sites_case_is_refused_and_nothing_stored(handler: IngestHandler, case_dir: Path) -> None:
    with pytest.raises(AccessDenied, match="another site"):
        handler.ingest_folder(case_dir, "site_b")
    assert handler._store.snapshot().sequence == 0
    assert blobs(handler) == set()
    assert handler.cases() == []


def test_a_broken_case_keeps_what_can_be_used(handler: IngestHandler, phantoms: PhantomCohort) -> None:
    broken = phantoms.broken[0]
    expected = validate_folder(broken.folder)
    receipt = handler.ingest_folder(broken.folder, broken.site)
    assert receipt.findings == expected.findings != []
    assert all(finding.code and finding.message and finding.action for finding in receipt.findings)
    assert handler.case(receipt.case_id).reasons
    row = handler._store.snapshot().table("cases").to_pylist()[0]
    assert len(row["rejected"]) == len(receipt.findings)


def test_a_folder_without_a_usable_manifest(handler: IngestHandler, tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case/case.yaml").write_text("patient_id: secret-name\nnobody: knows\n")
    with pytest.raises(ManifestError) as caught:
        handler.ingest_folder(tmp_path / "case", "site_a")
    assert "secret-name" not in caught.value.line()
    assert handler._store.snapshot().sequence == 0


# --- follow-up ---------------------------------------------------------------------------------
def measurements(level: str, **values: float | int) -> list[Measurement]:
    return [Measurement(days_from_index=400, rater="A", level=level, **{**CRITERIA, "pfirrmann": 2, **values})]  # type: ignore[arg-type]


def test_an_outcome_is_the_label_of_all_measurements(handler: IngestHandler, case_dir: Path) -> None:
    case_id = handler.ingest_folder(case_dir, "site_a").case_id
    levels = handler._store.snapshot().table("clinical")["fused_levels"].to_pylist()[0]
    from feature_store.vocabulary import adjacent_segments

    adjacent = adjacent_segments(tuple(levels))
    receipt = handler.outcome(case_id, [m for level in adjacent for m in measurements(level)])
    assert (receipt.outcome, receipt.unchanged) == (0, False)
    again = handler.outcome(case_id, [m for level in adjacent for m in measurements(level)])
    assert (again.outcome, again.unchanged) == (0, True)
    later = Measurement(days_from_index=800, rater="A", level=adjacent[0], pfirrmann=4)
    assert handler.outcome(case_id, [later]).outcome == 1
    snapshot = handler._store.snapshot()
    assert snapshot.table("labels")["outcome"].to_pylist() == [1]
    # a correction is a new revision of the same measurement, and the label follows it
    assert handler.outcome(case_id, [later.model_copy(update={"pfirrmann": 2})]).outcome == 0


def test_a_label_follows_the_operated_levels(handler: IngestHandler, case_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(case_dir, copy)
    text = (copy / "case.yaml").read_text(encoding="utf-8")
    (copy / "case.yaml").write_text("".join(_without_fused_levels(text)))
    case_id = handler.ingest_folder(copy, "site_a").case_id
    assert handler.outcome(case_id, measurements("L1-L2", pfirrmann=5)).outcome is None
    handler.ingest_folder(case_dir, "site_a")
    label = handler._store.snapshot().table("labels").to_pylist()[0]
    assert label["reason"] != "fused levels unknown"


def _without_fused_levels(text: str) -> Iterator[str]:
    import yaml

    raw = yaml.safe_load(text)
    del raw["clinical"]["fused_levels"]
    yield yaml.safe_dump(raw)


def test_measurements_that_break_a_rule(handler: IngestHandler, case_dir: Path) -> None:
    case_id = handler.ingest_folder(case_dir, "site_a").case_id
    with pytest.raises(NotFound):
        handler.outcome("0" * 16, measurements("L3-L4"))
    for wrong in ([], measurements("L3-L4") * 2):
        with pytest.raises(FollowUpError):
            handler.outcome(case_id, wrong)
    assert len(handler._store.snapshot().table("follow_up")) == 0


def test_a_table_of_measurements(handler: IngestHandler, phantoms: PhantomCohort, tmp_path: Path) -> None:
    cases = [case for case in phantoms.cases if case.site == "site_a"]
    for case in cases:
        handler.ingest_folder(case.folder, "site_a")
    rows = read_follow_up(phantoms.outcome_files["site_a"])
    broken = [{**rows[0], "pfirrmann": "9"}, {**rows[0], "patient_id": "nobody"}, {**rows[0], "site": "site_b"}]
    known = {case.patient_id for case in cases}
    receipt = handler.follow_up.add_table([row for row in rows if row["patient_id"] in known] + broken, "site_a")
    assert receipt.patients == len(cases)
    assert [finding.code for finding in receipt.findings] == ["FollowUpError"] * 3
    assert "9" not in receipt.findings[0].message.replace("less than or equal to 5", "")
    labels = {row["patient_id"]: row["outcome"] for row in handler._store.snapshot().table("labels").to_pylist()}
    assert labels == {case.patient_id: case.outcome for case in cases}
    assert receipt.positive + receipt.negative + receipt.unknown == len(cases)
    assert handler.follow_up.add_table(rows, "site_a").unchanged


@pytest.mark.parametrize(
    "header", ["patient_id,days_from_index,rater", "patient_id,days_from_index,rater,level,colour"]
)
def test_a_table_with_other_columns(tmp_path: Path, header: str) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text(header + "\n")
    with pytest.raises(FollowUpError, match="columns"):
        read_follow_up(path)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    for name, data in (("a.csv", b"\xff\xfe\x00x"), ("a.parquet", b"no parquet"), ("missing.csv", None)):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(FollowUpError):
            read_follow_up(tmp_path / name)


def test_parquet_and_csv_say_the_same(phantoms: PhantomCohort, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with phantoms.outcome_files["site_a"].open() as file:
        rows = list(csv.DictReader(file))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_follow_up(tmp_path / "a.parquet") == read_follow_up(phantoms.outcome_files["site_a"])
