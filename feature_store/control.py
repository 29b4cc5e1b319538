"""The control database: case states, credentials, the write-ahead log of scores; what else is in it, beside it.

SQLite in the store's folder by default (write-ahead journal, so readers never wait), PostgreSQL by URL.
Every change is one statement, or made :meth:`alone`, so no two processes can interleave. Leases, uploads, schedules,
the audit log and how far runs are have modules of their own.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Table, create_engine, delete, event, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from feature_store.control_tables import Base, CaseEventRow, CaseRow, CredentialRow, ScoreRow
from feature_store.errors import Conflict, StoreError, UsageError
from feature_store.location import Location
from feature_store.migrations import newest
from feature_store.schemas import SCORES, TIME

BUSY_MS = 30_000
ALONE = 0x61736465
"""The advisory lock of PostgreSQL that whoever is :meth:`ControlDatabase.alone` holds."""
CASE_STATES = ("received", "validated", "extracted", "rejected", "withdrawn")
ROLES = ("site", "application", "scientist")


@dataclass(frozen=True)
class CaseState:
    """``state`` is one of CASE_STATES; ``reasons`` say what was rejected."""

    site: str
    patient_id: str
    case_id: str
    state: str
    reasons: tuple[str, ...]
    changed_at: float


@dataclass(frozen=True)
class CaseEvent:
    """A case came into ``state``, at a time in seconds since 1970."""

    state: str
    reasons: tuple[str, ...]
    at: float


@dataclass(frozen=True)
class Credential:
    """Who a key belongs to; ``site`` limits it to one site's data."""

    name: str
    role: str
    site: str | None


class ControlDatabase:
    """Open with :meth:`open`; may be shared by threads, not across ``fork``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> ControlDatabase:
        """Connect to ``sqlite:///path`` or ``postgresql+driver://…`` and make the tables that are missing."""
        try:
            engine = create_engine(url, pool_pre_ping=True)
        except (SQLAlchemyError, ImportError) as error:
            raise UsageError("That is no address of a control database.", action="Write sqlite:///PATH.") from error
        if engine.dialect.name == "sqlite":
            if engine.url.database:
                Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            event.listen(engine, "connect", _prepare_sqlite)
        control = cls(engine)
        try:
            control._migrate()
        except DBAPIError as error:
            raise StoreError("The control database cannot be opened.", action="Check its address.") from error
        return control

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()

    # --- cases ---------------------------------------------------------------------------------
    def set_case_state(self, site: str, patient_id: str, case_id: str, state: str, reasons: Sequence[str] = ()) -> None:
        """Say where a case is now. Raises UsageError for an unknown state."""
        if state not in CASE_STATES:
            raise UsageError(f"{state} is no case state.", action=f"States: {', '.join(CASE_STATES)}.")
        now = time.time()
        row = {"patient_id": patient_id, "state": state, "reasons": list(reasons), "changed_at": now}
        with self.writing() as connection:
            upsert(connection, CaseRow, {"site": site, "case_id": case_id}, row)
            _note(connection, site, case_id, state, reasons, now)

    def note_case(self, site: str, patient_id: str, case_id: str, state: str) -> None:
        """A case came again: for its history. Only one that was not here, or was withdrawn, has a new state by that."""
        now = time.time()
        row = {"patient_id": patient_id, "state": state, "reasons": [], "changed_at": now}
        with self.writing() as connection:
            withdrawn = CaseRow.state == "withdrawn"
            upsert(connection, CaseRow, {"site": site, "case_id": case_id}, row, only_where=withdrawn)
            _note(connection, site, case_id, state, [], now)

    def forget_case(self, site: str, case_id: str) -> None:
        """Where it is and was: of one that may not be known any more."""
        with self.writing() as connection:
            for table in (CaseRow, CaseEventRow):
                connection.execute(delete(table).where(table.site == site, table.case_id == case_id))

    def case_history(self, site: str, case_id: str) -> list[CaseEvent]:
        """Every state the case was in, oldest first."""
        query = select(CaseEventRow.state, CaseEventRow.reasons, CaseEventRow.at)
        query = query.where(CaseEventRow.site == site, CaseEventRow.case_id == case_id).order_by(CaseEventRow.number)
        with self.reading() as connection:
            return [CaseEvent(state, tuple(reasons), at) for state, reasons, at in connection.execute(query)]

    def case(self, case_id: str, site: str | None = None) -> CaseState | None:
        """The case's state; None where there is no such case (at that site)."""
        found = self._cases(CaseRow.case_id == case_id, site)
        return found[0] if found else None

    def cases(self, site: str | None = None, state: str | None = None) -> list[CaseState]:
        """All cases (of a site, in a state), by site and patient."""
        return self._cases(None if state is None else CaseRow.state == state, site)

    def cases_after(self, case_id: str, limit: int, site: str | None = None) -> list[CaseState]:
        """At most ``limit`` cases (of a site) whose ids come after that one ("": from the first), by id.

        A case has one place for ever, so who asks on from the last one misses none that was there at the beginning.
        """
        return self._cases(CaseRow.case_id > case_id, site, by=(CaseRow.case_id, CaseRow.site), limit=limit)

    def _cases(
        self,
        which: ColumnElement[bool] | None,
        site: str | None,
        by: Sequence[Any] = (CaseRow.site, CaseRow.patient_id, CaseRow.case_id),
        limit: int | None = None,
    ) -> list[CaseState]:
        query = select(CaseRow.__table__).order_by(*by).limit(limit)
        query = query if which is None else query.where(which)
        query = query if site is None else query.where(CaseRow.site == site)
        with self.reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [CaseState(**{**row, "reasons": tuple(row["reasons"])}) for row in rows]

    # --- credentials ---------------------------------------------------------------------------
    def add_credential(self, name: str, role: str, site: str | None = None) -> str:
        """Make a key and return it, once: only its SHA-256 is kept. Raises Conflict where the name is taken."""
        if role not in ROLES or (role == "site" and not site):
            raise UsageError("A credential is of a site, an application or a scientist.", action="Give role and site.")
        key = f"asdeg_{secrets.token_urlsafe(32)}"
        row = {"name": name, "role": role, "site": site, "key_hash": _hash(key), "created_at": time.time()}
        try:
            with self.writing() as connection:
                connection.execute(_table(CredentialRow).insert().values(row))
        except IntegrityError as error:
            raise Conflict(
                "A credential of that name exists.", action="`asdeg keys remove` it first, or take another name."
            ) from error
        return key

    def remove_credential(self, name: str) -> bool:
        """Whether there was one."""
        with self.writing() as connection:
            return connection.execute(delete(CredentialRow).where(CredentialRow.name == name)).rowcount > 0

    def credentials(self) -> list[Credential]:
        """All of them, by name; never a key."""
        with self.reading() as connection:
            query = select(CredentialRow.name, CredentialRow.role, CredentialRow.site).order_by(CredentialRow.name)
            return [Credential(*row) for row in connection.execute(query)]

    def who(self, key: str) -> Credential | None:
        """Whose key this is; None where it is nobody's."""
        query = select(CredentialRow.name, CredentialRow.role, CredentialRow.site)
        with self.reading() as connection:
            row = connection.execute(query.where(CredentialRow.key_hash == _hash(key))).first()
        return None if row is None else Credential(*row)

    # --- scores --------------------------------------------------------------------------------
    def log_score(self, row: Mapping[str, Any]) -> None:
        """Keep one row of `scores`; on disk when this returns. The same score_id again changes nothing."""
        kept = json.dumps(dict(row), default=_as_json)
        with self.writing() as connection:
            upsert(connection, ScoreRow, {"score_id": str(row["score_id"])}, {"row": kept})

    def unflushed_scores(self, limit: int = 1000) -> list[dict[str, Any]]:
        """The oldest logged rows, as the table `scores` takes them."""
        with self.reading() as connection:
            texts = connection.scalars(select(ScoreRow.row).order_by(ScoreRow.id).limit(limit)).all()
        return [_from_json(one) for one in texts]

    def mark_flushed(self, score_ids: Sequence[str]) -> None:
        """The rows are in the store: drop them from the log."""
        with self.writing() as connection:
            for start in range(0, len(score_ids), 500):
                connection.execute(delete(ScoreRow).where(ScoreRow.score_id.in_(score_ids[start : start + 500])))

    # --- transactions --------------------------------------------------------------------------
    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """A transaction that no other of its kind runs beside, in any process: for what reads before it writes."""
        with _translated(), self._alone() as connection:
            yield connection

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                with connection.begin():
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ALONE})
                    yield connection
                return
            # The driver begins a transaction late; only one of its own that begins at once excludes others.
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise

    def wipe(self) -> None:
        """Overwrite what deleted rows left in the files. PostgreSQL's own log and backups are beyond reach."""
        with _translated(), self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            if connection.dialect.name == "postgresql":
                for table in Base.metadata.sorted_tables:
                    connection.exec_driver_sql(f"VACUUM FULL {table.name}")
                return
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def _migrate(self) -> None:
        """Bring the tables to this version (:mod:`feature_store.migrations`)."""
        for attempt in range(5):
            try:
                with self._engine.connect() as connection:
                    if _revision(connection) == newest():
                        return
                with self._alone() as connection:
                    from feature_store.migrations.upgrade import upgrade

                    return upgrade(connection)
            except DBAPIError:  # several processes turned a new SQLite file to write-ahead at once
                if attempt == 4:
                    raise
                time.sleep(0.05 * 2**attempt)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """For changes, all of them or none."""
        with _translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """For reading."""
        with _translated(), self._engine.connect() as connection:
            yield connection


