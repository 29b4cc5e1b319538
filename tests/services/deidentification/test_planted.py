"""Nothing of who the patient is comes through any door."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.deidentification.planted import DOORS, Evidence, unpacked


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_what_is_planted_is_not_found(door: object, tmp_path: Path) -> None:
    evidence: Evidence = door(tmp_path / "here")  # type: ignore[operator]
    assert len(evidence.planted.needles) > 2_900
    assert evidence.found() == {}
    # the same search finds them where they were planted
    elsewhere = [path for path in (tmp_path / "here").rglob("*") if not path.is_relative_to(evidence.root)]
    sources = b"".join(data for path in elsewhere if path.is_file() for data in unpacked(path))
    if sources:
        assert len(evidence.planted.found(sources)) > 0.95 * len(evidence.planted.needles)
