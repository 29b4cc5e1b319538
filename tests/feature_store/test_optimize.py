"""Care of the files changes nothing that anybody can read, and takes away what nobody can."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_store.control import ControlDatabase, default_url
from feature_store.errors import LeaseLost, StoreError
from feature_store.leases import Leases
from feature_store.optimize import OptimizeSettings
from feature_store.optimize_alone import LEASE, optimize_alone
from feature_store.store import FeatureStore
from tests.feature_store.examples import case, feature_set, radiomics
from tests.feature_store.test_processes import acknowledgements, check_whole, start, stop_before_commit, write_cases

pytestmark = pytest.mark.slow

AT_ONCE = OptimizeSettings(dead_after_hours=0, files_too_many=1, keep_files_hours=0)
READ = ("cases", "series", "rois", "clinical", "feature_sets", "radiomics")


def everything(store: FeatureStore, step: int) -> list[dict[str, list[dict[str, object]]]]:
    """Every table now and as of every ``step``-th push before, in key order."""
    newest = store.snapshot()
    views = [newest.at(n) for n in range(newest.sequence, 0, -step)]
    return [{name: sorted(view.table(name).to_pylist(), key=repr) for name in READ} for view in views]


def filled(store: FeatureStore) -> FeatureStore:
    store.push({"feature_sets": [feature_set()]}, kind="feature_set", source="extraction")
    for age in (40.0, 50.0):
        for patient in ("p3", "p1", "p2"):
            for site in ("a", "b"):
                store.push(case(patient, site, age=age), kind="case", source=site)
                rows = [radiomics(patient, [age, 1.0, 2.0], site=site)]
                store.push({"radiomics": rows}, kind="features", source="extraction")
    return store


def test_nothing_that_can_be_read_changes_and_files_become_few(store: FeatureStore, step: int) -> None:
    before = everything(filled(store), step)
    history = sorted(store.snapshot().revisions("clinical").to_pylist(), key=repr)
    done = {table.table: table for table in store.optimize(AT_ONCE)}
    assert done["clinical"].files_before == 12
    assert done["clinical"].files == 2  # one a site
    assert done["radiomics"].files == 2
    for reader in (store, FeatureStore.open(store.uri)):
        assert everything(reader, step) == before
        assert sorted(reader.snapshot().revisions("clinical").to_pylist(), key=repr) == history
    again = {table.table: table for table in store.optimize(AT_ONCE)}
    assert again["clinical"].files == 2
    assert sum(table.dead_rows for table in again.values()) == 0


def test_files_are_sorted_by_patient(folder_store: FeatureStore) -> None:
    filled(folder_store).optimize(AT_ONCE)
    files = sorted((Path(folder_store.uri) / "tables" / "radiomics").glob("site=*/*.parquet"))
    assert len(files) == 2  # the replaced ones are deleted
    for file in files:
        patients = pq.ParquetFile(file).read(columns=["patient_id"])["patient_id"].to_pylist()
        assert len(patients) == 6
        assert patients == sorted(patients)


def test_rows_and_files_of_a_killed_push_go(tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path / "store", create=True)
    store.push(case("p1"), kind="case", source="a")
    process = start(stop_before_commit, store.uri, tmp_path / "ready")
    while not (tmp_path / "ready").exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    half = Path(store.uri) / "blobs" / "images" / "aa" / ".left.part"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half an image")
    patient = OptimizeSettings(files_too_many=1)  # a day has not passed: nothing is dead yet
    assert sum(table.dead_rows for table in store.optimize(patient)) == 0
    assert half.exists()
    done = {table.table: table.dead_rows for table in store.optimize(AT_ONCE)}
    assert {name: count for name, count in done.items() if count} == {"cases": 1, "series": 2, "rois": 2, "clinical": 1}
    assert not half.exists()
    files = store.snapshot().files("cases")
    assert files is not None
    assert files.dataset().to_table()["patient_id"].to_pylist() == ["p1"]
    assert b"doomed" not in b"".join(
        p.read_bytes() for p in (tmp_path / "store" / "tables" / "cases").glob("site=*/*.parquet")
    )
    assert store.snapshot().pushes["given_up"].to_pylist()[-1] is not None


def test_a_writer_that_was_only_asleep_learns_that_it_was_given_up(store: FeatureStore) -> None:
    sleeper = FeatureStore.open(store.uri)
    commit = sleeper._push_log.commit

    def sleep_first(*args: object) -> int:
        store.optimize(AT_ONCE)  # what it has written is taken for dead, and goes
        return commit(*args)  # type: ignore[arg-type]

    sleeper._push_log.commit = sleep_first  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreError, match="given up"):
        sleeper.push(case("late"), kind="case", source="a")
    check_whole(store.snapshot())
    assert store.snapshot().table("cases").num_rows == 0
    assert FeatureStore.open(store.uri).push(case("late"), kind="case", source="a").sequence is not None
    assert store.snapshot().table("cases")["patient_id"].to_pylist() == ["late"]


def optimise_and_hang(uri: str, url: str, ready: Path) -> None:
    """Optimises the first tables and is then busy until it is killed."""

    def hang(table: str, _: float) -> None:
        if table == "clinical":
            ready.touch()
            time.sleep(600)

    optimize_alone(FeatureStore.open(uri), ControlDatabase.open(url), AT_ONCE, hang, lease_s=1.0)


@pytest.mark.cores
def test_one_optimises_at_a_time_and_the_next_goes_on_after_a_kill(place: str, tmp_path: Path) -> None:
    store, url = FeatureStore.open(place, create=True), default_url(str(tmp_path / "control"))
    control = ControlDatabase.open(url)
    for age in (40.0, 41.0, 42.0, 43.0):
        store.push(case("p1", age=age), kind="case", source="a")
    before = everything(store, 2)
    first = start(optimise_and_hang, place, url, tmp_path / "ready")
    while not (tmp_path / "ready").exists():
        assert first.is_alive()
        time.sleep(0.01)
    assert optimize_alone(store, control, AT_ONCE) is None
    assert f"process {first.pid} on" in str(Leases(control).holder(LEASE))
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    while (done := optimize_alone(store, control, AT_ONCE)) is None:
        time.sleep(0.02)  # until the dead one's lease has run out
    assert [(table.files_before, table.files) for table in done if table.table == "clinical"] == [(4, 1)]
    assert Leases(control).holder(LEASE) is None
    assert everything(FeatureStore.open(place), 2) == before
    for name in ("cases", "clinical"):  # and no row stands in the files twice
        rows = store.snapshot().files(name).dataset().to_table(columns=["push_id", "row_hash"])  # type: ignore[union-attr]
        assert len(rows.group_by(["push_id", "row_hash"]).aggregate([])) == len(rows)


def test_who_lost_the_lease_rewrites_nothing_more(folder_store: FeatureStore, tmp_path: Path) -> None:
    control = ControlDatabase.open(default_url(str(tmp_path / "control")))
    leases, touched = Leases(control), []

    def asleep(table: str, _: float) -> None:
        touched.append(table)
        if table == "clinical":
            leases.release(LEASE, str(leases.holder(LEASE)))
            assert leases.take(LEASE, "another", 60)

    with pytest.raises(LeaseLost):
        optimize_alone(filled(folder_store), control, AT_ONCE, asleep)
    assert touched[-1] == "clinical"
    assert len(folder_store.snapshot().files("clinical") or ()) == 12
    assert leases.holder(LEASE) == "another"


def test_writers_go_on_while_files_are_rewritten(place: str, step: int, tmp_path: Path) -> None:
    uri = place
    store = FeatureStore.open(uri, create=True)
    names = [f"p{i}" for i in range(25 if step == 1 else 10)]  # fewer where all is slower
    writers = [start(write_cases, uri, site, names, 44.0, tmp_path / f"ack-{site}", None) for site in ("a", "b")]
    rounds = 0
    while any(writer.is_alive() for writer in writers):
        store.optimize(OptimizeSettings(files_too_many=1, dead_after_hours=1, keep_files_hours=1))
        check_whole(FeatureStore.open(uri).snapshot())
        rounds += 1
    assert rounds > 1
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert check_whole(FeatureStore.open(uri).snapshot()) == 2 * len(names)
    assert len(acknowledgements(tmp_path / "ack-a", tmp_path / "ack-b")) == 2 * len(names)
    assert store.snapshot().table("cases").num_rows == 2 * len(names)
