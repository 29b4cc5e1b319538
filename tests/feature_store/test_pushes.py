from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_store.delta import DeltaLog
from feature_store.errors import Conflict, SchemaError, StoreError, StoreNotFound, UsageError
from feature_store.location import Location
from feature_store.schemas import CLINICAL, TABLES, Column, TableSchema
from feature_store.snapshot import Snapshot
from feature_store.sql import ask
from feature_store.store import FeatureStore
from tests.feature_store.examples import case, embedding, encoder, feature_set, radiomics


def push(store: FeatureStore, tables: Any, **more: Any) -> Any:
    return store.push(tables, kind="case", source="a", **more)


def before_commit(store: FeatureStore, action: Callable[[], Any]) -> None:
    """Let ``action`` happen once, after the data rows are written and before the push is committed."""
    commit = store._push_log.commit

    def commit_after(*args: Any) -> int:
        store._push_log.commit = commit  # type: ignore[method-assign]
        action()
        return commit(*args)

    store._push_log.commit = commit_after  # type: ignore[method-assign]


def test_no_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        FeatureStore.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    created = FeatureStore.open(tmp_path / "nothing", create=True)
    assert FeatureStore.open(f"file://{tmp_path}/nothing").snapshot().sequence == 0
    assert created.snapshot().table("cases").num_rows == 0


def test_a_push_is_visible_as_a_whole_and_the_same_again_is_nothing(store: FeatureStore) -> None:
    first = push(store, case("p1"))
    assert (first.sequence, first.written) == (1, {"cases": 1, "series": 2, "rois": 2, "clinical": 1})
    again = push(store, case("p1"))
    assert again.sequence is None
    assert again.unchanged == first.written
    snapshot = store.snapshot()
    assert snapshot.sequence == 1
    assert [json.loads(t) for t in snapshot.table("pushes", ["tables"])["tables"].to_pylist()] == [first.written]
    rows = snapshot.table("clinical").to_pylist()
    assert [(r["patient_id"], r["age"], r["push_id"]) for r in rows] == [("p1", 50.0, first.push_id)]


def test_a_changed_row_is_a_revision_and_the_rest_is_left_out(store: FeatureStore) -> None:
    push(store, case("p1"))
    push(store, case("p2"))
    receipt = push(store, case("p1", age=51.0))
    assert receipt.sequence == 3
    assert receipt.written == {"cases": 0, "series": 0, "rois": 0, "clinical": 1}
    now, then = store.snapshot(), store.snapshot(as_of=2)
    assert now.table("clinical", ["age"], {"patient_id": "p1"})["age"].to_pylist() == [51.0]
    assert then.table("clinical", ["age"], {"patient_id": "p1"})["age"].to_pylist() == [50.0]
    history = now.revisions("clinical", where={"patient_id": "p1"})
    assert history["age"].to_pylist() == [50.0, 51.0]
    assert history["push_sequence"].to_pylist() == [1, 3]
    assert push(store, case("p1", age=50.0)).sequence == 4  # back to an older value is a revision too


def test_rejected_rows_come_back_and_the_others_are_written(store: FeatureStore) -> None:
    rows = case("p1")
    rows["clinical"].append(case("p2", age=500.0)["clinical"][0])
    receipt = push(store, rows)
    assert [(r.table, r.row, r.column, r.rule) for r in receipt.rejected] == [("clinical", 1, "age", "range")]
    assert store.snapshot().table("clinical")["patient_id"].to_pylist() == ["p1"]
    with pytest.raises(SchemaError):
        push(store, {"clinical": [{"nonsense": 1}]})
    with pytest.raises(UsageError, match="no table"):
        push(store, {"patients": []})
    assert push(store, {"clinical": []}).sequence is None
    assert store.snapshot().sequence == 1


