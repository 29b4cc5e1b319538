"""Two Ray nodes on one machine, each with its own raylet, workers and object store, over one store."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from feature_store.store import FeatureStore
from tests.pipelines.extraction.extraction_store import add_series, same_values

pytestmark = [pytest.mark.cores, pytest.mark.slow]
REPOSITORY = Path(__file__).resolve().parents[3]
LOOPBACK = "127.0.0.1"
CASES = 8

DRIVER = """
import json, sys, time
from feature_store.store import FeatureStore
from pipelines.extraction.plan import ExtractionSettings
from pipelines.extraction.run import extract
from pipelines.ray_session import ray_session

address, *stores = sys.argv[1:]
with ray_session(address or None, 2):
    import ray
    while ray.cluster_resources().get("CPU", 0) < 2:
        time.sleep(0.2)

def say(done, total):
    print(done, flush=True)

for uri in stores:
    settings = ExtractionSettings(rois="every", encoder=None, batch_rows=4, ray_address=address or None, cpus=2)
    report = extract(FeatureStore.open(uri), settings, progress=say)
    print(json.dumps(vars(report)), flush=True)
"""


class Nodes:
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

    def driver(self, *stores: FeatureStore) -> subprocess.Popen[str]:
        return self._run(
            [sys.executable, "-c", DRIVER, self.address, *(store.uri for store in stores)], subprocess.PIPE
        )

    def _run(self, command: list[str], stdout: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command, env=self.environment, cwd=REPOSITORY, stdout=stdout, stderr=subprocess.DEVNULL, text=True
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


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    try:
        found.start()
        yield found
    finally:
        found.stop()


def test_two_nodes_give_the_rows_of_one_and_a_lost_node_costs_nothing(nodes: Nodes, tmp_path: Path) -> None:
    one, two, lost = (FeatureStore.open(tmp_path / name, create=True) for name in ("one", "two", "lost"))
    for store in (one, two, lost):
        for number in range(CASES):
            add_series(store, f"p{number}", seed=number)

    driver = nodes.driver(two, lost)
    assert driver.stdout is not None
    reports: list[dict] = []
    for line in driver.stdout:
        said = json.loads(line)
        if isinstance(said, dict):
            reports.append(said)
        elif len(reports) == 1 and said:  # the second run has its first rows
            nodes.lose(1)
    assert driver.wait(timeout=60) == 0
    assert [(report["done"], report["failed"]) for report in reports] == [(3 * CASES, 0)] * 2
    machines = reports[0]["machines"]
    assert len(machines) == 2
    assert all(stages["radiomics"] > 0 for stages in machines.values())

    alone = [sys.executable, "-c", DRIVER, "", one.uri]
    done = subprocess.run(alone, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout.splitlines()[-1])["machines"]) == 1
    assert same_values(two, one)
    assert same_values(lost, one)
