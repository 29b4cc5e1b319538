"""A Ray cluster of two nodes on one machine, each with its own raylet, workers and object store."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
LOOPBACK = "127.0.0.1"


class RayNodes:
    """A head and a worker of one CPU each, as ``ray start`` makes them, and who speaks to them."""

    def __init__(self) -> None:
        self.address = f"{LOOPBACK}:{_free_port()}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "PYTHONPATH": str(REPOSITORY),
        }
        self.folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # Ray's sockets need short paths
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        host, port = self.address.split(":")
        self._start("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.folder}")
        for _ in range(300):
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                break
            time.sleep(0.2)
        self._start(f"--address={self.address}")

    def _start(self, *options: str) -> None:
        first = 21000 + 500 * len(self.processes)  # ports of their own, which two machines have anyway
        command = [str(Path(sys.executable).with_name("ray")), "start", *options, "--num-cpus=1", "--block"]
        command += [f"--node-ip-address={LOOPBACK}", "--object-store-memory=200000000", "--disable-usage-stats"]
        command += [f"--min-worker-port={first}", f"--max-worker-port={first + 400}"]
        self._run(command, subprocess.DEVNULL)

    def driver(self, *arguments: str) -> subprocess.Popen[str]:
        """A Python process of this repository that may speak to them; its stdout can be read."""
        return self._run([sys.executable, *arguments], subprocess.PIPE)

    def _run(self, command: list[str], stdout: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            env=self.environment,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.processes.append(process)
        return process

    def lose(self, number: int) -> None:
        """Kill everything of a node at once, as when its machine goes away."""
        node = self.processes[number]
        with suppress(psutil.NoSuchProcess):
            whole = psutil.Process(node.pid)
            for process in [*whole.children(recursive=True), whole]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
        node.wait(timeout=30)

    def stop(self) -> None:
        for number in reversed(range(len(self.processes))):
            self.lose(number)
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
