"""Every malformed image and mask gets its named error, silently and without a path or an identifier in it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from feature_store.errors import InputError
from pipelines.imaging.images import check_image, load_image
from pipelines.imaging.mask_contents import mask_contents
from pipelines.imaging.masks import read_mask
from tests.pipelines.imaging.malformed import KINDS, WHOLE
from tests.pipelines.imaging.malformed_kind import IMAGE, attempt


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


@pytest.mark.parametrize("name", WHOLE)
def test_any_damage_is_an_error_of_ours_or_none(tmp_path: Path, name: str) -> None:
    """One to three bytes of a whole file changed at random, mostly in its header: nothing of pydicom's escapes."""
    rng = np.random.default_rng(11)
    image, mask = WHOLE[name](tmp_path) or (IMAGE, None)
    loaded = load_image(tmp_path / image)
    target = tmp_path / mask if mask else sorted((tmp_path / image).iterdir())[0]
    whole = target.read_bytes()
    said = []
    for _ in range(120):
        damaged = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            last = min(len(whole), 2500) if rng.random() < 0.8 else len(whole)
            damaged[int(rng.integers(132, last))] = int(rng.integers(0, 256))
        target.write_bytes(damaged)
        try:
            if mask:
                read_mask(target, "sent", loaded)
                mask_contents(target, "sent", loaded)
            else:
                check_image(load_image(tmp_path / image, "sent").image, "")
        except InputError as error:
            said.append(error.line())
    assert said
    assert not any(str(tmp_path) in line for line in said)
