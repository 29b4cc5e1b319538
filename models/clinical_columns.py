"""Clinical variables as a file or a request has them, and their encoding as numbers, fitted on training patients.

What becomes of a missing value is declared per variable (``feature_store.vocabulary.MissingPolicy``): by default the
median stands in for a number, and the most frequent value for anything else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.errors import FeaturesMissing, SettingsError
from feature_store.vocabulary import MissingPolicy

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

MAX_LEVELS = 20
RARE_LEVEL = 5
"""A category with fewer patients is counted with the reference category; so few missing values get no column."""
MISSING = "(missing)"
"""A term ``bmi=(missing)`` is 1 for who lacks it."""
REQUIRING: tuple[MissingPolicy, ...] = ("complete", "refuse")
MARKING = ("indicator", "category")
FITS: dict[str, tuple[MissingPolicy, ...]] = {
    "numeric": ("median", "most_frequent", "indicator", *REQUIRING),
    "binary": ("most_frequent", "indicator", "category", *REQUIRING),
    "categorical": ("most_frequent", "indicator", "category", *REQUIRING),
}
"""Policies that a variable of each kind can have; the first is the default."""


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
    """``values[name]``: one read value a patient, in the order of the patients.

    ``policies``: of missing values, by variable, where another than the default was declared.
    """

    variables: tuple[ClinicalVariable, ...]
    values: Mapping[str, tuple[float | str | None, ...]]
    unused: tuple[str, ...] = ()
    policies: Mapping[str, MissingPolicy] = field(default_factory=dict)

    @classmethod
    def from_frame(
        cls, frame: pd.DataFrame, training: Ints, policies: Mapping[str, MissingPolicy] | None = None
    ) -> ClinicalColumns:
        """Reads a table; which kind a column has is decided by its training rows alone.

        ``unused``: columns with one value only, or text with more than 20 categories or none that two patients share.
        SettingsError where a policy makes no sense for the kind of its variable.
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
        declared = dict(policies or {})
        for variable in variables:
            if (policy := declared.get(variable.name)) is not None and policy not in FITS[variable.kind]:
                raise SettingsError(
                    f"Missing values of {variable.name}, which is {variable.kind}, cannot be treated as {policy}.",
                    action=f"Take {', '.join(FITS[variable.kind])}.",
                )
        return cls(tuple(variables), values, tuple(unused), declared)

    def policy(self, variable: ClinicalVariable) -> MissingPolicy:
        """What was declared, or the default of its kind."""
        return self.policies.get(variable.name, FITS[variable.kind][0])

    @property
    def required(self) -> tuple[ClinicalVariable, ...]:
        """Variables that nobody may lack, whether they vary among the training patients or not."""
        known = {variable.name: variable for variable in self.variables}
        names = [name for name, policy in self.policies.items() if policy in REQUIRING]
        return tuple(known.get(name, ClinicalVariable(name, "categorical")) for name in sorted(names))

    def take(self, rows: Ints) -> ClinicalColumns:
        values = {name: tuple(column[i] for i in rows) for name, column in self.values.items()}
        return ClinicalColumns(self.variables, values, self.unused, self.policies)


@dataclass(frozen=True)
class EncodedVariable:
    """``fill`` stands in for a missing value: median, or most frequent. ``levels``: categories with a term each.

    Any other category, also one never seen, counts with the reference: the most frequent one. ``marked``: missing
    has a term of its own; beside it the fill stands in for a missing number, and the reference for a category.
    """

    variable: ClinicalVariable
    fill: float | str
    levels: tuple[str, ...] = ()
    marked: bool = False

    @property
    def terms(self) -> tuple[str, ...]:
        name = self.variable.name
        own = tuple(f"{name}={level}" for level in self.levels) if self.variable.kind == "categorical" else (name,)
        return (*own, f"{name}={MISSING}") if self.marked else own

    def encode(self, value: float | str | None) -> list[float]:
        """The value's terms."""
        known = self.fill if value is None else value
        if self.variable.kind == "categorical":
            own = [1.0 if known == level else 0.0 for level in self.levels]
        elif self.variable.kind == "binary":
            own = [1.0 if known == self.variable.high else 0.0]
        else:
            own = [float(known)]
        return [*own, 1.0 if value is None else 0.0] if self.marked else own

    def typical(self) -> list[float]:
        """The terms of a training patient as there are most, of whom the value is known."""
        return self.encode(self.fill)


@dataclass(frozen=True)
class ClinicalEncoder:
    """Fitted on training patients; one patient equals many.

    ``required``: variables without which a patient gets no answer, encoded here or not, for nobody lacked them when
    the model was made and judged.
    """

    encoded: tuple[EncodedVariable, ...]
    required: tuple[ClinicalVariable, ...] = ()

    @classmethod
    def fit(cls, columns: ClinicalColumns, rows: Ints) -> ClinicalEncoder:
        encoded = (_encoded(v, columns.policy(v), [columns.values[v.name][i] for i in rows]) for v in columns.variables)
        return cls(tuple(encoded), columns.required)

    @property
    def names(self) -> tuple[str, ...]:
        """Variables that are asked for."""
        return tuple(dict.fromkeys([*(e.variable.name for e in self.encoded), *(v.name for v in self.required)]))

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
        return ClinicalEncoder(tuple(e for e in self.encoded if e.variable.name in names), self.required)

    def transform(self, columns: ClinicalColumns, rows: Ints) -> Floats:
        """Encoding (len(rows), number of terms)."""
        table = [[t for e in self.encoded for t in e.encode(columns.values[e.variable.name][i])] for i in rows]
        return np.array(table, dtype=np.float64).reshape(len(rows), len(self.terms))

    def encode(self, values: Mapping[str, Any]) -> Floats:
        """Encoding (number of terms,) of one patient's raw values; a variable not there counts as missing.

        FeaturesMissing where a required one is missing.
        """
        lacking = [v.name for v in self.required if v.read(values.get(v.name)) is None]
        if lacking:
            raise FeaturesMissing(
                f"The patient has no {', '.join(lacking)}; this signature knows nobody without.",
                action="Send it with the case's clinical variables (`asdeg clinical`), then ask again.",
            )
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


def _encoded(
    variable: ClinicalVariable, policy: MissingPolicy, values: Sequence[float | str | None]
) -> EncodedVariable:
    present = [value for value in values if value is not None]
    # A term that hardly anybody has would be fitted on them alone.
    marked = policy in MARKING and len(values) - len(present) >= RARE_LEVEL
    if variable.kind == "numeric" and policy != "most_frequent":
        numbers = [float(value) for value in present]
        return EncodedVariable(variable, float(np.median(numbers)) if numbers else 0.0, marked=marked)
    counts = Counter(present)
    # Of equally frequent ones the first by name or value, so that the order of patients decides nothing.
    order = sorted(counts, key=lambda value: (-counts[value], value))
    nobody: dict[str, float | str] = {"numeric": 0.0, "binary": variable.low, "categorical": ""}
    fill = order[0] if order else nobody[variable.kind]
    levels = tuple(sorted(str(level) for level in order[1:] if counts[level] >= RARE_LEVEL))
    return EncodedVariable(variable, fill, levels if variable.kind == "categorical" else (), marked)
