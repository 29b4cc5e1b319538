"""Every malformed manifest, label map and BIDS data set of the table gets its named error, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.cases.malformed import KINDS, case, errors_of


@pytest.mark.parametrize("kind", KINDS)
def test_a_malformed_kind_gets_its_named_error(tmp_path: Path, kind: str) -> None:
    _, code, words = KINDS[kind]
    lines = errors_of(kind, tmp_path)
    assert lines, "nothing was said"
    assert any(line.startswith(f"{code}: ") and words in line for line in lines), lines
    for line in lines:
        assert "\n" not in line
        assert str(tmp_path) not in line
        assert "sub-0" not in line


def test_there_are_enough_kinds_and_the_whole_one_has_no_error(tmp_path: Path) -> None:
    assert len(KINDS) >= 60
    assert case()(tmp_path) == []
