"""Pseudonyms, their keys, and the commands that make them."""

from __future__ import annotations

import io
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.errors import Conflict, SettingsError, UsageError
from infra.cli import main
from services.ingest.deidentification.pseudonym import is_pseudonym, pseudonym, pseudonymous
from services.ingest.deidentification.site_key import SiteKey, SiteKeys, new_key_file, read_key_file

KEY = SiteKey(bytes(range(32)))


def test_the_token_is_a_contract() -> None:
    assert pseudonym(KEY, "4711") == "psn-hnz4-dmdm-0srn-a32j-4"
    assert pseudonym(KEY, " 4711\0") == pseudonym(KEY, "4711")
    assert pseudonym(KEY, "4711") != pseudonym(SiteKey(b"x" * 32), "4711")
    assert pseudonym(KEY, "AB1") != pseudonym(KEY, "ab1")
    assert pseudonym(KEY, "phantom-0001") == "phantom-0001"
    assert "bytes" not in repr(KEY)
    assert str(bytes(range(32))) not in repr(KEY)


@given(st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=40))
def test_a_token_is_well_formed_and_stays_what_it_is(patient: str) -> None:
    token = pseudonym(KEY, patient)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", token)
    assert is_pseudonym(token)
    assert pseudonym(KEY, token) == token


def test_a_slip_of_the_pen_is_noticed() -> None:
    token = pseudonym(KEY, "4711")
    slips = [
        token[:i] + letter + token[i + 1 :]
        for i in range(4, len(token))
        for letter in "0123456789abcdefghjkmnpqrstvwxyz"
        if token[i] not in ("-", letter)
    ]
    assert len(slips) == 17 * 31
    assert not any(is_pseudonym(slip) for slip in slips)


@pytest.mark.parametrize("patient", ["", "  ", "a\nb", "x" * 201, "\x1b[2J"])
def test_what_is_no_id_has_no_token(patient: str) -> None:
    with pytest.raises(UsageError):
        pseudonym(KEY, patient)


def test_a_key_file_is_the_owners_and_never_in_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    key = tmp_path / "keys/site_a.key"
    new_key_file(key, str(store))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(Conflict):
        new_key_file(key, str(store))
    with pytest.raises(SettingsError, match="lies in the store"):
        new_key_file(store / "site_a.key", str(store))
    (tmp_path / "way").symlink_to(store)
    (store / "moved.key").write_bytes(key.read_bytes())
    with pytest.raises(SettingsError, match="lies in the store"):
        read_key_file(tmp_path / "way/moved.key", str(store))
    read_key_file(key, "s3://bucket/store")
    key.chmod(0o644)
    with pytest.raises(SettingsError, match="everybody"):
        read_key_file(key, str(store))
    key.chmod(0o600)
    key.write_text(key.read_text()[:-8])
    with pytest.raises(SettingsError, match="no pseudonym key"):
        read_key_file(key, str(store))


def test_each_site_has_its_own_key_and_one_without_keeps_its_ids(tmp_path: Path) -> None:
    for site in ("site_a", "site_b"):
        new_key_file(tmp_path / f"keys/{site}.key", str(tmp_path / "store"))
    keys = SiteKeys(str(tmp_path / "store"), folder=tmp_path / "keys")
    assert pseudonymous(keys, "site_a", "4711") != pseudonymous(keys, "site_b", "4711")
    assert pseudonymous(keys, "site_c", "p001") == "p001"
    assert keys.of("../keys/site_a") is None
    with pytest.raises(SettingsError, match="no pseudonym key"):
        keys.needed("site_c")


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "site_a.key"
    assert main(["keys", "pseudonym", str(key), "--store", str(tmp_path / "store")]) == 0
    said = capsys.readouterr()
    assert key.read_text().strip().removeprefix("asdeg-pseudonym-key-1:") not in said.out + said.err
    wanted = pseudonym(read_key_file(key, str(tmp_path / "store")), "4711")
    monkeypatch.setattr("sys.stdin", io.StringIO("4711\n0815\n"))
    assert main(["pseudonym", "-", "--pseudonym-key-file", str(key)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == wanted
    monkeypatch.setenv("ASDEG_PSEUDONYM_KEY_FILE", str(key))
    assert main(["pseudonym", "4711"]) == 0
    assert capsys.readouterr().out.strip() == wanted
    monkeypatch.delenv("ASDEG_PSEUDONYM_KEY_FILE")
    assert main(["pseudonym", "4711"]) == 2
    assert "4711" not in capsys.readouterr().err
