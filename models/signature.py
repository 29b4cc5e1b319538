"""A signature: selector, estimator, scale, calibration and threshold, which turn a patient's features into a risk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.errors import FeaturesMissing
from models.classifiers import Configuration, fast_score, raw_score
from models.risk_interval import Bootstrapped, Interval, Known, asked_for, interval_of
from models.scale import Scale, probability
from models.scanners import Harmonisation
from models.selection.selector import Selector

Floats = NDArray[np.float64]

N_MOVERS = 5
MAX_MISSING = 0.5
"""A patient with more than this share of a signature's features missing gets no score."""


@dataclass(frozen=True)
class ScoreResult:
    """``moved_by``: the features that moved the risk most, largest first: {"name", "value", "effect"}.

    ``effect`` is the log-odds with the feature as it is minus the log-odds with it at its training median.
    ``risk_interval``: the uncertainty of the risk, as ``models.risk_interval``; None without bootstraps.
    """

    probability: float
    high_risk: bool
    threshold: float
    moved_by: list[dict[str, Any]]
    risk_interval: Interval | None = None


@dataclass(frozen=True)
class Head:
    """From a classifier's input to a probability.

    ``scale``: raw score to log-odds beyond the prevalence, comparable between models of different folds and
    the input of a stacked model; ``calibration``: from there to calibrated log-odds. High-risk is probability
    >= ``threshold`` (Youden's); ``harm_threshold`` is the declared one.
    """

    configuration: Configuration
    estimator: Any
    scale: Scale
    calibration: Scale
    threshold: float
    harm_threshold: float

    def logit(self, x: Floats) -> Floats:
        """Log-odds beyond the prevalence (n,) of inputs (n, d); one patient equals many, to the bit."""
        return self.scale(raw_score(self.configuration.classifier, self.estimator, x))

    def fast_logit(self, x: Floats) -> Floats:
        """As :meth:`logit` up to the last bit, for many rows at once (importance, occlusion)."""
        return self.scale(fast_score(self.configuration.classifier, self.estimator, x))

    def probability(self, logits: Floats) -> Floats:
        return probability(self.calibration(logits))


class AnySignature(Bootstrapped, Protocol):
    """What Rad-sign, DL-sign and the combined model all offer."""

    @property
    def kind(self) -> str: ...

    @property
    def head(self) -> Head: ...

    @property
    def bootstraps(self) -> Sequence[AnySignature]: ...

    def score(self, features: Mapping[str, Any]) -> ScoreResult: ...

    def logits(self, table: pd.DataFrame) -> Floats: ...

    def probabilities(self, table: pd.DataFrame) -> Floats: ...


