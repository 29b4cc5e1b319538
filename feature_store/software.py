"""Which software made a row: the versions that decide its values."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

DECIDING = ("asdeg", "pyradiomics", "SimpleITK", "PyWavelets", "numpy", "torch", "monai")


@cache
def software_version() -> str:
    """For example ``asdeg 0.1.0; pyradiomics 3.0.1; …``; what is not installed is left out."""
    found = []
    for package in DECIDING:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return "; ".join(found) or "asdeg"
