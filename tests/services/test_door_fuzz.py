"""A short run of tests/services/fuzz.py: strange requests get a clear answer and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

from tests.services import fuzz


def test_nothing_strange_is_answered_with_a_fault(tmp_path: Path) -> None:
    told = fuzz.run(tmp_path, examples=3)
    assert told["faults"] == []
    assert told["tried"] > 250
    assert len(told["kinds"]) == 14
