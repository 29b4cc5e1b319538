"""Spread over the cores of this machine; over a cluster: tests/infra/test_ray_spread.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.spread import OnCores
from tests.models.spread_contract import CHECKS

pytestmark = pytest.mark.cores


@pytest.mark.parametrize("check", CHECKS)
def test_on_two_cores(check: str, tmp_path: Path) -> None:
    CHECKS[check](OnCores(2), tmp_path)
