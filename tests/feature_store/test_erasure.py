"""Erasure: nothing is left in any byte, others lose nothing, whatever it touched is named, whenever it is killed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import SimpleITK as sitk

from feature_store import erased_files, erased_log
from feature_store.audit import Act, AuditLog
from feature_store.backup import backup
from feature_store.cohort_settings import CohortSettings
from feature_store.cohorts import freeze_cohort, load_cohort
from feature_store.control import ControlDatabase, Credential, default_url
from feature_store.delta import DeltaLog
from feature_store.erasure import EraseSettings, ErasureReport, erase_patient, readmit
from feature_store.erasures import find
from feature_store.errors import NotFound, PatientErased, StoreError
from feature_store.push_log import PushLog
from feature_store.retrieval import training_table
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from feature_store.touched import touched
from pipelines.imaging.images import content_hash, write_canonical
from tests.feature_store.every_byte import Marks, look
from tests.feature_store.examples import ROIS, case, embedding, encoder, feature_set, ids, label, radiomics

pytestmark = pytest.mark.slow

PATIENT = "pseudonym's-4711"
AGE, FEATURE = 51.2345678, 123456.789012
VOXELS = np.random.default_rng(4711).integers(-1000, 1000, (4, 8, 8)).astype(np.int16)
MARKS = Marks((PATIENT, "case-a-pseudonym"), (AGE, FEATURE), VOXELS.tobytes())
SET = "study-mr-0a1b2c3d"
BY = Credential("alice", "operator", None)
NOW = EraseSettings(grace_hours=0.0, patience_s=0.0)
OTHERS = ("p2", "p3", "p4")


def image(store: FeatureStore, folder: Path, kind: str, voxels: np.ndarray) -> str:
    found = sitk.GetImageFromArray(voxels)
    name, path = content_hash(found), folder / f"{kind}.nrrd"
    write_canonical(found, path)
    return store.blobs.put_file(kind, path, sha256=name)


def pushed(store: FeatureStore, patient: str, hashes: dict[str, str], age: float, value: float) -> None:
    tables = case(patient, age=age)
    for row in (*tables["series"], *tables["rois"]):
        row |= {name: text for name, text in hashes.items() if name in row}
    store.push({**tables, "labels": [label(patient, int(patient in ("p2", PATIENT)))]}, kind="case", source="a")
    rows = [radiomics(patient, [value, 1.0, 2.0], roi) | hashes for roi in ROIS]
    deep = [embedding(patient, [value, 0.0, 1.0, 2.0]) | hashes]
    store.push({"radiomics": rows, "embeddings": deep}, kind="features", source="extraction")


def full(store: FeatureStore, control: ControlDatabase, folder: Path) -> FeatureStore:
    """A store with everything that can hold a patient."""
    mask = image(store, folder, "masks", (VOXELS > 0).astype(np.uint8))
    shared = image(store, folder, "images", VOXELS[::-1].copy())
    own = image(store, folder, "images", VOXELS)
    store.push({"feature_sets": [feature_set(SET)], "encoders": [encoder(seen=["a/p2"])]}, kind="set", source="x")
    for number, patient in enumerate((*OTHERS, PATIENT)):
        hashes = {"image_hash": own if patient == PATIENT else shared, "mask_hash": mask}
        pushed(store, patient, hashes, 40.0 + number, float(number))
    pushed(store, PATIENT, {"image_hash": own, "mask_hash": mask}, AGE, FEATURE)  # a correction
    freeze_cohort(store, CohortSettings(name="study"))
    table = pd.DataFrame({"site": "a", "patient_id": [*OTHERS, PATIENT], "rad": [0.1, 0.2, 0.3, FEATURE]})
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    predictions = store.blobs.put_bytes("artefacts", buffer.getvalue())
    now = datetime.now(UTC)
    run = {
        "run_id": "r1", "kind": "training", "state": "finished", "cohort": "study", "version": 1, "settings": "{}",
        "artefacts": json.dumps({"rad": "abc", "report/predictions.parquet": predictions}), "started_at": now,
        "software_version": "test",
    }  # fmt: skip
    score = {
        "score_id": "s1", "kind": "rad", "signature": "abc", "probability": 0.5, "high_risk": False,
        "threshold": 0.6, "moved_by": json.dumps([PATIENT]), "asked_by": "app", "asked_at": now, "as_of": 3,
    }  # fmt: skip
    tuned = encoder("vit_small-99999999", seen=["a/p2", f"a/{PATIENT}"], outcomes=True)
    rows = {"training_runs": [run], "scores": [{**ids(PATIENT), **score}], "encoders": [tuned]}
    store.push(rows, kind="run", source="x")
    for log in ("clinical", "radiomics"):  # sorted files; the ones before them stay for readers
        store.log(log).tidy(0)
    store.log("radiomics").maintain(lambda handle: handle.create_checkpoint())
    # killed writers: rows without a push, a file without a commit, one cut off, a draft of a commit
    dead = pa.Table.from_pylist(case(PATIENT, age=AGE)["clinical"], store.log("clinical").schema.arrow())
    columns = {"push_id": "0" * 32, "row_hash": "0" * 32}
    for name, text in columns.items():
        at = dead.schema.get_field_index(name)
        dead = dead.set_column(at, dead.schema.field(at), pa.array([text], pa.string()))
    store.log("clinical").append(dead)
    files = store.log("clinical").filesystem
    buffer = io.BytesIO()
    pq.write_table(dead.drop_columns(["site"]), buffer)
    for name, data in {
        "site=a/part-0.parquet": buffer.getvalue(),
        "site=a/part-1.parquet": buffer.getvalue()[:-20],
        "_delta_log/_commit_0.json.tmp": json.dumps({"add": {"path": PATIENT}}).encode(),
    }.items():
        with files.open_output_stream(name) as target:
            target.write(data)
    control.set_case_state("a", PATIENT, ids(PATIENT)["case_id"], "rejected", [PATIENT])
    control.set_case_state("a", "p2", ids("p2")["case_id"], "validated")
    control.log_score({**ids(PATIENT), **score, "score_id": "s2"})
    control.log_score({**ids("p2"), **score, "score_id": "s3", "moved_by": "[]"})
    AuditLog(control).record(Credential("pacs", "site", "a"), Act("push", "a", PATIENT, ids(PATIENT)["case_id"]))
    return store


def others(snapshot: Snapshot) -> dict[str, list[str]]:
    """All that the store has of the others, in every revision."""
    tables = ("cases", "series", "rois", "clinical", "labels", "radiomics", "embeddings", "cohorts")
    found = {name: snapshot.revisions(name).to_pylist() for name in tables}
    return {name: sorted(repr(row) for row in rows if row["patient_id"] != PATIENT) for name, rows in found.items()}


def unbroken(store: FeatureStore) -> list[str]:
    here = [promise for promise in store.check() if promise.broken]
    return [f"{p.promise}: {p.table}" for p in here if "overlay" not in p.promise and "checkpoint" not in p.promise]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlDatabase]:
    opened = ControlDatabase.open(default_url(str(tmp_path / "store")))
    yield opened
    opened.close()


def test_nothing_of_an_erased_patient_is_left(
    store: FeatureStore, control: ControlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASDEG_CACHE", str(tmp_path / "cache"))
    full(store, control, tmp_path)
    own = content_hash(sitk.GetImageFromArray(VOXELS))
    store.blobs.local_path("images", own, suffix=".nii")  # a copy of another name in the cache
    places = {store.uri, str(tmp_path / "cache"), str(tmp_path / "store")}
    found = {path: marks for place in places for path, marks in look(place, MARKS).items()}
    told = {name for marks in found.values() for name in marks}
    assert told >= {PATIENT, repr(AGE), repr(FEATURE), "voxels", "unreadable"}  # the search can find what there is
    for part in ("tables/clinical/_delta_log", "checkpoint", "blobs/images", "blobs/artefacts", "control.sqlite"):
        assert any(part in path for path in found), part
    before = others(store.snapshot())
    sequence = store.snapshot().sequence
    report = erase_patient(store, control, "a", PATIENT, reason="request", erased_by=BY, settings=NOW)
    assert (report.state, report.waiting) == ("finished", 0)
    control.close()
    for place in places:
        assert look(place, MARKS) == {}
    assert not any(own in name for name in store.blobs.names("images"))
    assert others(store.snapshot()) == before
    assert others(store.snapshot(sequence)) == before
    assert unbroken(store) == []
    assert report.blobs == {"images": 1}  # the mask is another patient's as well
    assert report.rows["clinical"] == 4  # two revisions, a withdrawal, a dead writer's
    assert (report.artefacts, report.nets) == (1, 1)
    run = store.snapshot().table("training_runs").to_pylist()[0]
    kept = json.loads(run["artefacts"])["report/predictions.parquet"]
    assert pd.read_parquet(io.BytesIO(store.blobs.read_bytes("artefacts", kept)))["patient_id"].tolist() == [*OTHERS]
    seen = store.snapshot().table("encoders", where={"encoder": "vit_small-99999999"}).to_pylist()[0]["patients_seen"]
    assert seen[0].startswith("a/erased:")
    assert seen[1:] == ["a/p2"]
    # what had used the patient is named, for good
    (found_use,) = touched(store.snapshot(), "a")
    assert (found_use.change, found_use.case_id, found_use.scores) == ("erased", None, 1)
    assert (found_use.cohorts, found_use.runs, found_use.signatures) == (("study v1",), ("r1",), ("abc",))
    assert found_use.nets == ("vit_small-99999999",)
    # the control database, too, has the others only, and its audit log holds
    assert [case.patient_id for case in control.cases()] == ["p2"]
    assert [row["score_id"] for row in control.unflushed_scores()] == ["s3"]
    AuditLog(control).verify()
    assert [row.forgotten for row in AuditLog(control).entries()] == [True, False]


def test_the_frozen_cohort_goes_on_without_and_says_so(folder_store: FeatureStore, control: ControlDatabase, tmp_path: Path) -> None:  # fmt: skip  # noqa: E501
    store = full(folder_store, control, tmp_path)
    before = training_table(store.snapshot(), "study", [SET], rois=ROIS)
    report = erase_patient(store, control, "a", PATIENT, reason="request", erased_by=BY, settings=NOW)
    after = training_table(store.snapshot(), "study", [SET], rois=ROIS)
    mine = before.patients["patient_id"] == PATIENT
    assert before.features[~mine.to_numpy()].reset_index(drop=True).equals(after.features)
    assert before.sources["erased_by"] == []
    assert after.sources["erased_by"] == [report.erasure]
    assert load_cohort(store.snapshot(), "study").erased == (report.erasure,)
    assert freeze_cohort(store, CohortSettings(name="study")).version == 2
    assert load_cohort(store.snapshot(), "study").erased == ()
    again = erase_patient(store, control, "a", PATIENT, reason="again", erased_by=BY, settings=NOW)
    assert (again.erasure, again.state, again.rows, again.files) == (report.erasure, "finished", {}, 0)
    with pytest.raises(NotFound):
        erase_patient(store, control, "a", "nobody", reason="", erased_by=BY, settings=NOW)


def test_an_erased_patient_comes_back_by_consent_only(folder_store: FeatureStore) -> None:
    store = folder_store
    store.push(case("p1"), kind="case", source="a")
    erase_patient(store, None, "a", "p1", reason="request", erased_by=BY, settings=NOW)
    count = store.snapshot().sequence
    with pytest.raises(PatientErased):
        store.push(case("p1"), kind="case", source="a")
    with pytest.raises(PatientErased):
        store.admit("a", "p1")
    store.admit("b", "p1")  # another site's patient of the same id
    several = store.push({"clinical": [case(p)["clinical"][0] for p in ("p1", "p2")]}, kind="case", source="a")
    assert [(row.row, row.rule) for row in several.rejected] == [(0, "erased")]
    assert several.written == {"clinical": 1}
    assert store.snapshot().sequence == count + 1
    with pytest.raises(NotFound):
        readmit(store, "a", "p2", "signed", "alice")
    assert readmit(store, "a", "p1", "signed anew", "alice").state == "readmitted"
    store.push(case("p1"), kind="case", source="a")
    assert unbroken_pushes(store) == []
    second = erase_patient(store, None, "a", "p1", reason="again", erased_by=BY, settings=NOW)
    assert second.state == "finished"
    assert len(store.snapshot().table("erasures")) == 2
    assert unbroken_pushes(store) == []


def unbroken_pushes(store: FeatureStore) -> list[str]:
    here = [promise for promise in store.check() if promise.broken]
    return [f"{p.promise}: {p.table}" for p in here if "kept among" not in p.promise]


def test_a_push_under_way_is_refused_and_takes_its_rows_back(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.push(case("p1"), kind="case", source="a")
    slow = FeatureStore.open(store.uri)
    commit = PushLog.commit

    def erased_meanwhile(self: PushLog, *args: Any) -> int:
        if args[1] == "case":  # its rows are in the tables
            erase_patient(store, None, "a", "p1", reason="request", erased_by=BY, settings=NOW)
        return commit(self, *args)

    monkeypatch.setattr(PushLog, "commit", erased_meanwhile)
    with pytest.raises(PatientErased):
        slow.push(case("p1", age=77.0), kind="case", source="a")
    monkeypatch.undo()
    for name in ("cases", "clinical", "rois"):
        rows = store.log(name).files().dataset().to_table(columns=["patient_id"])  # type: ignore[union-attr]
        assert len(rows) == 0
    assert unbroken_pushes(store) == []


def test_a_view_from_before_says_that_it_has_to_be_taken_again(store: FeatureStore) -> None:
    for patient in ("p1", "p2"):
        store.push(case(patient), kind="case", source="a")
    before = FeatureStore.open(store.uri).snapshot()
    heads = before.heads("series")
    assert heads is not None
    erase_patient(store, None, "a", "p1", reason="request", erased_by=BY, settings=NOW)
    with pytest.raises(StoreError, match="went while it was read"):
        list(heads.batches(["origin"]))
    again = FeatureStore.open(store.uri).snapshot()
    assert set(again.table("series", ["patient_id"])["patient_id"].to_pylist()) == {"p2"}


class Killed(BaseException):
    """Nothing catches it."""


def test_killed_at_any_step_it_is_taken_up_again(
    folder_store: FeatureStore, control: ControlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = full(folder_store, control, tmp_path)
    before = others(store.snapshot())
    kills = 0

    def dying_after(steps: int) -> Callable[..., Callable[..., Any]]:
        left = [steps]

        def dying(work: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **kwargs: Any) -> Any:
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return work(*args, **kwargs)

            return step

        return dying

    for steps in range(0, 400, 3):
        with monkeypatch.context() as patched:
            dying = dying_after(steps)
            for owner, name in (
                (erased_files, "_delete"), (erased_log, "_replace"), (DeltaLog, "maintain"),
                (type(store.blobs), "remove"), (ControlDatabase, "wipe"), (FeatureStore, "push"),
            ):  # fmt: skip
                patched.setattr(owner, name, dying(getattr(owner, name)))
            try:
                report = erase_patient(store, control, "a", PATIENT, reason="request", erased_by=BY, settings=NOW)
                break
            except Killed:
                kills += 1
        reader = FeatureStore.open(store.uri)
        assert others(reader.snapshot()) == before
        if find(reader.snapshot(), "a", PATIENT) is not None:  # from its record on nobody sees the patient
            for name in ("cases", "clinical", "radiomics", "cohorts", "scores"):
                assert PATIENT not in reader.snapshot().table(name, ["patient_id"])["patient_id"].to_pylist()
        assert [p for p in unbroken(reader) if "whole" in p] == []
    assert kills >= 5
    assert report.state == "finished"
    control.close()
    assert look(store.uri, MARKS) == {}
    assert unbroken(store) == []


def test_files_of_a_writer_that_may_be_at_work_are_waited_for(folder_store: FeatureStore, control: ControlDatabase, tmp_path: Path) -> None:  # fmt: skip  # noqa: E501
    store = full(folder_store, control, tmp_path)
    patient = EraseSettings(grace_hours=1.0, patience_s=0.0)
    report: ErasureReport = erase_patient(store, control, "a", PATIENT, reason="r", erased_by=BY, settings=patient)
    assert report.state == "begun"
    assert report.waiting >= 2
    assert report.after is not None
    left = look(store.uri, MARKS)
    assert left
    assert all("clinical/site=a/part-" in path or "_commit_0" in path for path in left)
    with pytest.raises(PatientErased):
        readmit(store, "a", PATIENT, "signed", "alice")
    assert erase_patient(store, control, "a", PATIENT, reason="r", erased_by=BY, settings=NOW).state == "finished"


def test_a_backup_made_again_loses_the_patient_too(folder_store: FeatureStore, control: ControlDatabase, tmp_path: Path) -> None:  # fmt: skip  # noqa: E501
    store = full(folder_store, control, tmp_path)
    target = FeatureStore.open(tmp_path / "backup", create=True)
    backup(store, target)
    erase_patient(store, control, "a", PATIENT, reason="request", erased_by=BY, settings=NOW)
    assert look(target.uri, MARKS)
    assert backup(store, target).erased == 1
    assert look(target.uri, MARKS) == {}
    assert others(target.snapshot()) == others(store.snapshot())
    assert target.snapshot().pushes.equals(store.snapshot().pushes)
    assert unbroken(target) == []
    assert backup(store, target).erased == 0


def test_a_backup_on_its_own_is_erased_by_its_address(folder_store: FeatureStore, control: ControlDatabase, tmp_path: Path) -> None:  # fmt: skip  # noqa: E501
    store = full(folder_store, control, tmp_path)
    target = FeatureStore.open(tmp_path / "backup", create=True)
    backup(store, target)
    erase_patient(target, None, "a", PATIENT, reason="request", erased_by=BY, settings=NOW)
    assert look(target.uri, MARKS) == {}
    assert look(store.uri, MARKS)
