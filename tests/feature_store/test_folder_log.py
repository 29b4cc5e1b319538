"""What the store writes into Delta's log by itself is what the library reads there, and the other way round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from feature_store import delta, folder_log
from feature_store.delta import DeltaLog, TransactionTaken, deepest
from feature_store.location import Location
from feature_store.schemas import PUSHES
from feature_store.store import FeatureStore
from tests.feature_store.examples import case


@pytest.fixture
def store(folder_store: FeatureStore) -> FeatureStore:
    return folder_store


def push(store: FeatureStore, *patients: str, site: str = "a", **clinical: Any) -> None:
    for patient in patients:
        store.push(case(patient, site, **clinical), kind="case", source=site)


def folder(store: FeatureStore, table: str = "clinical") -> Path:
    return Path(store.uri) / "tables" / table


def by_library(store: FeatureStore, table: str = "clinical") -> list[dict[str, Any]]:
    return sorted(DeltaTable(folder(store, table)).to_pyarrow_table().to_pylist(), key=repr)


def by_us(store: FeatureStore, table: str = "clinical") -> list[dict[str, Any]]:
    files = store.log(table).files()
    assert files is not None
    names = [field.name for field in DeltaTable(folder(store, table)).schema().fields]
    return sorted(files.dataset().to_table(columns=names).to_pylist(), key=repr)


def other(store: FeatureStore, table: str = "clinical") -> DeltaLog:
    """Another process's handle."""
    return FeatureStore.open(store.uri).log(table)


def test_the_library_and_the_store_see_the_same(store: FeatureStore) -> None:
    sites = ["a", "São Paulo 100%", "a/b", "..", "日本"]
    for number, site in enumerate(sites):
        push(store, *(f"p{i}" for i in range(3)), site=site, age=40.0 + number)
        assert by_library(store) == by_us(store)
    handle = DeltaTable(folder(store))
    assert [entry["operation"] for entry in handle.history(15)] == ["WRITE"] * 15
    handle.create_checkpoint()
    push(store, "after")
    for reader in (store, FeatureStore.open(store.uri)):
        assert by_us(reader) == by_library(store)
        assert len(by_us(reader)) == 16
    handle.update_incremental()
    handle.optimize.compact()  # by the library, with removals, seen by a handle that knew the files before
    assert by_us(store) == by_us(FeatureStore.open(store.uri)) == by_library(store)
    assert store.log("clinical").tidy(0) == 0  # one file a site is left to tidy
    push(store, "later")
    assert store.log("clinical").tidy(0) == 2
    assert by_us(store) == by_library(store)
    assert DeltaTable(folder(store, "pushes")).transaction_version("asdeg-pushes") == store.snapshot().sequence
    assert by_library(store, "pushes") == by_us(store, "pushes")


