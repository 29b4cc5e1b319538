"""The uncertainty of one patient's risk: what refits of the whole protocol on redrawn patients say of the same patient.

A percentile interval (Efron and Tibshirani 1993, ch. 13). Nothing of other patients enters it, only the patient's own
features and refits that are frozen beside the signature, so that one patient equals many here as well. It is of how
the signature came about, not of measuring the patient again; the risk itself may lie outside of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

LABEL = "uncertainty of the risk"
PERCENTILES = (2.5, 97.5)


class Calibrated(Protocol):
    """What makes risks (n,) of log-odds."""

    def probability(self, logits: Floats) -> Floats: ...


class Bootstrapped(Protocol):
    """What an interval asks of a signature."""

    @property
    def head(self) -> Calibrated: ...

    @property
    def features(self) -> list[str]:
        """Full names of everything that a score needs."""

    @property
    def asked(self) -> list[str]:
        """These, and whatever else its bootstraps go by."""

    @property
    def bootstraps(self) -> Sequence[Bootstrapped]:
        """The same refitted on patients drawn with replacement (``models.bootstraps``)."""

    @property
    def not_numbers(self) -> list[str]:
        """Those of its features that are scanners or clinical variables."""

    def logits_if_known(self, known: Known) -> Floats:
        """Log-odds (n,); NaN for patients who get no score for what is missing."""


@dataclass(frozen=True)
class Known:
    """What is known of patients, read once for all refits: ``values`` (n, p) of the columns in ``place``.

    ``rows``: of each patient its scanners and clinical variables by name.
    """

    place: Mapping[str, int]
    values: Floats
    rows: list[dict[str, Any]]

    @classmethod
    def of_table(cls, signature: Bootstrapped, table: pd.DataFrame) -> Known:
        """All that the bootstraps of a signature go by; a feature that the table does not have is missing."""
        others = list(dict.fromkeys(name for one in signature.bootstraps for name in one.not_numbers))
        names = [name for name in signature.asked if name not in others]
        values = table.reindex(columns=names).to_numpy(dtype=np.float64)
        rows = table.reindex(columns=others).astype(object).to_dict(orient="records")
        return cls({name: i for i, name in enumerate(names)}, values, [{str(k): v for k, v in r.items()} for r in rows])

    def numbers(self, names: Sequence[str]) -> Floats:
        """Values (n, len(names)) of these columns."""
        return np.ascontiguousarray(self.values[:, [self.place[name] for name in names]])

    def texts(self, name: str) -> list[str]:
        """A scanner's name for each patient."""
        return [str(row[name]) for row in self.rows]


def intervals(signature: Bootstrapped, table: pd.DataFrame) -> Floats:
    """95 % intervals (n, 2) of the calibrated risks of a table's patients, for a signature that has bootstraps.

    NaN where a bootstrap would refuse the patient for what is missing: without that one the others would look surer
    than they are.
    """
    known = Known.of_table(signature, table)
    risks = [one.head.probability(one.logits_if_known(known)) for one in signature.bootstraps]
    return np.asarray(np.percentile(risks, PERCENTILES, axis=0).T, dtype=np.float64)


def interval_of(signature: Bootstrapped, features: Mapping[str, Any]) -> Interval | None:
    """Of one patient; None without bootstraps, or where :func:`intervals` has none."""
    if not signature.bootstraps:
        return None
    low, high = intervals(signature, pd.DataFrame([dict(features)]))[0].tolist()
    return None if np.isnan(low) else (low, high)


def asked_for(signature: Bootstrapped) -> list[str]:
    """What a signature and its bootstraps go by, each once."""
    return list(dict.fromkeys(name for one in (signature, *signature.bootstraps) for name in one.features))
