"""Which scanner every patient's images came from, and ComBat of every column by the scanner of its own sequence.

A feature of ``t2_sag`` was measured where ``t2_sag`` was acquired, whatever scanner made the CT. Where a sequence has
no scanner of its own here (tables with one column ``scanner``, or none), that column counts, else the site.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.scanners import of_sequence, sequence_of
from models.harmonisation import SCANNER, Harmoniser, Unseen, fit_combat
from models.selection.matrix import FeatureMatrix

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Texts = NDArray[np.str_]


@dataclass(frozen=True)
class Scanners:
    """``names``: ``scanner``, and ``scanner:SEQUENCE`` where a sequence has its own, to a name a patient (n,)."""

    names: Mapping[str, Texts]

    @classmethod
    def of_patients(cls, patients: pd.DataFrame) -> Scanners:
        """From the columns of a study's patients; the site stands in where there is no ``scanner``."""
        own = {str(name): patients[name].to_numpy(dtype=str) for name in patients if sequence_of(str(name))}
        return cls({SCANNER: patients[SCANNER if SCANNER in patients else "site"].to_numpy(dtype=str), **own})

    def take(self, rows: Ints) -> Scanners:
        return Scanners({name: values[rows] for name, values in self.names.items()})

    def frame(self) -> pd.DataFrame:
        """A column each, as signatures ask for them."""
        return pd.DataFrame(dict(self.names))

    def groups(self, columns: Iterable[str]) -> dict[str, list[int]]:
        """Which of the columns go by which scanner, by place."""
        found: dict[str, list[int]] = {}
        for place, column in enumerate(columns):
            own = of_sequence(column.split(".")[0].rpartition(":")[2])
            found.setdefault(own if own in self.names else SCANNER, []).append(place)
        return found


@dataclass(frozen=True)
class Harmonisation:
    """A harmoniser for each scanner that columns go by; together they have the columns ``names``."""

    names: tuple[str, ...]
    parts: tuple[Harmoniser, ...]

    @property
    def features(self) -> list[str]:
        """What has to be known of a patient: ``scanner`` or ``scanner:SEQUENCE``."""
        return [part.by for part in self.parts]

    def apply(self, x: Floats, scanners: Mapping[str, Sequence[str] | Texts]) -> Floats:
        """``x`` (n, p) in the order of ``names``; ``scanners``: each of :attr:`features` to a name a patient (n,).

        UsageError for an unseen scanner where the policy is ``refuse``.
        """
        place = {name: i for i, name in enumerate(self.names)}
        even = np.array(x, dtype=np.float64)
        for part in self.parts:
            columns = [place[name] for name in part.names]
            even[:, columns] = part.apply(even[:, columns], scanners[part.by])
        return even

    def take(self, names: Sequence[str]) -> Harmonisation:
        """The same for some of its columns."""
        wanted = set(names)
        kept = [(part, [name for name in part.names if name in wanted]) for part in self.parts]
        return Harmonisation(tuple(names), tuple(part.take(columns) for part, columns in kept if columns))


def fit_harmonisation(matrix: FeatureMatrix, scanners: Scanners, unseen: Unseen = "as_is") -> Harmonisation:
    """ComBat for the columns of each sequence by its own scanner, fitted on the patients given."""
    parts = []
    for by, places in scanners.groups(matrix.names).items():
        columns = FeatureMatrix(tuple(matrix.names[i] for i in places), matrix.values[:, places])
        parts.append(fit_combat(columns, scanners.names[by], unseen, by))
    return Harmonisation(matrix.names, tuple(parts))
