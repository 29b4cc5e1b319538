"""The ingest service over real HTTP, by uvicorn: in this process, or in one of its own that can be killed."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from feature_store.audit import AuditLog
from infra.bootstrap import House
from infra.settings import Settings, load_settings
from infra.site_client import KEPT_S
from pipelines.phantom import PhantomCase
from services.ingest.app import DoorLimits, build_app
from services.ingest.carrier import Carrier
from services.ingest.messages import Ticket

ROLES = (("site_a", "site"), ("site_b", "site"), ("scientist", "scientist"), ("application", "application"))

LIMITS = httpx.Limits(keepalive_expiry=KEPT_S)


@dataclass
class Door:
    house: House
    url: str
    keys: dict[str, str]
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60, limits=LIMITS))

    def call(self, who: str, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {**({"Authorization": f"Bearer {self.keys[who]}"} if who else {}), **request.pop("headers", {})}
        return self.client.request(method, self.url + path, headers=headers, **request)

    def push(self, who: str, folder: Path, **request: Any) -> httpx.Response:
        body = {"content": packed(folder), "headers": {"Content-Type": "application/gzip"}, **request}
        return self.call(who, "POST", "/v1/cases?wait=60", **body)


def settings_of(folder: Path, **chosen: Any) -> Settings:
    return load_settings({}, store=str(folder / "store"), **chosen)


def make_keys(house: House) -> dict[str, str]:
    return {name: house.control.add_credential(name, role, name if role == "site" else None) for name, role in ROLES}


def app_of(house: House, *, carries: bool = True, **limits: int) -> Any:
    workers = (Carrier(house.intake),) if carries else ()
    chosen = DoorLimits(**{"per_minute": 1_000_000, **limits})
    return build_app(house.ingest, house.intake, house.control, AuditLog(house.control), chosen, workers=workers)


@contextmanager
def open_door(
    folder: Path, *, carries: bool = True, limits: dict[str, int] | None = None, **chosen: Any
) -> Iterator[Door]:
    """A server in a thread of this process."""
    house = House.open(settings_of(folder, **chosen), create=True)
    keys = make_keys(house)
    server = uvicorn.Server(
        uvicorn.Config(app_of(house, carries=carries, **(limits or {})), port=0, log_level="warning", access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    door = Door(house, f"http://127.0.0.1:{port}", keys)
    try:
        yield door
    finally:
        door.client.close()
        server.should_exit = True
        thread.join(10)


@dataclass
class DoorProcess:
    """A server in a process of its own."""

    folder: Path
    carries: bool = True
    port: int = 0

    def __enter__(self) -> DoorProcess:
        command = [sys.executable, "-m", "tests.services.door", str(self.folder), "--port", str(self.port)]
        command += [] if self.carries else ["--idle"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]
        return self

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def memory_mb(self, what: str = "VmHWM") -> int:
        """The most (VmHWM) or present (VmRSS) resident memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) // 1024
        raise AssertionError(what)


def packed(folder: Path, mode: str = "w:gz") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        archive.add(folder, arcname="case")
    return data.getvalue()


def waiting(house: House, case: PhantomCase) -> Ticket:
    """The case is in the inbox, accepted and not carried out."""
    inbox, data = house.intake.inbox, packed(case.folder, "w")
    upload = inbox.begin(case.site, "pacs", len(data))
    inbox.packed(upload).write_bytes(data)
    return house.intake.accept(inbox.book.complete(inbox.book.advance(upload, len(data))))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--idle", action="store_true", help="nothing that was accepted is carried out")
    parser.add_argument("--port", type=int, default=0)
    chosen = parser.parse_args()
    house = House.open(settings_of(chosen.folder), create=True)
    server = uvicorn.Server(uvicorn.Config(app_of(house, carries=not chosen.idle), port=chosen.port, log_level="error"))

    def say() -> None:
        while not server.started:
            time.sleep(0.01)
        print(json.dumps({"url": f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"}), flush=True)

    threading.Thread(target=say, daemon=True).start()
    server.run()


if __name__ == "__main__":
    os.setpgrp()
    main()
