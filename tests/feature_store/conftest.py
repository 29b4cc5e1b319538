from __future__ import annotations

from pathlib import Path

import pytest

from feature_store.store import FeatureStore


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.open(tmp_path / "store", create=True)
