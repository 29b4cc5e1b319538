from __future__ import annotations

import multiprocessing as mp
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from feature_store.audit import Act, AuditLog
from feature_store.control import ControlDatabase, Credential, default_url
from feature_store.errors import Conflict, StoreError, UsageError
from feature_store.leases import Leases
from feature_store.store import FeatureStore

SPAWN = mp.get_context("spawn")


@pytest.fixture
def control(url: str) -> ControlDatabase:
    return ControlDatabase.open(url)


def test_case_states(control: ControlDatabase, url: str) -> None:
    assert control.case("c1") is None
    control.set_case_state("a", "p1", "c1", "received")
    control.set_case_state("a", "p1", "c1", "rejected", ["GridMismatch: t2.nii: …"])
    control.set_case_state("b", "p1", "c2", "validated", [])
    found = ControlDatabase.open(url).case("c1")
    assert found is not None
    assert (found.site, found.patient_id, found.state, found.reasons) == (
        "a",
        "p1",
        "rejected",
        ("GridMismatch: t2.nii: …",),
    )
    assert control.case("c1", site="b") is None
    assert [state.case_id for state in control.cases()] == ["c1", "c2"]
    assert [state.case_id for state in control.cases("b")] == ["c2"]
    assert [state.case_id for state in control.cases_after("", 1)] == ["c1"]
    assert [state.case_id for state in control.cases_after("c1", 9)] == ["c2"]
    assert control.cases_after("c1", 9, "a") == []
    with pytest.raises(UsageError):
        control.set_case_state("a", "p1", "c1", "lost")


def test_credentials(control: ControlDatabase, url: str, tmp_path: Path) -> None:
    key = control.add_credential("site-a", "site", "a")
    other = control.add_credential("scientist", "scientist")
    assert key != other
    found = ControlDatabase.open(url).who(key)
    assert found is not None
    assert (found.name, found.role, found.site) == ("site-a", "site", "a")
    assert control.who("asdeg_guess") is None
    assert control.who("") is None
    with pytest.raises(Conflict):
        control.add_credential("site-a", "site", "b")
    with pytest.raises(UsageError):
        control.add_credential("x", "site")
    with pytest.raises(UsageError):
        control.add_credential("x", "root")
    assert [c.name for c in control.credentials()] == ["scientist", "site-a"]
    if url.startswith("sqlite"):
        control.close()
        stored = b"".join(p.read_bytes() for p in (tmp_path / "store").glob("control.sqlite*"))
        assert b"site-a" in stored
        assert key.encode() not in stored
    assert control.remove_credential("site-a")
    assert not control.remove_credential("site-a")
    assert control.who(key) is None


def score(name: str) -> dict[str, Any]:
    return {
        "site": "a", "patient_id": "p1", "case_id": "c1", "score_id": name, "kind": "rad", "signature": "dd",
        "probability": 0.25, "high_risk": False, "threshold": 0.5, "moved_by": "[]", "asked_by": "app",
        "asked_at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "as_of": 3,
    }  # fmt: skip


def test_score_log_survives_until_it_is_in_the_store(
    control: ControlDatabase, url: str, folder_store: FeatureStore
) -> None:
    store = folder_store
    for name in ("s1", "s2", "s3", "s1"):
        control.log_score(score(name))
    waiting = ControlDatabase.open(url).unflushed_scores(2)
    assert waiting == [score("s1"), score("s2")]
    assert store.push({"scores": waiting}, kind="scores", source="scoring").rejected == []
    # killed before it could be marked: the same rows again are nothing new
    assert store.push({"scores": control.unflushed_scores(2)}, kind="scores", source="scoring").sequence is None
    control.mark_flushed(["s1", "s2"])
    assert control.unflushed_scores() == [score("s3")]
    assert sorted(store.snapshot().table("scores")["score_id"].to_pylist()) == ["s1", "s2"]


def hammer(url: str, worker: int, go: Any, won: Any) -> None:
    go.wait()
    control = ControlDatabase.open(url)
    if Leases(control).take("job", f"w{worker}", 600):
        won.put(worker)
    for i in range(40):
        control.set_case_state("a", f"p{i}", f"c{i}", "received", [f"w{worker}"])
        control.log_score(score(f"{worker}-{i}"))
        AuditLog(control).record(Credential(f"w{worker}", "site", "a"), Act("push", "a", f"p{i}"))


def test_many_processes(url: str) -> None:
    """They open a database that is empty, all at once."""
    go, won = SPAWN.Event(), SPAWN.Queue()
    workers = [SPAWN.Process(target=hammer, args=(url, i, go, won)) for i in range(3)]
    for worker in workers:
        worker.start()
    go.set()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 3
    control = ControlDatabase.open(url)
    assert len(control.cases()) == 40
    assert len(control.unflushed_scores()) == 120
    won.get(timeout=5)
    assert won.empty()
    log = AuditLog(control)
    assert log.verify().number == 120
    for worker in range(3):  # each one's own in the order it wrote them, none twice
        assert [row.patient_id for row in log.entries() if row.name == f"w{worker}"] == [f"p{i}" for i in range(40)]


def test_what_goes_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        default_url("s3://bucket/store")
    with pytest.raises(UsageError):
        ControlDatabase.open("nonsense")
    (tmp_path / "file.sqlite").write_text("this is no database at all, " * 100)
    with pytest.raises(StoreError):
        ControlDatabase.open(f"sqlite:///{tmp_path}/file.sqlite")
