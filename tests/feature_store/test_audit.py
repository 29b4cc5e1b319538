"""The audit log on SQLite and PostgreSQL: chained, and tampered with in every way (many processes: test_control)."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from feature_store.audit import COVERED, Act, AuditLog, Head
from feature_store.control import ControlDatabase, Credential, default_url
from feature_store.control_tables import AuditRow
from feature_store.errors import AuditBroken, UsageError
from feature_store.migrations.versions import v0002_audit_log

BY = Credential("pacs-a", "site", "a")
PATIENT = "pseudonym-4711"


@pytest.fixture
def log(url: str) -> AuditLog:
    return AuditLog(ControlDatabase.open(url))


def test_what_was_done_is_listed(log: AuditLog) -> None:
    assert log.verify() == Head(0, "0" * 64)
    log.record(BY, Act("push", "a", PATIENT, "c1"), Act("push", "a", "p2", "c2", outcome="ManifestError"))
    head = log.record(Credential("app", "application", None), Act("score", "b", "p1", details={"kind": "rad"}))
    assert log.verify() == head
    assert head.number == 3
    rows = log.entries()
    assert [(row.name, row.role, row.of_site, row.action, row.outcome) for row in rows] == [
        ("pacs-a", "site", "a", "push", "ok"),
        ("pacs-a", "site", "a", "push", "ManifestError"),
        ("app", "application", None, "score", "ok"),
    ]
    assert rows[2].details == {"kind": "rad"}
    assert [row.number for row in log.entries(site="a")] == [1, 2]
    assert [row.number for row in log.entries(site="a", newest=1)] == [2]
    assert [row.case_id for row in log.entries(site="a", patient_id=PATIENT)] == ["c1"]


def test_what_the_chain_covers_is_what_the_database_refuses_to_change() -> None:
    may_be_forgotten = {"patient_id", "case_id", "salt"}
    assert {*COVERED, "hash"} == {column.name for column in AuditRow.__table__.columns} - may_be_forgotten
    assert set(v0002_audit_log.FIXED) == {*COVERED, "hash"}


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE audit_log SET outcome = 'ok' WHERE number = 2", 2),
        ("UPDATE audit_log SET name = 'other' WHERE number = 3", 3),
        ("UPDATE audit_log SET patient_id = 'other' WHERE number = 3", 3),
        ("UPDATE audit_log SET patient_id = NULL, case_id = NULL, salt = NULL WHERE number = 3", 3),
        ("DELETE FROM audit_log WHERE number = 3", 3),
        ("DELETE FROM audit_log WHERE number = 1", 1),
        ("DELETE FROM audit_log WHERE number > 3", 4),
        ("UPDATE audit_log SET number = number + 10 WHERE number = 4", 4),
    ],
)
def test_a_row_that_was_changed_or_removed_is_found(log: AuditLog, url: str, statement: str, row: int) -> None:
    for number in range(4):
        head = log.record(BY, Act("push", "a", f"p{number}", outcome="ok" if number != 1 else "Conflict"))
    engine = create_engine(url)
    if "salt = NULL" not in statement:  # the database itself refuses all but to forget
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(text(statement))
        assert log.verify(head) == head
    with engine.begin() as connection:  # somebody with more rights
        if engine.dialect.name == "postgresql":
            connection.execute(text("ALTER TABLE audit_log DISABLE TRIGGER ALL"))
        else:
            connection.execute(text("DROP TRIGGER audit_log_no_update"))
            connection.execute(text("DROP TRIGGER audit_log_no_delete"))
        connection.execute(text(statement))
    engine.dispose()
    with pytest.raises(AuditBroken, match=f"^Row {row} "):
        log.verify(head)


def test_an_erased_patient_is_forgotten_and_the_chain_holds(log: AuditLog, url: str, tmp_path: Path) -> None:
    log.record(
        BY, Act("push", "a", PATIENT, "case-4711"), Act("read", "a", None, "case-4711"), Act("read", "b", PATIENT)
    )
    kept = log.record(BY, Act("push", "a", "p2"))
    count, head = log.forget(Credential("alice", "operator", None), "a", PATIENT, ["case-4711"], erasure="e1")
    assert (count, head.number) == (2, 5)
    assert log.verify(kept) == head
    rows = log.entries()
    assert [row.forgotten for row in rows] == [True, True, False, False, False]
    assert [row.patient_id for row in rows] == [None, None, PATIENT, "p2", None]  # at b it is somebody else
    assert rows[4].details == {"erasure": "e1", "forgotten_rows": [1, 2]}
    assert log.forget(BY, "a", PATIENT) == (0, head)
    with pytest.raises(UsageError):
        Head.parse("5")
    assert Head.parse(str(head)) == head


def test_a_killed_append_leaves_nothing(tmp_path: Path) -> None:
    url = default_url(str(tmp_path / "store"))
    log = AuditLog(ControlDatabase.open(url))
    log.record(BY, Act("push", "a", "p1"))
    broken: Any = Act("push", "a", "p3", details={"no": {1, 2}})  # cannot be written down
    with pytest.raises(TypeError):
        log.record(BY, Act("push", "a", "p2"), broken)
    assert [row.patient_id for row in log.entries()] == ["p1"]
    other = sqlite3.connect(tmp_path / "store/control.sqlite", timeout=0)
    other.execute("BEGIN IMMEDIATE").close()  # the lock was given back
    other.close()
