"""The same suite against a folder and against object storage, and against SQLite and PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_store.control import default_url
from feature_store.store import FeatureStore
from tests.object_storage import empty_place, free_port, object_storage


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with object_storage() as address:
        yield address


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can live; there is none yet."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return empty_place(request.getfixturevalue("endpoint"))


@pytest.fixture
def step(place: str) -> int:
    """After how many pushes views are compared: all of them in a folder; one is 200 requests on object storage."""
    return 1 if Path(place).is_absolute() else 6


@pytest.fixture
def store(place: str) -> FeatureStore:
    return FeatureStore.open(place, create=True)


@pytest.fixture
def folder_store(tmp_path: Path) -> FeatureStore:
    """For tests that look at the files themselves, or that have nothing to do with where the store lives."""
    return FeatureStore.open(tmp_path / "store", create=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of its own (Debian's package), with an empty database for each who asks."""
    found = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    binaries = next((Path(path).parent for path in reversed(found) if path), None)
    if binaries is None:
        message = "PostgreSQL is missing: install Debian's package postgresql"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)
    # The server refuses to run as root, as containers do. Not in pytest's own folder: another pytest that starts
    # meanwhile closes that to everybody but its owner, and the server's user could not stop it any more.
    user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True, "cwd": "/"}
    with tempfile.TemporaryDirectory(prefix="asdeg-postgresql-") as home:
        if user:
            shutil.chown(home, "nobody")
        port, data = free_port(), f"{home}/data"
        subprocess.run([*user, binaries / "initdb", "-D", data, "-A", "trust", "-U", "asdeg"], **quiet)
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
        subprocess.run([*user, binaries / "pg_ctl", "-D", data, "-w", "-o", options, "start"], **quiet)
        try:
            yield f"postgresql+psycopg://asdeg@127.0.0.1:{port}/"
        finally:
            subprocess.run([*user, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a control database that is empty."""
    if request.param == "sqlite":
        return default_url(str(tmp_path / "store"))
    from sqlalchemy import create_engine, text

    server, name = request.getfixturevalue("postgresql"), f"t{uuid.uuid4().hex}"
    engine = create_engine(f"{server}postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server}{name}"
