"""Memory grows with the series and the ROI no faster than two million voxels of a 512 x 512 x 600 CT allow.

An eighth of that is measured; tests/benchmarks/memory.py measures all of it.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

LIMIT_GIB = 3.0


def peaks(size: str, roi: int) -> dict[str, float]:
    command = [sys.executable, str(REPOSITORY / "tests" / "benchmarks" / "memory.py"), "--json"]
    options = ["--size", size, "--roi", str(roi), "--feature-set", "study-ct-log"]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    (found,) = json.loads(done.stdout)
    assert found["values"] == found["finite"] == 1316
    assert found["roi_voxels"] == pytest.approx(roi, rel=0.05)
    return {stage: found[f"{stage}_gib"] for stage in ("read", "extract")}


@pytest.mark.slow
def test_a_worker_stays_under_its_limit() -> None:
    small, large = peaks("32,32,32", 2_000), peaks("256,256,300", 250_000)
    for stage, base in small.items():
        growth = large[stage] - base
        assert growth > 0.05  # something was measured
        assert base + 8 * growth < LIMIT_GIB, (stage, base, large[stage])