def default_url(store_uri: str) -> str:
    """SQLite beside the tables of a folder store. Raises UsageError for a remote store."""
    folder = Location.parse(store_uri).folder
    if folder is None:
        raise UsageError("A store on S3 needs a control database by URL.", action="Give postgresql+psycopg://….")
    return f"sqlite:///{folder / 'control.sqlite'}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:  # its text quotes statements and values
        raise StoreError(
            f"The control database refused ({type(error).__name__}).",
            action="Check that it can be reached and written.",
        ) from error


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))


def _table(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


def _note(connection: Connection, site: str, case_id: str, state: str, reasons: Sequence[str], at: float) -> None:
    event = {"site": site, "case_id": case_id, "state": state, "reasons": list(reasons), "at": at}
    connection.execute(_table(CaseEventRow).insert().values(event))


def upsert(
    connection: Connection,
    model: type[Base],
    key: Mapping[str, Any],
    values: Mapping[str, Any],
    only_where: ColumnElement[bool] | None = None,
) -> int:
    """Insert, or change the row of that key (if ``only_where`` holds); the number of rows written."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    table = _table(model)
    statement = dialect.insert(table).values({**key, **values})
    statement = statement.on_conflict_do_update(index_elements=list(key), set_=dict(values), where=only_where)
    # Drivers do not agree on the row count of such a statement; the rows that it returns are what was written.
    return len(connection.execute(statement.returning(table.c[next(iter(key))])).all())


def _hash(key: str) -> str:
    # Keys are 256 random bits, so a plain hash cannot be searched.
    return hashlib.sha256(key.encode()).hexdigest()


def _as_json(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _from_json(kept: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(kept)
    for column in SCORES.columns:
        if column.type == TIME and isinstance(row.get(column.name), str):
            row[column.name] = datetime.fromisoformat(row[column.name])
    return row