def test_values_are_as_long_as_their_set_or_encoder_says(store: FeatureStore) -> None:
    """A row of another length would stop every training table of that set."""
    sets = {"feature_sets": [feature_set("one-mr-0a1b2c3d", ("a", "b"))], "encoders": [encoder()]}
    values = {
        "radiomics": [
            radiomics("p1", [1.0, 2.0], name="one-mr-0a1b2c3d"),
            radiomics("p2", [1.0], name="one-mr-0a1b2c3d"),
            radiomics("p3", None, name="one-mr-0a1b2c3d"),  # an ROI that failed has no values
            radiomics("p4", [1.0, 2.0], name="nobodys-0a1b2c3d"),
        ],
        "embeddings": [embedding("p1", [1.0, 2.0, 3.0])],
    }
    expected = [
        ("radiomics", 1, "values", "length"),
        ("radiomics", 3, "feature_set", "declared"),
        ("embeddings", 0, "values", "length"),
    ]
    for tables in (values | sets, values):  # declared by the same push, whatever comes first in it; then long ago
        rejected = [(r.table, r.row, r.column, r.rule) for r in push(store, tables).rejected]
        assert sorted(rejected) == sorted(expected)
    assert store.snapshot().table("radiomics")["patient_id"].to_pylist() == ["p1", "p3"]


def test_rows_without_their_push_are_invisible(store: FeatureStore) -> None:
    push(store, case("p1"))

    def die() -> None:
        raise KeyboardInterrupt

    before_commit(store, die)
    with pytest.raises(KeyboardInterrupt):
        push(store, case("p1", age=99.0) | {"cases": case("p2")["cases"]})
    snapshot = FeatureStore.open(store.uri).snapshot()
    assert snapshot.sequence == 1
    assert snapshot.table("clinical")["age"].to_pylist() == [50.0]
    assert snapshot.table("cases")["patient_id"].to_pylist() == ["p1"]
    assert len(snapshot.revisions("clinical")) == 1
    assert ask(snapshot, "select count(*) as n from cases")["n"].to_pylist() == [1]
    assert push(store, case("p1", age=99.0)).sequence == 2  # and do not count as "unchanged"


def test_two_writers_of_the_same_row_make_one_revision(store: FeatureStore) -> None:
    other = FeatureStore.open(store.uri)
    push(store, case("p0"))
    before_commit(store, lambda: push(other, case("p1")))
    receipt = push(store, case("p1"))
    assert receipt.sequence == 3  # it had not seen the other's rows and wrote its own
    snapshot = store.snapshot()
    assert len(snapshot.table("clinical", where={"patient_id": "p1"})) == 1
    assert snapshot.revisions("clinical", where={"patient_id": "p1"})["push_sequence"].to_pylist() == [2]


def test_unchanged_rows_are_looked_at_again_when_another_push_came_first(store: FeatureStore) -> None:
    push(store, case("p1"))
    other = FeatureStore.open(store.uri)
    before_commit(store, lambda: push(other, case("p1", age=80.0)))
    rows = case("p1") | {"cases": [case("p1")["cases"][0] | {"manifest_hash": "new"}]}
    receipt = push(store, rows)  # says age 50 and a new manifest, later than "age 80"
    assert receipt.sequence == 3
    assert receipt.written == {"cases": 1, "series": 0, "rois": 0, "clinical": 1}
    now = store.snapshot()
    assert now.table("clinical")["age"].to_pylist() == [50.0]
    assert json.loads(now.pushes["tables"][-1].as_py()) == {"cases": 1, "clinical": 1}


@pytest.mark.parametrize(
    ("guard", "refused"),
    [
        (("clinical",), True),
        (("follow_up",), False),
        ({"clinical": {"site": "a", "patient_id": "p2"}}, True),
        ({"clinical": {"site": "a", "patient_id": ["p3"]}}, False),
        ({"clinical": None}, True),
    ],
)
def test_a_push_can_depend_on_what_it_read(store: FeatureStore, guard: Any, refused: bool) -> None:
    push(store, case("p1"))
    other = FeatureStore.open(store.uri)
    before_commit(store, lambda: push(other, {"clinical": case("p2")["clinical"]}))
    if refused:
        with pytest.raises(Conflict, match="clinical"):
            push(store, case("p1", age=70.0), unless_changed=guard, since=1)
        assert store.snapshot().table("clinical", ["age"], {"patient_id": "p1"})["age"].to_pylist() == [50.0]
        receipt = push(store, case("p1", age=70.0), unless_changed=guard)  # as seen now
        assert receipt.sequence == 3
    else:
        assert push(store, case("p1", age=70.0), unless_changed=guard, since=1).sequence == 3


