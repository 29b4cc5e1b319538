"""The same suite against a folder and against object storage, and against SQLite and PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from feature_store.control import default_url
from feature_store.store import FeatureStore


@pytest.fixture(scope="session")
def object_storage() -> Iterator[str]:
    """An S3 server of its own process; the AWS_* variables point to it, for child processes as well."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in settings}
    try:
        for _ in range(200):
            try:
                httpx.get(settings["AWS_ENDPOINT_URL"])
                break
            except httpx.TransportError:
                assert server.poll() is None
                time.sleep(0.1)
        os.environ.update(settings)
        yield settings["AWS_ENDPOINT_URL"]
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        server.kill()
        server.wait()


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can live; there is none yet."""
    if request.param == "folder":
        return str(tmp_path / "store")
    endpoint = request.getfixturevalue("object_storage")
    # of its own: the server looks through a whole bucket to list a folder
    bucket = f"asdeg-{uuid.uuid4().hex}"
    httpx.put(f"{endpoint}/{bucket}").raise_for_status()
    return f"s3://{bucket}/store"


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
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own (Debian's package), with an empty database for each who asks."""
    found = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    binaries = next((Path(path).parent for path in reversed(found) if path), None)
    if binaries is None:
        message = "PostgreSQL is missing: install Debian's package postgresql"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)
    home, port = tmp_path_factory.mktemp("postgresql"), free_port()
    # The server refuses to run as root, as containers do.
    user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    if user:
        for folder in (home, *home.parents[:3]):
            folder.chmod(0o755)
        shutil.chown(home, "nobody")
    data = str(home / "data")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True, "cwd": "/"}
    subprocess.run([*user, binaries / "initdb", "-D", data, "-A", "trust", "-U", "asdeg"], **quiet)  # type: ignore[call-overload]
    options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run([*user, binaries / "pg_ctl", "-D", data, "-w", "-o", options, "start"], **quiet)  # type: ignore[call-overload]
    try:
        yield f"postgresql+psycopg://asdeg@127.0.0.1:{port}/"
    finally:
        subprocess.run([*user, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]


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


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
