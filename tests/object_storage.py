"""An S3 server of its own process, for the tests and for ``make torture STORE=s3``."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx


@contextmanager
def object_storage() -> Iterator[str]:
    """The server's address; while it runs the AWS_* variables point to it, for child processes as well."""
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


def empty_place(endpoint: str) -> str:
    """Where a store can live; a bucket of its own, because the server looks through all of one to list a folder."""
    bucket = f"asdeg-{uuid.uuid4().hex}"
    httpx.put(f"{endpoint}/{bucket}").raise_for_status()
    return f"s3://{bucket}/store"


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
