"""Every malformed image and mask gets its named error, silently and without a path or an identifier in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pipelines.imaging.malformed import KINDS, attempt


@pytest.mark.parametrize("name", KINDS)
def test_malformed(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    kind = KINDS[name]
    case = tmp_path / "case"
    case.mkdir()
    capfd.readouterr()
    error = attempt(kind, case)
    assert type(error) is kind.error, error
    assert re.search(kind.says, error.message), error.message
    assert error.file == "sent"
    assert error.action
    assert str(tmp_path) not in error.line()
    assert "SECRET" not in error.line()
    assert "\n" not in error.line()
    assert capfd.readouterr() == ("", "")


def test_many_kinds_are_tried() -> None:
    assert len(KINDS) >= 100
