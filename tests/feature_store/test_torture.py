"""The short form of ``make torture``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.run import torture

pytestmark = pytest.mark.cores


def test_kills_of_everybody_lose_nothing(tmp_path: Path) -> None:
    acknowledged = tmp_path / "acknowledged"
    acknowledged.mkdir()
    found = torture(str(tmp_path / "store"), acknowledged, kills=8, writers=3, extractors=1, readers=1, seed=1)
    assert (found["lost"], found["torn_reads"], found["broken_promises"], found["readers_died"]) == (0, 0, [], [])
    assert sum(found["kills"].values()) == 8
    assert min(found["acknowledged"], found["reads"], found["optimised"]) > 0
