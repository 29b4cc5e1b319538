"""Several machines on one object store, as far apart as processes can be, and a backup made while they write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from feature_store.backup import backup
from feature_store.store import FeatureStore
from tests.feature_store.test_processes import check_whole
from tests.object_storage import empty_place

pytestmark = [pytest.mark.cores, pytest.mark.slow]

PATIENTS = ("s0", "s1", "s2")
MACHINE = """
import sys
from feature_store.store import FeatureStore
from tests.feature_store.examples import case

uri, age = sys.argv[1], float(sys.argv[2])
store = FeatureStore.open(uri, create=True)
for turn in range(2):
    for patient in sys.argv[3:]:
        print(patient, store.push(case(patient, "a", age=age + turn), kind="case", source="a").sequence, flush=True)
"""


def machine(uri: str, home: Path, zone: str, age: float) -> subprocess.Popen[str]:
    """A process that shares nothing but the object store: its own folders, time zone and environment."""
    home.mkdir()
    environment = {name: text for name, text in os.environ.items() if name.startswith("AWS_") or name == "PATH"}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "TZ": zone, "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", MACHINE, uri, str(age), *PATIENTS]
    return subprocess.Popen(command, env=environment, cwd=home, stdout=subprocess.PIPE, text=True)


def test_two_machines_push_the_same_patients_while_a_third_backs_up(endpoint: str, tmp_path: Path) -> None:
    uri = empty_place(endpoint)
    machines = [machine(uri, tmp_path / zone, zone, age) for zone, age in (("UTC-14", 30.0), ("UTC+12", 60.0))]
    store = FeatureStore.open(uri, create=True)
    target = FeatureStore.open(tmp_path / "backup", create=True)
    copied = []
    while any(one.poll() is None for one in machines):
        copied.append(backup(store, target).sequence)
        check_whole(target.snapshot())
        check_whole(store.snapshot())
    lines = [line.split() for one in machines for line in one.communicate()[0].splitlines()]
    assert [one.returncode for one in machines] == [0, 0]
    numbers = sorted(int(number) for _, number in lines)
    assert numbers == list(range(1, 4 * len(PATIENTS) + 1))  # each push once, in one order for all
    assert copied == sorted(copied)
    history = store.snapshot().revisions("clinical").to_pylist()
    for patient in PATIENTS:
        mine = [row for row in history if row["patient_id"] == patient]
        assert sorted(row["age"] for row in mine) == [30.0, 31.0, 60.0, 61.0]  # no update got lost
        times = [row["committed_at"] for row in sorted(mine, key=lambda row: row["push_sequence"])]
        assert times == sorted(times)
    backup(store, target)
    assert target.snapshot().pushes.equals(store.snapshot().pushes)
    assert check_whole(target.snapshot()) == len(numbers)
    assert not [p for p in target.check() if p.broken and "kept among" not in p.promise]
