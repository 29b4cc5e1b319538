"""Real processes: many writers, readers meanwhile, and writers that are killed."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from tests.feature_store.examples import case

pytestmark = [pytest.mark.cores, pytest.mark.slow]

SPAWN = mp.get_context("spawn")
TABLES = ("cases", "series", "rois", "clinical")


def write_cases(uri: str, site: str, patients: list[str], age: float, acknowledged: Path, go: Any) -> None:
    store = FeatureStore.open(uri, create=True)
    if go is not None:
        go.wait()
    for patient in patients:
        receipt = store.push(case(patient, site, age=age), kind="case", source=site)
        with acknowledged.open("a") as file:
            file.write(json.dumps([site, patient, receipt.sequence]) + "\n")
            file.flush()


def stop_before_commit(uri: str, ready: Path) -> None:
    store = FeatureStore.open(uri)

    def wait(*_: object) -> int:
        ready.touch()
        time.sleep(600)
        return 0

    store._push_log.commit = wait  # type: ignore[method-assign]
    store.push(case("doomed"), kind="case", source="a")


def check_whole(snapshot: Snapshot) -> int:
    """Every visible push has all the rows it says it wrote; every key is there once."""
    written: dict[tuple[str, str], int] = {}
    sequences = snapshot.pushes["sequence"].to_pylist()
    assert sequences == list(range(1, len(sequences) + 1))
    for row in snapshot.pushes.to_pylist():
        for name, count in json.loads(row["tables"]).items():
            written[row["push_id"], name] = count
    for name in TABLES:
        files = snapshot.files(name)
        if files is None:
            continue
        for push_id in files.dataset().to_table(columns=["push_id"])["push_id"].to_pylist():
            if (push_id, name) in written:
                written[push_id, name] -= 1
        heads = snapshot.heads(name)
        assert heads is not None
        keys = heads.keys.drop_columns(["push_id", "push_sequence"]).to_pylist()
        assert len({tuple(key.values()) for key in keys}) == len(keys)
    assert not any(written.values())
    patients = {name: set(snapshot.table(name, ["patient_id"])["patient_id"].to_pylist()) for name in TABLES}
    assert all(found == patients["cases"] for found in patients.values())
    return len(sequences)


def start(target: Any, *args: Any) -> Any:
    process = SPAWN.Process(target=target, args=args)
    process.start()
    return process


def acknowledgements(*files: Path) -> list[tuple[str, str, int | None]]:
    lines = [line for file in files if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]
    return [tuple(json.loads(line)) for line in lines]


def test_many_writers_lose_nothing_and_readers_see_whole_pushes(place: str, step: int, tmp_path: Path) -> None:
    uri = place  # made by the writers, all at once
    go = SPAWN.Event()
    each = 8 if step == 1 else 4  # fewer where all is slower
    shared = [f"s{i}" for i in range(each)]
    writers = []
    for w in range(4):  # two of the same site push the same patients with other values
        site, own = ("a", []) if w < 2 else ("b", [f"w{w}-{i}" for i in range(each)])
        patients = [*shared, *own] if w < 2 else own
        writers.append(start(write_cases, uri, site, patients, 40.0 + w, tmp_path / f"ack{w}", go))
    FeatureStore.open(uri, create=True)
    go.set()
    reader, seen = FeatureStore.open(uri), [0]
    while any(writer.is_alive() for writer in writers):
        seen.append(check_whole(reader.snapshot()))
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert seen == sorted(seen)
    assert check_whole(FeatureStore.open(uri).snapshot()) == 4 * each
    acks = acknowledgements(*(tmp_path / f"ack{w}" for w in range(4)))
    assert sorted(sequence for *_, sequence in acks if sequence) == list(range(1, 4 * each + 1))
    rows = reader.snapshot().table("clinical", ["site", "patient_id", "age"]).to_pylist()
    assert len(rows) == 3 * each
    last = {(site, patient): sequence for site, patient, sequence in sorted(acks, key=lambda ack: ack[2] or 0)}
    history = reader.snapshot().revisions("clinical", where={"site": "a"}).to_pylist()
    for patient in shared:
        mine = [row for row in history if row["patient_id"] == patient]
        assert {row["age"] for row in mine} == {40.0, 41.0}  # no update got lost
        assert max(row["push_sequence"] for row in mine) == last["a", patient]


def test_a_writer_killed_before_its_commit_leaves_nothing_visible(store: FeatureStore, tmp_path: Path) -> None:
    store.push(case("p1"), kind="case", source="a")
    process = start(stop_before_commit, store.uri, tmp_path / "ready")
    while not (tmp_path / "ready").exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    fresh = FeatureStore.open(store.uri)
    files = fresh.snapshot().files("cases")
    assert files is not None
    assert "doomed" in files.dataset().to_table()["patient_id"].to_pylist()  # the row is on disk
    assert check_whole(fresh.snapshot()) == 1
    assert fresh.snapshot().table("cases")["patient_id"].to_pylist() == ["p1"]
    assert fresh.push(case("doomed"), kind="case", source="a").sequence == 2
    assert check_whole(fresh.snapshot()) == 2


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_instants(store: FeatureStore, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    ack = tmp_path / "ack"
    names = [f"p{i}" for i in range(400)]
    for age in (41.0, 42.0, 43.0):
        before = len(acknowledgements(ack))
        process = start(write_cases, store.uri, "a", names, age, ack, None)
        while len(acknowledgements(ack)) < before + 5:
            assert process.is_alive()
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        check_whole(FeatureStore.open(store.uri).snapshot())
    acks = [sequence for *_, sequence in acknowledgements(ack)]
    assert None not in acks
    snapshot = FeatureStore.open(store.uri).snapshot()
    # what was acknowledged is there, and at most one push a kill went through without its acknowledgement
    assert set(acks) <= set(range(1, snapshot.sequence + 1))
    assert len(acks) <= snapshot.sequence <= len(acks) + 3
