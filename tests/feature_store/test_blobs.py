from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feature_store.errors import BlobCorrupt, NotFound, StoreError, UsageError
from feature_store.store import FeatureStore


def test_bytes_are_kept_once_by_their_hash(store: FeatureStore) -> None:
    name = store.blobs.put_bytes("artefacts", b"signature")
    assert name == hashlib.sha256(b"signature").hexdigest()
    path = store.blobs.local_path("artefacts", name)
    stamp = path.stat().st_mtime_ns
    assert store.blobs.put_bytes("artefacts", b"signature") == name
    assert path.stat().st_mtime_ns == stamp
    assert store.blobs.read_bytes("artefacts", name) == b"signature"
    assert FeatureStore.open(store.uri).blobs.has("artefacts", name)
    path.write_bytes(b"something else")
    with pytest.raises(BlobCorrupt):
        store.blobs.read_bytes("artefacts", name)


def test_images_are_named_by_their_voxels_and_read_by_suffix(store: FeatureStore, tmp_path: Path) -> None:
    file = tmp_path / "image.nrrd"
    file.write_bytes(b"voxels")
    name = store.blobs.put_file("images", file, sha256="ab" * 32)
    path = store.blobs.local_path("images", name)
    assert path.suffix == ".nrrd"
    assert path.read_bytes() == b"voxels"
    assert store.blobs.local_path("images", name, ".nrrd") == path
    assert store.blobs.local_path("images", name, ".mha").suffix == ".mha"
    assert not store.blobs.has("masks", name)
    assert store.blobs.put_file("artefacts", file) == hashlib.sha256(b"voxels").hexdigest()


def test_what_is_not_there_or_no_hash(store: FeatureStore) -> None:
    with pytest.raises(NotFound):
        store.blobs.local_path("images", "ab" * 32)
    with pytest.raises(UsageError):
        store.blobs.has("images", "../../etc/passwd")
    with pytest.raises(UsageError):
        store.blobs.put_bytes("letters", b"")


def test_many_at_once_leave_one_whole_file(store: FeatureStore) -> None:
    data = bytes(1_000_000)
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: store.blobs.put_bytes("artefacts", data), range(16)))
    assert len(names) == 1
    folder = store.blobs.local_path("artefacts", names.pop()).parent
    assert [p.stat().st_size for p in folder.iterdir()] == [1_000_000]


def test_a_failing_disk_leaves_nothing_half(folder_store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = folder_store

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("feature_store.blobs.os.fsync", full)
    with pytest.raises(StoreError):
        store.blobs.put_bytes("artefacts", b"x")
    assert not store.blobs.has("artefacts", hashlib.sha256(b"x").hexdigest())
    left = [p for p in Path(store.uri, "blobs").rglob("*") if p.is_file()]
    assert left == []
