"""A feature table as numbers: names and a float64 matrix, ordered by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Outcome = NDArray[np.int64]


@dataclass(frozen=True)
class FeatureMatrix:
    """``values`` has shape (n, p), NaN where missing (infinite counts as missing); ``names`` has p names.

    Columns are sorted by name, so that no result depends on the order in which a file has them.
    """

    names: tuple[str, ...]
    values: Floats

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> FeatureMatrix:
        names = tuple(sorted(str(column) for column in frame.columns))
        ordered = frame.set_axis([str(column) for column in frame.columns], axis=1)[list(names)]
        values = np.array(ordered.to_numpy(dtype=np.float64), dtype=np.float64, order="C")
        values[~np.isfinite(values)] = np.nan
        return cls(names, values)

    def take(self, rows: Ints) -> FeatureMatrix:
        return FeatureMatrix(self.names, self.values[rows])

    def columns(self, names: tuple[str, ...]) -> Floats:
        """The matrix of these columns only, shape (n, len(names)). KeyError where one is not there."""
        position = {name: i for i, name in enumerate(self.names)}
        return np.ascontiguousarray(self.values[:, [position[name] for name in names]])