def test_of_two_that_tidy_at_once_one_gives_up(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    push(store, *(f"p{i}" for i in range(6)))
    commit = folder_log.FolderLog.commit

    def commit_after_another(self: Any, *args: Any) -> int:
        monkeypatch.setattr(folder_log.FolderLog, "commit", commit)
        assert other(store).tidy(0) == 6
        return commit(self, *args)

    monkeypatch.setattr(folder_log.FolderLog, "commit", commit_after_another)
    assert store.log("clinical").tidy(0) == 0
    assert len(by_library(store)) == 6


def test_a_push_that_the_library_has_put_there_twice_is_one(store: FeatureStore) -> None:
    push(store, *(f"p{i}" for i in range(4)))
    first, second = DeltaTable(folder(store, "pushes")), DeltaTable(folder(store, "pushes"))
    first.optimize.compact()
    second.optimize.compact()
    assert len(by_library(store, "pushes")) == 8  # if not: the library has mended it, and `_once` may go
    assert FeatureStore.open(store.uri).snapshot().pushes["sequence"].to_pylist() == [1, 2, 3, 4]
    push(store, "p4")
    assert store.snapshot().sequence == 5


def test_who_was_asleep_while_the_log_was_cleaned_goes_on_at_its_end(store: FeatureStore) -> None:
    push(store, "p0")
    sleeper = FeatureStore.open(store.uri)
    assert sleeper.snapshot().sequence == 1
    assert by_us(sleeper)
    push(store, *(f"p{i}" for i in range(1, 5)))
    for table in ("cases", "series", "rois", "clinical", "pushes"):
        store.log(table).checkpoint()
        for commit in sorted((folder(store, table) / "_delta_log").glob("*.json"))[:-1]:
            commit.unlink()
    push(sleeper, "late")
    for reader in (sleeper, store, FeatureStore.open(store.uri)):
        assert reader.snapshot().sequence == 6
        assert len(reader.snapshot().table("clinical")) == 6
    assert len(by_library(store)) == 6


def test_a_number_is_taken_once(store: FeatureStore) -> None:
    push(store, "p0")
    log = DeltaLog(Location.parse(store.uri), PUSHES)
    row = store.snapshot().pushes.to_pylist()[0]
    rows = pa.Table.from_pylist([row | {"sequence": 2, "push_id": "x"}], PUSHES.arrow())
    log.append_numbered(rows, "asdeg-pushes", 2)
    with pytest.raises(TransactionTaken):
        log.append_numbered(rows, "asdeg-pushes", 2)
    with pytest.raises(TransactionTaken):
        log.append_numbered(rows, "asdeg-pushes", 4)


def test_a_log_of_a_kind_not_known_here_is_left_to_the_library(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(store, "p0")
    monkeypatch.setattr(folder_log, "READER", 0)
    unsure = FeatureStore.open(store.uri)
    push(unsure, "p1")
    assert unsure.log("clinical").tidy(0) == 2
    monkeypatch.undo()
    assert len(by_us(store)) == 2
    assert store.snapshot().sequence == 2


def test_a_commit_says_who_made_it_and_no_draft_is_left(store: FeatureStore) -> None:
    push(store, "p", "p0")  # the first makes the table, which is the library's work
    log = folder(store) / "_delta_log"
    said = [json.loads(line) for line in sorted(log.glob("*.json"))[-1].read_text(encoding="utf-8").splitlines()]
    assert "asdeg" in said[0]["commitInfo"]["engineInfo"]
    assert json.loads(said[1]["add"]["stats"])["maxValues"]["patient_id"] == "p0"
    assert set(json.loads(said[1]["add"]["stats"])["minValues"]) == {"patient_id", "case_id", "push_id"}
    assert not list(log.glob("*.tmp"))


def test_a_kept_listing_is_the_checkpoint_and_gives_way_to_what_is_newer(store: FeatureStore) -> None:
    push(store, *(f"p{i}" for i in range(6)), site="ä/b")
    store.log("clinical").tidy(0)
    kept = folder(store) / "_delta_log" / folder_log.KEPT
    log = folder_log.FolderLog(str(folder(store)), store.log("clinical").schema)
    by_kept = log.read(None)
    whole = kept.read_bytes()
    kept.unlink()
    by_checkpoint = log.read(None)
    assert by_kept is not None
    assert by_kept == by_checkpoint  # files, numbers, columns, version
    push(store, "later")
    kept.write_bytes(whole)
    assert by_us(FeatureStore.open(store.uri)) == by_library(store)  # and what came after it
    DeltaTable(folder(store)).create_checkpoint()
    assert by_us(FeatureStore.open(store.uri)) == by_library(store)  # older than the checkpoint: left aside
    for broken in (b"", whole[: len(whole) // 2], b"rubbish"):
        kept.write_bytes(broken)
        assert by_us(FeatureStore.open(store.uri)) == by_library(store)


def test_large_files_that_were_never_sorted_together_are(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look for one patient would open each of them; those that were sorted once are left alone."""
    monkeypatch.setattr(delta, "SORTED_FILE_BYTES", 2000)
    for push_number in range(5):
        rows = [case(f"p{i:02d}{push_number}")["clinical"][0] for i in range(40)]
        store.push({"clinical": rows}, kind="case", source="a")
    assert deepest(store.log("clinical").files().listing) == 5  # type: ignore[union-attr]
    before = by_library(store)
    assert store.log("clinical").tidy(3) == 5
    assert deepest(store.log("clinical").files().listing) <= 2  # type: ignore[union-attr]
    assert by_us(store) == by_library(store) == before
    assert store.log("clinical").tidy(3) == 0


def test_depth_is_of_one_patient_of_one_kind() -> None:
    def listing(*bounds: tuple[str | None, str | None, str, str]) -> pa.Table:
        names = ("min.feature_set", "max.feature_set", "min.patient_id", "max.patient_id")
        return pa.table([pa.array(column, pa.string()) for column in zip(*bounds, strict=True)], names=names)

    assert deepest(listing(("x", "x", "a", "m"), ("x", "x", "n", "z"), ("y", "y", "a", "z"))) == 1
    assert deepest(listing(("x", "x", "a", "m"), ("x", "x", "m", "z"), ("x", "x", "b", "b"))) == 2
    assert deepest(listing(("x", "y", "a", "z"), ("x", "x", "b", "c"), ("y", "y", "b", "c"))) == 2
    assert deepest(listing((None, None, "a", "b"), ("x", "x", "y", "z"))) == 2  # nothing is known of the first
