"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images, masks and reference values (not part of the repository).

    Looked for beside the checkout (``../shared/data``) or at ``ASDEG_SHARED_DATA``. Without it the test
    skips and says so; in CI (``CI=true``) a missing folder is a failure.
    """
    folder = Path(os.environ.get("ASDEG_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if (folder / "spine").is_dir():
        return folder
    message = "real test data missing: put it at ../shared/data or point ASDEG_SHARED_DATA to it"
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(message)
    pytest.skip(message)