@dataclass(frozen=True)
class Signature:
    """Rad-sign (``rad``) or DL-sign (``dl``). ``harmoniser``: of the selector's columns, in front of it.

    ``bootstraps``: the same refitted on patients drawn with replacement.
    """

    kind: str
    selector: Selector
    head: Head
    harmoniser: Harmonisation | None = None
    bootstraps: tuple[Signature, ...] = ()

    @property
    def features(self) -> list[str]:
        return [*self.selector.columns, *self.scanners]

    @cached_property
    def asked(self) -> list[str]:
        return asked_for(self)

    @property
    def scanners(self) -> list[str]:
        """Which scanners have to be known: ``scanner:ct`` and so on, or ``scanner``."""
        return [] if self.harmoniser is None else self.harmoniser.features

    def patient(self, features: Mapping[str, Any]) -> tuple[Floats, Floats]:
        """One patient's values (p,) as they are and harmonised. FeaturesMissing as in :meth:`score`."""
        x = as_numbers(features, self.selector.columns)
        check_present(x, self.kind)
        return x, self.harmonised(x[None, :], {name: [str(features.get(name))] for name in self.scanners})[0]

    def harmonised(self, x: Floats, scanners: Mapping[str, Sequence[str] | NDArray[np.str_]]) -> Floats:
        """Values (n, p) of patients; ``scanners``: a name a patient (n,) for each of :attr:`scanners`."""
        return x if self.harmoniser is None else self.harmoniser.apply(x, scanners)

    def score(self, features: Mapping[str, Any]) -> ScoreResult:
        """Risk of one patient. FeaturesMissing where names are not there, or more than half of the values missing."""
        raw, x = self.patient(features)
        logit = self.logits_of(x[None, :])
        effects = (logit - self.head.fast_logit(self.selector.without_each(x))) * self.head.calibration.slope
        return result(self.head, logit, self.selector.columns, list(raw), effects, interval_of(self, features))

    @property
    def not_numbers(self) -> list[str]:
        return self.scanners

    def logits_if_known(self, known: Known) -> Floats:
        raw = known.numbers(self.selector.columns)
        x = self.harmonised(raw, {name: known.texts(name) for name in self.scanners})
        return np.where(_too_few(raw), np.nan, self.logits_of(x))

    def logits_of(self, x: Floats) -> Floats:
        """Log-odds beyond the prevalence (n,) of (harmonised) values (n, p) in the order of the selector's columns."""
        return self.head.logit(self.selector.transform(x))

    def logits(self, table: pd.DataFrame) -> Floats:
        """Log-odds beyond the prevalence, one a row; missing values count as the training median."""
        return self.logits_of(self.of_table(table))

    def of_table(self, table: pd.DataFrame) -> Floats:
        """Values (n, p) of a table with one row a patient, harmonised by its columns of scanners."""
        x = table_values(table, self.selector.columns)
        nobody = pd.Series([""] * len(table))
        return self.harmonised(x, {name: table.get(name, nobody).astype(str).tolist() for name in self.scanners})

    def probabilities(self, table: pd.DataFrame) -> Floats:
        """Calibrated risks (n,) of a table with one row a patient."""
        return self.head.probability(self.logits(table))


def table_values(table: pd.DataFrame, names: Sequence[str]) -> Floats:
    """Columns of a table as float64 (n, p). FeaturesMissing where one is not there."""
    absent = [name for name in names if name not in table.columns]
    _raise_absent(absent, len(names))
    return np.ascontiguousarray(table[list(names)].to_numpy(dtype=np.float64))


def as_numbers(features: Mapping[str, Any], names: Sequence[str]) -> Floats:
    """Values (p,) of a mapping, NaN where None. FeaturesMissing where a name is not there at all."""
    absent = [name for name in names if name not in features]
    _raise_absent(absent, len(names))
    values = [features[name] for name in names]
    return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)


def check_present(x: Floats, kind: str) -> None:
    """FeaturesMissing where too many of one patient's values are missing to call the rest a measurement."""
    if _too_few(x[None, :])[0]:
        raise FeaturesMissing(
            f"{np.count_nonzero(~np.isfinite(x))} of {len(x)} features of the {kind} signature are missing.",
            action="Push the sequences and masks they come from, and extract.",
        )


def _too_few(x: Floats) -> NDArray[np.bool_]:
    """Which of the patients (n,) have too few of these values (n, p)."""
    return np.asarray((~np.isfinite(x)).sum(axis=1) > MAX_MISSING * x.shape[1])


def result(
    head: Head,
    logit: Floats,
    names: Sequence[str],
    values: Sequence[Any],
    effects: Floats,
    risk_interval: Interval | None = None,
) -> ScoreResult:
    """The answer for one patient, from its log-odds (1,) and the effect of each input."""
    risk = float(head.probability(logit)[0])
    order = np.argsort(-np.abs(effects), kind="stable")[:N_MOVERS]
    moved = [{"name": names[i], "value": _plain(values[i]), "effect": float(effects[i])} for i in order]
    return ScoreResult(risk, risk >= head.threshold, head.threshold, moved, risk_interval)


def _plain(value: Any) -> float | str | None:
    if value is None or isinstance(value, str):
        return value
    return float(value) if math.isfinite(value) else None


def _raise_absent(absent: Sequence[str], needed: int) -> None:
    if absent:
        raise FeaturesMissing(
            f"{len(absent)} of {needed} features are not there, the first is {absent[0]}.",
            action="Extract the feature sets and sequences the signature was trained on.",
        )
