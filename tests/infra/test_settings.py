"""Defaults, then the environment, then the command line; nothing unknown goes unnoticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from feature_store.errors import SettingsError
from infra.settings import NO_SETTINGS, Settings, load_settings

REPOSITORY = Path(__file__).parents[2]


def test_the_command_line_wins_over_the_environment_and_that_over_the_default() -> None:
    assert load_settings({}).port == 8000
    assert load_settings({"ASDEG_PORT": "9000"}).port == 9000
    assert load_settings({"ASDEG_PORT": "9000"}, port=9001).port == 9001
    assert load_settings({"ASDEG_PORT": "9000"}, port=None).port == 9000
    assert load_settings({}).host == "127.0.0.1"


def test_a_folder_is_absolute_and_a_uri_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({}).store == str(tmp_path / "asdeg-store")
    assert load_settings({}, store="s3://bucket/prefix/").store == "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("environ", "named"),
    [({"ASDEG_PROT": "1"}, "ASDEG_PROT"), ({"ASDEG_PORT": "none"}, "port"), ({"ASDEG_GRID": "huge"}, "grid")],
)
def test_an_unknown_or_wrong_setting_is_refused_by_name(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        load_settings(environ)
    assert caught.value.action


def test_settings_are_frozen_and_changed_by_copies() -> None:
    settings = load_settings({})
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
    assert settings.but(port=8001, host=None) == Settings(**{**settings.model_dump(), "port": 8001})
    with pytest.raises(SettingsError, match="port"):
        settings.but(port=0)


def test_every_variable_that_the_code_reads_is_a_setting() -> None:
    known = {f"ASDEG_{name.upper()}" for name in Settings.model_fields} | NO_SETTINGS
    packages = ("feature_store", "models", "pipelines", "services", "infra")
    files = [path for package in packages for path in (REPOSITORY / package).rglob("*.py")]
    read = {name for path in files for name in re.findall(r"ASDEG_[A-Z][A-Z_]+[A-Z]", path.read_text(encoding="utf-8"))}
    assert "ASDEG_STORE" in read
    assert read <= known
