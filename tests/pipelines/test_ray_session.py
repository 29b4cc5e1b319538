from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from feature_store.errors import UsageError
from pipelines.ray_session import ray_session

pytestmark = pytest.mark.cores
REPOSITORY = Path(__file__).resolve().parents[2]

SESSION = """
from pipelines.ray_session import quiet_ray_data, ray_session

with ray_session(cpus=1) as resources:
    import ray

    (node,) = ray.nodes()
    print(resources.cpus, node["NodeManagerAddress"], ray.get_runtime_context().gcs_address.split(":")[0])
    with quiet_ray_data(1024**2):
        assert ray.data.range(3).map(lambda row: row).count() == 3
    with ray_session() as again:
        print(again.cpus)
    assert ray.is_initialized()  # the inner one was not its own
assert not ray.is_initialized()
"""


def test_a_ray_of_our_own_stays_on_the_loopback_and_says_nothing():
    run = subprocess.run([sys.executable, "-c", SESSION], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.stdout.splitlines() == ["1 127.0.0.1 127.0.0.1", "1"], run.stderr
    assert run.stderr == ""


def test_an_address_where_nothing_answers_is_named():
    with pytest.raises(UsageError, match="no Ray cluster"), ray_session("127.0.0.1:1"):
        pass
