"""Columns that say more than a measurement can: the outcome under another name, and numbers that only name a patient.

They are named and not taken out: what a column is, only who made the table knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from models.clinical_columns import ClinicalColumns, ClinicalEncoder
from models.folds import rarer_class
from models.selection.matrix import FeatureMatrix
from models.selection.scaling import quartiles

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

ALL_BUT_THE_OUTCOME = 0.98
"""AUC, either way, of a single column among training patients from which it may be the outcome itself."""
BY_CHANCE = 1e-3
"""Expected number of such columns by chance, above which many columns and few patients explain them."""
MOST_GAPS = 2
"""Distinct whole numbers that spread over so many times the number of patients, or less, were counted out."""
NUMBERING = re.compile(r"(^|[\W_])(id|ids|pid|mrn|nr|no|number|index|row|accession)([\W_]|$)", re.IGNORECASE)


def as_good_as_the_outcome(names: Sequence[str], x: Floats, y: NDArray[np.int64]) -> list[dict[str, Any]]:
    """``name`` and ``auc`` (under 0.5 where low values go with events) of columns of ``x`` (n, p), NaN where missing.

    ``y`` (n,) of the same training patients. A column counts by those who have a value, half of the patients at least.
    """
    found = []
    for place in _apart(x, y).tolist():
        name, column = names[place], x[:, place]
        there = np.isfinite(column)
        events = y[there] == 1
        m, n = int(events.sum()), int((~events).sum())
        if m < 2 or n < 2 or 2 * len(events) < len(y):
            continue
        area = float((rankdata(column[there])[events].sum() - m * (m + 1) / 2) / (m * n))
        # Mann and Whitney's spread without ties, which is the larger one.
        chance = 2 * norm.sf(abs(area - 0.5) / np.sqrt((m + n + 1) / (12 * m * n))) * len(names)
        if abs(area - 0.5) >= ALL_BUT_THE_OUTCOME - 0.5 and chance < BY_CHANCE:
            found.append({"name": name, "auc": area})
    return sorted(found, key=lambda row: -abs(row["auc"] - 0.5))


def _apart(x: Floats, y: NDArray[np.int64]) -> Ints:
    """Columns of which a quartile of one outcome reaches that of the other: without it no AUC comes near the bound."""
    enough = np.flatnonzero(np.min([np.isfinite(x[y == value]).sum(axis=0) for value in (0, 1)], axis=0) >= 2)
    (low, _, high), (low_of_events, _, high_of_events) = (quartiles(x[y == value][:, enough]) for value in (0, 1))
    return enough[(low_of_events >= high) | (high_of_events <= low)]


def numbering(names: Sequence[str], x: Floats) -> list[str]:
    """Columns of ``x`` (n, p) in which all patients have whole numbers, no two the same, and which look like ids.

    By their name, or since the numbers follow one another nearly without gaps.
    """
    n = len(x)
    found = []
    for place in np.flatnonzero(np.isfinite(x).all(axis=0) & (x == np.round(x)).all(axis=0)).tolist():
        name, column = names[place], x[:, place]
        if n < 2 or len(np.unique(column)) < n:
            continue
        if NUMBERING.search(name) or np.ptp(column) < MOST_GAPS * n:
            found.append(name)
    return found


def telling_columns(
    y: NDArray[np.int64], training: Ints, matrices: Sequence[FeatureMatrix | None], clinical: ClinicalColumns | None
) -> dict[str, Any]:
    """``outcome``: columns that order training patients as the outcome does; ``numbering``: those that count patients.

    ``y`` (n,) of all patients, of whom only the ``training`` ones are looked at for ``outcome``.
    """
    names: list[str] = []
    parts: list[Floats] = []
    for matrix in matrices:
        if matrix is not None:
            names.extend(matrix.names)
            parts.append(matrix.values)
    if clinical is not None:
        encoder = ClinicalEncoder.fit(clinical, training)
        names.extend(encoder.terms)
        parts.append(encoder.transform(clinical, np.arange(len(y))))
    if not names or not rarer_class(y[training]):
        return {"outcome": [], "numbering": []}
    x = np.hstack(parts)
    return {"outcome": as_good_as_the_outcome(names, x[training], y[training]), "numbering": numbering(names, x)}


def said_of_columns(found: dict[str, Any], shown: int = 3) -> list[str]:
    """Whole sentences for the first lines of a report."""
    said = []
    if rows := found["outcome"]:
        listed = ", ".join(f"{row['name']} (AUC {max(row['auc'], 1 - row['auc']):.3f})" for row in rows[:shown])
        more = f" and {len(rows) - shown} more" if len(rows) > shown else ""
        said.append(
            f"Alone as good as the outcome itself: {listed}{more}. Unless it was measured before surgery and is no "
            "other word for the outcome, leave it out: the figures mean nothing with it."
        )
    if names := found["numbering"]:
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        said.append(
            f"Numbers that name patients rather than measure them: {', '.join(names[:shown])}{more}. Leave them out."
        )
    return said
