"""Migrations of the control database: from nothing, and from before them (several processes at once: test_control)."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from feature_store.control import ControlDatabase
from feature_store.control_tables import Base
from feature_store.errors import StoreError
from feature_store.leases import Leases
from feature_store.migrations import newest
from tests.feature_store.test_control import score


def test_the_steps_make_what_the_code_declares(url: str) -> None:
    ControlDatabase.open(url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == newest()
    engine.dispose()


@pytest.mark.parametrize("lost", ["", "leases"])
def test_a_database_of_the_time_before_them_keeps_its_rows(url: str, lost: str) -> None:
    ControlDatabase.open(url).close()
    engine = create_engine(url)
    old = ("case_states", "leases", "credentials", "score_log")
    with engine.begin() as connection:  # as the first versions made it, or were killed while making it
        for table in set(inspect(connection).get_table_names()) - set(old):
            connection.execute(text(f"DROP TABLE {table}"))
        if lost:
            connection.execute(text(f"DROP TABLE {lost}"))
        if connection.dialect.name == "postgresql":
            connection.execute(text("DROP FUNCTION audit_log_is_append_only"))
        connection.execute(text("INSERT INTO case_states VALUES ('a', 'c1', 'p1', 'received', '[]', 1.0)"))
    engine.dispose()
    control = ControlDatabase.open(url)
    assert [case.case_id for case in control.cases()] == ["c1"]
    control.log_score(score("s1"))
    assert Leases(control).take("retrain", "me", 60)
    again = ControlDatabase.open(url)
    assert again.unflushed_scores() == [score("s1")]


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    ControlDatabase.open(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreError, match="newer"):
        ControlDatabase.open(url)
