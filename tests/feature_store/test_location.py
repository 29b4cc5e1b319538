from __future__ import annotations

from pathlib import Path

import pytest

from feature_store.errors import UsageError
from feature_store.location import Location


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location.parse("store") == Location.parse(tmp_path / "store") == Location.parse(f"file://{tmp_path}/store")
    assert Location.parse(f"file://{tmp_path}/a%20store").folder == tmp_path / "a store"
    assert Location.parse("~/store").folder == Path.home() / "store"
    assert Location.parse("store").storage_options == {}


def test_object_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    location = Location.parse("s3://bucket/prefix/")
    assert (location.uri, location.folder) == ("s3://bucket/prefix", None)
    assert location.child("tables", "cases") == "s3://bucket/prefix/tables/cases"
    assert location.storage_options == {
        "aws_conditional_put": "etag", "aws_endpoint_url": "http://127.0.0.1:9000", "aws_allow_http": "true",
    }  # fmt: skip


@pytest.mark.parametrize("uri", ["http://host/store", "s3://", "gs://bucket/x"])
def test_elsewhere_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        Location.parse(uri)
