"""Clinical variables as a file or a request has them, and their encoding as numbers, fitted on training patients."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

MAX_LEVELS = 20
RARE_LEVEL = 5
"""A category with fewer patients is counted with the reference category."""


@dataclass(frozen=True)
class ClinicalVariable:
    """``binary`` is a numeric column with two values, of which ``high`` counts as 1; text is ``categorical``."""

    name: str
    kind: Literal["numeric", "binary", "categorical"]
    high: float = 1.0
    low: float = 0.0

    def read(self, value: Any) -> float | str | None:
        """One value as it is used; None where it is missing, or nothing this variable can have."""
        if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
            return None
        if self.kind == "categorical":
            text = str(value).strip()
            return text or None
        number = _number(value)
        if number is None or (self.kind == "binary" and number not in (self.low, self.high)):
            return None
        return number


@dataclass(frozen=True)
class ClinicalColumns:
    """``values[name]``: one read value a patient, in the order of the patients."""

    variables: tuple[ClinicalVariable, ...]
    values: Mapping[str, tuple[float | str | None, ...]]
    unused: tuple[str, ...] = ()

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, training: Ints) -> ClinicalColumns:
        """Reads a table; which kind a column has is decided by its training rows alone.

        ``unused``: columns with one value only, or text with more than 20 categories or none that two patients share.
        """
        variables, unused = [], []
        for column in sorted(frame.columns, key=str):
            variable = _variable(str(column), frame[column].iloc[training].tolist())
            if variable is None:
                unused.append(str(column))
            else:
                variables.append(variable)
        named = {str(column): frame[column].tolist() for column in frame.columns}
        values = {v.name: tuple(v.read(value) for value in named[v.name]) for v in variables}
        return cls(tuple(variables), values, tuple(unused))

    def take(self, rows: Ints) -> ClinicalColumns:
        values = {name: tuple(column[i] for i in rows) for name, column in self.values.items()}
        return ClinicalColumns(self.variables, values, self.unused)


@dataclass(frozen=True)
class EncodedVariable:
    """``fill`` stands in for a missing value: median, or most frequent. ``levels``: categories with a term each.

    Any other category, also one never seen, counts with the reference: the most frequent one.
    """

    variable: ClinicalVariable
    fill: float | str
    levels: tuple[str, ...] = ()

    @property
    def terms(self) -> tuple[str, ...]:
        name = self.variable.name
        return tuple(f"{name}={level}" for level in self.levels) if self.variable.kind == "categorical" else (name,)

    def encode(self, value: float | str | None) -> list[float]:
        """The value's terms."""
        known = self.fill if value is None else value
        if self.variable.kind == "categorical":
            return [1.0 if known == level else 0.0 for level in self.levels]
        if self.variable.kind == "binary":
            return [1.0 if known == self.variable.high else 0.0]
        return [float(known)]


@dataclass(frozen=True)
class ClinicalEncoder:
    """Fitted on training patients; one patient equals many."""

    encoded: tuple[EncodedVariable, ...]

    @classmethod
    def fit(cls, columns: ClinicalColumns, rows: Ints) -> ClinicalEncoder:
        return cls(tuple(_encoded(v, [columns.values[v.name][i] for i in rows]) for v in columns.variables))

    @property
    def terms(self) -> tuple[str, ...]:
        return tuple(term for encoded in self.encoded for term in encoded.terms)

    def term_indices(self) -> dict[str, list[int]]:
        """Which columns of the encoding belong to each variable."""
        result: dict[str, list[int]] = {}
        position = 0
        for encoded in self.encoded:
            result[encoded.variable.name] = list(range(position, position + len(encoded.terms)))
            position += len(encoded.terms)
        return result

    def only(self, names: Sequence[str]) -> ClinicalEncoder:
        return ClinicalEncoder(tuple(e for e in self.encoded if e.variable.name in names))

    def transform(self, columns: ClinicalColumns, rows: Ints) -> Floats:
        """Encoding (len(rows), number of terms)."""
        table = [[t for e in self.encoded for t in e.encode(columns.values[e.variable.name][i])] for i in rows]
        return np.array(table, dtype=np.float64).reshape(len(rows), len(self.terms))

    def encode(self, values: Mapping[str, Any]) -> Floats:
        """Encoding (number of terms,) of one patient's raw values; a variable not there counts as missing."""
        terms = [t for e in self.encoded for t in e.encode(e.variable.read(values.get(e.variable.name)))]
        return np.array(terms, dtype=np.float64)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _variable(name: str, values: Sequence[Any]) -> ClinicalVariable | None:
    present = [v for v in values if ClinicalVariable(name, "categorical").read(v) is not None]
    numbers = [_number(value) for value in present]
    if present and all(number is not None for number in numbers):
        distinct = sorted({number for number in numbers if number is not None})
        if len(distinct) < 2:
            return None
        if len(distinct) == 2:
            return ClinicalVariable(name, "binary", high=distinct[1], low=distinct[0])
        return ClinicalVariable(name, "numeric")
    counts = Counter(str(value).strip() for value in present)
    if not 2 <= len(counts) <= MAX_LEVELS or counts.most_common(1)[0][1] < 2:
        return None
    return ClinicalVariable(name, "categorical")


def _encoded(variable: ClinicalVariable, values: Sequence[float | str | None]) -> EncodedVariable:
    present = [value for value in values if value is not None]
    if variable.kind == "numeric":
        numbers = [float(value) for value in present]
        return EncodedVariable(variable, float(np.median(numbers)) if numbers else 0.0)
    counts = Counter(present)
    # Of equally frequent ones the first by name or value, so that the order of patients decides nothing.
    order = sorted(counts, key=lambda value: (-counts[value], value))
    fill = order[0] if order else (variable.low if variable.kind == "binary" else "")
    if variable.kind == "binary":
        return EncodedVariable(variable, fill)
    return EncodedVariable(
        variable, fill, tuple(sorted(str(level) for level in order[1:] if counts[level] >= RARE_LEVEL))
    )
