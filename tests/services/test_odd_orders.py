"""What a site says of a case before it is carried out, after it was withdrawn, or twice in one table: real HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from feature_store.vocabulary import adjacent_segments
from pipelines.cases.manifest import case_id as named_case
from pipelines.phantom import PhantomCase, PhantomCohort
from services.ingest.clinical import ClinicalVariables
from services.ingest.follow_up import FollowUp
from tests.feature_store.examples import case as case_rows
from tests.services.door import Door, open_door


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Cases are accepted and carried out only when a test says so."""
    with open_door(tmp_path_factory.mktemp("door"), carries=False) as door:
        yield door


@pytest.fixture
def case(phantoms: PhantomCohort, tmp_path: Path) -> PhantomCase:
    """A case of one image, with a patient of its own."""
    case = phantoms.cases[0]
    series = yaml.safe_load((case.folder / "case.yaml").read_text())["series"][:1]
    kept = {"case.yaml", series[0]["image"], series[0]["mask"]}
    shutil.copytree(case.folder, tmp_path / "case", ignore=lambda _, names: [one for one in names if one not in kept])
    changed(tmp_path / "case", patient_id=f"patient-of-{tmp_path.name}"[:40], series=series)
    return PhantomCase(**{**vars(case), "folder": tmp_path / "case"})


def changed(folder: Path, clinical: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The case's manifest after a change."""
    manifest: dict[str, Any] = yaml.safe_load((folder / "case.yaml").read_text())
    manifest |= fields
    manifest["clinical"] |= clinical or {}
    (folder / "case.yaml").write_text(yaml.safe_dump(manifest))
    return manifest


def accepted(door: Door, case: PhantomCase) -> str:
    answer = door.push(case.site, case.folder, params={"wait": 0})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["case_id"])


def put(door: Door, case_id: str, what: str, body: object) -> httpx.Response:
    return door.call("site_a", "PUT", f"/v1/cases/{case_id}/{what}", json=body)


def bmis(door: Door, case_id: str) -> tuple[list[float], list[str]]:
    """As it stands now, and by which kinds of push it came there."""
    told = door.call("site_a", "GET", f"/v1/cases/{case_id}/clinical").json()
    return [row["bmi"] for row in told["current"]], [version["by"] for version in told["history"]]


def test_what_is_said_while_a_case_waits_is_not_undone_by_carrying_it_out(door: Door, case: PhantomCase) -> None:
    said = {**changed(case.folder)["clinical"], "bmi": 33.3, "diagnosis": "a word of its own"}
    case_id = accepted(door, case)
    put(door, case_id, "clinical", said)
    early = put(door, case_id, "index-date", {"days_after_newest_image": 3})
    assert (early.status_code, early.json()["error"]) == (409, "NotReady")
    assert door.house.intake.carry_out(case_id)
    assert bmis(door, case_id) == ([33.3], ["clinical", "case", "clinical again"])
    # the same case by another door (another archive, nothing new in it) leaves it alone
    assert door.house.ingest.ingest_folder(case.folder, case.site).unchanged
    # a corrected case that was accepted before the word, and carried out after it
    changed(case.folder, {"bmi": 21.5})
    accepted(door, case)
    put(door, case_id, "clinical", {**said, "bmi": 34.4})
    door.house.intake.carry_out(case_id)
    assert bmis(door, case_id)[0] == [34.4]
    # and one that was accepted after it is the newer word
    changed(case.folder, {"bmi": 22.5})
    accepted(door, case)
    door.house.intake.carry_out(case_id)
    assert bmis(door, case_id)[0] == [22.5]


