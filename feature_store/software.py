"""Which software made a row: the versions that decide its values."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

DECIDING = ("asdeg", "pyradiomics", "SimpleITK", "PyWavelets", "numpy", "torch", "monai")
"""Of features."""
DECIDING_FITS = ("asdeg", "numpy", "scipy", "pandas", "scikit-learn", "xgboost-cpu", "lightgbm", "statsmodels", "skops")
"""Of everything that is fitted."""


@cache
def software_version(packages: tuple[str, ...] = DECIDING) -> str:
    """For example ``asdeg 0.1.0; pyradiomics 3.0.1; …``; what is not installed is left out."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return "; ".join(found) or "asdeg"
