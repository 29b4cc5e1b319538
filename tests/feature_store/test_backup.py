"""A backup is the store again, push by push, and comes back as it was."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from feature_store.backup import backup
from feature_store.delta import DeltaLog
from feature_store.errors import Conflict
from feature_store.store import FeatureStore
from tests.feature_store.examples import case
from tests.feature_store.test_optimize import everything, filled

pytestmark = pytest.mark.slow


@pytest.fixture
def target(tmp_path: Path) -> FeatureStore:
    return FeatureStore.open(tmp_path / "backup", create=True)


def test_a_backup_is_the_store_again(store: FeatureStore, target: FeatureStore, step: int) -> None:
    blob = filled(store).blobs.put_bytes("artefacts", b"weights")
    report = backup(store, target)
    assert (report.pushes, report.blobs, report.sequence) == (25, 1, 25)
    assert everything(target, step) == everything(store, step)
    assert target.snapshot().pushes.equals(store.snapshot().pushes)
    assert target.blobs.read_bytes("artefacts", blob) == b"weights"
    assert not [promise for promise in target.check() if promise.broken and "kept among" not in promise.promise]
    again = backup(store, target)
    assert (again.pushes, again.rows, again.blobs) == (0, 0, 0)
    store.push(case("p9"), kind="case", source="a")
    assert (backup(store, target).pushes, backup(store, target).rows) == (1, 0)
    assert everything(target, step) == everything(store, step)


def test_a_restored_store_goes_on(store: FeatureStore, target: FeatureStore, place: str, step: int) -> None:
    backup(filled(store), target)
    restored = FeatureStore.open(f"{place}-{uuid.uuid4().hex}", create=True)
    backup(target, restored)
    assert everything(restored, step) == everything(store, step)
    assert restored.push(case("p9"), kind="case", source="a").sequence == 26


def test_a_killed_backup_is_finished_by_the_next(
    store: FeatureStore, target: FeatureStore, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    filled(store)
    append, left = DeltaLog.append, [3]

    def dies(self: DeltaLog, rows: Any) -> None:
        append(self, rows)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(DeltaLog, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            backup(store, target)
    assert target.snapshot().sequence == 0
    assert target.snapshot().table("cases").num_rows == 0
    backup(store, target)
    assert everything(target, step) == everything(store, step)
    for name, rows in (("cases", 6), ("clinical", 12)):  # nothing of the first attempt is left beside it
        files = target.snapshot().files(name)
        assert files is not None
        assert len(files.dataset().to_table(columns=["push_id"])) == rows


def test_another_stores_backup_is_not_written_over(store: FeatureStore, target: FeatureStore) -> None:
    filled(store)
    target.push(case("p1"), kind="case", source="a")
    with pytest.raises(Conflict):
        backup(store, target)
    assert target.snapshot().sequence == 1