def test_a_column_that_is_mended_while_a_corrected_case_waits_changes_nothing_else(
    door: Door, case: PhantomCase
) -> None:
    manifest = changed(case.folder, {"age": 60.0, "bmi": 21.0, "diagnosis": "a word of its own"})
    case_id = accepted(door, case)
    door.house.intake.carry_out(case_id)
    changed(case.folder, {"age": 61.0})
    accepted(door, case)
    table = [{"patient_id": manifest["patient_id"], "bmi": "33.3"}]
    assert door.house.ingest.clinical.put_table(table, case.site).rows == 1
    changed(case.folder, {"bmi": 22.5})
    accepted(door, case)  # the newest word of all
    door.house.intake.carry_out(case_id)
    told = door.call("site_a", "GET", f"/v1/cases/{case_id}/clinical").json()
    assert [(version["by"], version["values"]["age"], version["values"]["bmi"]) for version in told["history"]] == [
        ("case", 60.0, 21.0),
        ("clinical columns", 60.0, 33.3),
        ("case", 61.0, 21.0),
        ("clinical again", 61.0, 33.3),
        ("case", 61.0, 22.5),
    ]
    assert len({version["values"]["diagnosis"] for version in told["history"]}) == 1


def test_a_kill_between_the_case_and_what_was_said_loses_neither(
    door: Door, case: PhantomCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    case_id = accepted(door, case)
    put(door, case_id, "clinical", {"bmi": 33.3})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(door.house.ingest.clinical), "stand", killed)
        with pytest.raises(KeyboardInterrupt):
            door.house.intake.carry_out(case_id)
    assert bmis(door, case_id)[1] == ["clinical", "case"]
    assert door.house.intake.carry_out(case_id)
    assert bmis(door, case_id)[0] == [33.3]


def test_of_a_withdrawn_case_nothing_is_said(door: Door, case: PhantomCase) -> None:
    case_id = accepted(door, case)
    path = f"/v1/cases/{case_id}/withdrawal"
    early = door.call("site_a", "POST", path, json={"reason": "wrong side"})
    assert (early.status_code, early.json()["error"]) == (409, "NotReady")
    door.house.intake.carry_out(case_id)
    changed(case.folder, {"bmi": 21.5})
    accepted(door, case)  # carried out after a withdrawal, this would bring the case back
    assert door.call("site_a", "POST", path, json={"reason": "wrong side"}).status_code == 409
    door.house.intake.carry_out(case_id)
    assert door.call("site_a", "POST", path, json={"reason": "wrong side"}).status_code == 200
    sequence = door.house.store.snapshot().sequence
    for what, body in (
        ("clinical", {"bmi": 20}),
        ("outcome", [{"days_from_index": 400, "rater": "A", "level": "L3-L4", "ucla": 1}]),
        ("reads", [{"surgeon": "A", "prediction": 1}]),
        ("index-date", {"days_after_newest_image": 1}),
    ):
        answer = put(door, case_id, what, body)
        assert (answer.status_code, answer.json()["error"]) == (409, "Conflict"), what
    assert door.house.store.snapshot().sequence == sequence
    accepted(door, case)  # from here on it is a case again
    assert put(door, case_id, "clinical", {"bmi": 20}).status_code == 200
    door.house.intake.carry_out(case_id)
    assert bmis(door, case_id)[0] == [20]


def test_a_measurement_twice_in_a_table_counts_once_and_its_label_is_of_that_one(door: Door, case: PhantomCase) -> None:
    door.house.intake.carry_out(accepted(door, case))
    manifest = changed(case.folder)
    level = adjacent_segments(tuple(manifest["clinical"]["fused_levels"]))[0]
    row = {"patient_id": manifest["patient_id"], "days_from_index": "700", "rater": "A", "level": level}
    rows = [{**row, "pfirrmann": "5"}, {**row, "pfirrmann": "2"}]
    receipt = door.house.ingest.follow_up.add_table(rows, case.site)
    (finding,) = receipt.findings
    assert (finding.file, receipt.measurements, receipt.positive) == ("row 2", 1, 1)
    where = {"site": case.site, "patient_id": manifest["patient_id"]}
    snapshot = door.house.store.snapshot()
    assert snapshot.table("follow_up", where=where)["pfirrmann"].to_pylist() == [5]
    assert snapshot.table("labels", where=where)["outcome"].to_pylist() == [1]


