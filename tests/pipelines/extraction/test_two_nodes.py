"""Two Ray nodes on one machine, each with its own raylet, workers and object store, over one store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store.store import FeatureStore
from tests.pipelines.extraction.extraction_store import add_series, same_values
from tests.ray_nodes import REPOSITORY, RayNodes

pytestmark = [pytest.mark.cores, pytest.mark.slow]
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


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    found = RayNodes()
    try:
        found.start()
        yield found
    finally:
        found.stop()


def test_two_nodes_give_the_rows_of_one_and_a_lost_node_costs_nothing(nodes: RayNodes, tmp_path: Path) -> None:
    one, two, lost = (FeatureStore.open(tmp_path / name, create=True) for name in ("one", "two", "lost"))
    for store in (one, two, lost):
        for number in range(CASES):
            add_series(store, f"p{number}", seed=number)

    driver = nodes.driver("-c", DRIVER, nodes.address, two.uri, lost.uri)
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
