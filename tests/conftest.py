"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # One worker a core: libraries that each took every core would only wait for one another.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, then those with many tests: side by side, no long one is left for the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -tests[item.path]))


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