def test_a_table_changes_its_own_columns_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore.open(tmp_path / "store", create=True)
    follow_up = FollowUp(store, lambda site, patient: patient)
    clinical = ClinicalVariables(store, follow_up, lambda site, patient: patient)
    said = {"age": 60.0, "bmi": 25.0, "sex": "male", "surgical_segments": 1, "fused_levels": ["L4-L5"]}
    for name in ("p1", "p2", "p3"):
        rows = case_rows(name, **said).items()
        tables = {table: [{**row, "case_id": named_case("a", name)} for row in those] for table, those in rows}
        store.push(tables, kind="case", source="a")
    measured = {"days_from_index": "400", "rater": "A", "level": "L3-L4", "pfirrmann": "5"}
    follow_up.add_table([{"patient_id": "p1", **measured}], "a")

    def stands(patient: str) -> dict[str, Any]:
        (row,) = store.snapshot().table("clinical", list(said), {"patient_id": patient}).to_pylist()
        return row

    asked = FollowUp.labels_again

    def another_is_quicker(*arguments: Any) -> Any:
        monkeypatch.undo()
        clinical.put_table([{"patient_id": "p1", "age": "61"}], "a")
        return asked(*arguments)

    monkeypatch.setattr(FollowUp, "labels_again", another_is_quicker)
    table = [
        {"patient_id": "p1", "bmi": "33.3", "sex": ""},
        {"patient_id": "p2", "fused_levels": "L4-L5 L3-L4"},
        {"patient_id": "p3", "fused_levels": "L4-L5 L3-L4", "surgical_segments": "2"},
    ]
    receipt = clinical.put_table(table, "a")
    assert (receipt.rows, [finding.file for finding in receipt.findings]) == (2, ["row 2"])
    assert stands("p1") == {**said, "age": 61.0, "bmi": 33.3, "sex": None}
    assert stands("p2") == said
    assert stands("p3") == {**said, "surgical_segments": 2, "fused_levels": ["L4-L5", "L3-L4"]}
    assert store.snapshot().table("labels")["outcome"].to_pylist() == [1]  # of the levels that still stand
    assert clinical.put_table(table[:1], "a").unchanged


def test_a_table_of_many_patients_reads_their_follow_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore.open(tmp_path / "store", create=True)
    follow_up = FollowUp(store, lambda site, patient: patient)
    clinical = ClinicalVariables(store, follow_up, lambda site, patient: patient)
    names = [f"p{number}" for number in range(5)]
    for name in names:
        store.push(case_rows(name, fused_levels=None), kind="case", source="a")
    measured = {"days_from_index": "400", "rater": "A", "level": "L3-L4", "pfirrmann": "5"}
    follow_up.add_table([{"patient_id": name, **measured} for name in names[1:]], "a")
    asked: list[str] = []
    table = Snapshot.table

    def counted(self: Snapshot, name: str, *rest: Any, **more: Any) -> Any:
        asked.append(name)
        return table(self, name, *rest, **more)

    monkeypatch.setattr(Snapshot, "table", counted)
    assert clinical.put_table([{"patient_id": name, "fused_levels": "L4-L5"} for name in names], "a").rows == 5
    assert asked.count("follow_up") == 1
    monkeypatch.undo()
    labels = store.snapshot().table("labels")
    assert dict(zip(labels["patient_id"].to_pylist(), labels["outcome"].to_pylist(), strict=True)) == {
        name: 1 for name in names[1:]
    }
    nobody = clinical.put_table([{"patient_id": "nobody", "bmi": "20"}], "a")
    assert (nobody.rows, nobody.unchanged, nobody.findings[0].file) == (0, True, "row 1")
