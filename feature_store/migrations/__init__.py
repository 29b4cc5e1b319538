"""Steps that bring a control database to the tables of this version (:mod:`feature_store.migrations.upgrade`)."""

from __future__ import annotations

from pathlib import Path


def newest() -> str:
    """The revision that this version of asdeg works with."""
    return (
        max(path.stem for path in (Path(__file__).parent / "versions").glob("v[0-9]*.py"))
        .partition("_")[0]
        .removeprefix("v")
    )
