"""Spread over the cores of this machine; over a cluster: tests/infra/test_ray_spread.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from models.spread import OnCores, Spread
from tests.models.spread_contract import DEADLY, PEACEFUL

pytestmark = pytest.mark.cores


@pytest.mark.parametrize("check", [*PEACEFUL, *DEADLY])
def test_on_two_cores(check: Callable[[Spread, Path], None], tmp_path: Path) -> None:
    check(OnCores(2), tmp_path)