def test_a_lost_answer_is_not_a_second_push(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    append = DeltaLog.append_numbered

    def append_and_lose(self: DeltaLog, *args: Any) -> None:
        append(self, *args)
        raise StoreError("The answer got lost.")

    monkeypatch.setattr(DeltaLog, "append_numbered", append_and_lose)
    assert push(store, case("p1")).sequence == 1
    assert push(store, case("p2")).sequence == 2
    assert store.snapshot().pushes["sequence"].to_pylist() == [1, 2]


def test_looking_back(store: FeatureStore) -> None:
    for i in range(4):
        push(store, case(f"p{i}"))
    times = store.snapshot().pushes["committed_at"].to_pylist()
    assert times == sorted(set(times))
    assert [store.snapshot(t).sequence for t in times] == [1, 2, 3, 4]
    assert store.snapshot(times[0] - timedelta(microseconds=1)).sequence == 0
    assert store.snapshot(datetime.now(UTC) + timedelta(days=1)).sequence == 4
    assert len(store.snapshot(as_of=0).table("cases")) == 0
    newest = store.snapshot()
    push(store, case("p9"))
    assert len(newest.table("cases")) == 4  # opened after the push, and yet without it
    assert sorted(newest.at(2).table("cases")["patient_id"].to_pylist()) == ["p0", "p1"]
    with pytest.raises(UsageError):
        store.snapshot(as_of=6)
    with pytest.raises(UsageError, match="time zone"):
        store.snapshot(datetime(2026, 1, 1))


def test_filters_never_bring_up_an_older_revision(store: FeatureStore) -> None:
    push(store, case("p1", sex="female"))
    push(store, case("p1", sex="male"))
    snapshot = store.snapshot()
    assert len(snapshot.table("clinical", where={"sex": "female"})) == 0
    assert snapshot.table("clinical", ["age"], {"sex": ["male"], "site": "a"})["age"].to_pylist() == [50.0]
    assert snapshot.table("clinical", ["age"], {"site": "b"}).num_rows == 0
    assert snapshot.table("clinical", ["age"], {"sex": None, "patient_id": "p1"}).num_rows == 0
    assert snapshot.table("clinical", ["age"], {"bmi": None}).num_rows == 1
    assert snapshot.table("clinical", ["age"], {"sex": [None, "male"]}).num_rows == 1
    assert snapshot.table("clinical", ["age"], {"sex": []}).num_rows == 0
    assert snapshot.table("clinical", ["age"], {"patient_id": []}).num_rows == 0
    with pytest.raises(UsageError, match="key columns"):
        snapshot.heads("clinical", {"sex": "female"})
    with pytest.raises(UsageError, match="no column"):
        snapshot.table("clinical", ["weight"])


def test_values_are_read_for_the_rows_that_won(store: FeatureStore) -> None:
    push(store, {"feature_sets": [feature_set()], "radiomics": [radiomics(f"p{i}", [i, 0.0, 0.0]) for i in range(40)]})
    push(store, {"radiomics": [radiomics(f"p{i}", [i, 1.0, 0.0]) for i in range(0, 40, 3)]})
    push(store, {"radiomics": [radiomics("p4", None)]})
    found = store.snapshot().table("radiomics", ["patient_id", "values"]).to_pylist()
    expected = {f"p{i}": [float(i), float(i % 3 == 0), 0.0] for i in range(40)} | {"p4": None}
    assert {row["patient_id"]: row["values"] for row in found} == expected
    assert len(found) == 40


def test_only_files_that_can_match_are_opened(folder_store: FeatureStore) -> None:
    for site in ("a", "b"):
        for i in range(10):
            push(folder_store, case(f"p{i}", site))
    files = folder_store.snapshot().files("clinical")
    assert files is not None

    def opened(where: dict[str, Any]) -> int:
        return len(list(files.dataset(where).get_fragments()))

    assert len(files) == 20
    assert opened({}) == 20
    assert opened({"site": "a"}) == 10
    assert opened({"site": "a", "patient_id": ["p3", "p7", "p99"]}) == 2
    assert opened({"site": "c"}) == 0
    assert opened({"patient_id": None}) == 20  # nothing is known of nulls: nothing is left out


def test_sites_with_any_name_keep_their_rows(store: FeatureStore) -> None:
    names = ["a/b", "São Paulo 100%", "a=b", "..", "x" * 100, "日本", "a'b"]
    for name in names:
        push(store, case("p1", name))
    snapshot = FeatureStore.open(store.uri).snapshot()
    assert sorted(snapshot.table("cases")["site"].to_pylist()) == sorted(names)
    for name in names:
        assert snapshot.table("rois", where={"site": name}).num_rows == 2
        assert push(store, case("p1", name)).sequence is None
    assert ask(snapshot, "select count(distinct site) n from rois")["n"].to_pylist() == [len(names)]


def test_many_pushes_stay_few_files_and_keep_their_order(folder_store: FeatureStore) -> None:
    for i in range(105):
        push(folder_store, {"feature_sets": [feature_set(f"set-{i:08x}")]})
    fresh = FeatureStore.open(folder_store.uri)
    assert fresh.snapshot().pushes["sequence"].to_pylist() == list(range(1, 106))
    files = fresh.snapshot().files("pushes")
    assert files is not None
    assert len(files) <= 10
    log = Path(folder_store.uri) / "tables" / "pushes" / "_delta_log"
    assert list(log.glob("*.checkpoint.parquet"))
    assert push(fresh, {"feature_sets": [feature_set("set-x")]}).sequence == 106


def test_a_gap_in_the_sequence_is_noticed(store: FeatureStore) -> None:
    push(store, case("p1"))
    row = store.snapshot().pushes.to_pylist()[0] | {"sequence": 3, "push_id": "x"}
    store._logs["pushes"].append(pa.Table.from_pylist([row], schema=TABLES["pushes"].arrow()))
    with pytest.raises(StoreError, match="gap"):
        FeatureStore.open(store.uri).snapshot()


def test_a_column_declared_later_is_null_in_old_rows(store: FeatureStore) -> None:
    push(store, case("p1"))
    grown = TableSchema(
        CLINICAL.name, CLINICAL.note, CLINICAL.key,
        (*CLINICAL.columns, Column("smoker", pa.bool_(), "declared later", nullable=True)),
    )  # fmt: skip
    log = DeltaLog(Location.parse(store.uri), grown)
    files = log.files()
    assert files is not None
    assert files.dataset().to_table(columns=["patient_id", "smoker"])["smoker"].to_pylist() == [None]
    old = store._logs["clinical"].files()
    assert old is not None
    row = old.dataset().to_table().to_pylist()[0] | {"patient_id": "p2", "smoker": True}
    log.append(pa.Table.from_pylist([row], schema=grown.arrow()))
    newer = log.files()
    assert newer is not None
    both = newer.dataset().to_table(columns=["patient_id", "smoker"]).sort_by("patient_id")
    assert both["smoker"].to_pylist() == [None, True]
    assert len(FeatureStore.open(store.uri).snapshot().table("clinical")) == 2  # older software reads on


def test_snapshots_share_nothing_that_moves(store: FeatureStore) -> None:
    push(store, case("p1"))
    snapshot = store.snapshot()
    before = snapshot.table("cases")
    for i in range(5):
        push(store, case(f"q{i}"))
    store._logs["cases"].tidy(0)
    assert snapshot.table("cases").equals(before)
    assert isinstance(snapshot, Snapshot)
    assert len(store.snapshot().table("cases")) == 6


def test_threads_may_share_a_store(store: FeatureStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda i: push(store, case(f"p{i}")), range(12)))
    assert sorted(receipt.sequence for receipt in receipts) == list(range(1, 13))
    assert len(store.snapshot().table("rois")) == 24


def test_rows_written_twice_under_one_push_are_seen_once(store: FeatureStore) -> None:
    push(store, case("p1"))
    log = store._logs["clinical"]
    files = log.files()
    assert files is not None
    log.append(files.dataset().to_table())
    assert len(FeatureStore.open(store.uri).snapshot().table("clinical")) == 1
    assert len(FeatureStore.open(store.uri).snapshot().revisions("clinical")) == 1
