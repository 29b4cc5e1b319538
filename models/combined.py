"""The combined model: Rad-sign and DL-sign as log-odds, with the clinical variables that matter (paper, Fig. 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.clinical import select_clinical
from models.clinical_columns import ClinicalColumns, ClinicalEncoder
from models.risk_interval import Known, asked_for, interval_of
from models.signature import Head, ScoreResult, Signature, result

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Outcome = NDArray[np.int64]

SIGN_NAMES = {"rad": "rad-sign", "dl": "dl-sign"}


@dataclass(frozen=True)
class Stack:
    """Inputs of the combined model: signs (as log-odds), then the selected clinical terms; z-scored.

    ``centre``: training medians of the inputs, ``mean`` and ``sd`` their z-scores, all (d,).
    """

    signs: tuple[str, ...]
    encoder: ClinicalEncoder
    centre: Floats
    mean: Floats
    sd: Floats

    @property
    def names(self) -> tuple[str, ...]:
        return (*(SIGN_NAMES[sign] for sign in self.signs), *self.encoder.terms)

    def apply(self, x: Floats) -> Floats:
        return np.asarray((x - self.mean) / self.sd, dtype=np.float64)


@dataclass(frozen=True)
class StackSource:
    """Where a combined model's fits get their inputs: ``signs`` (n, k) out of fold, clinical selection per fit."""

    names: tuple[str, ...]
    signs: Floats
    clinical: ClinicalColumns | None
    alpha: float

    def fit(self, rows: Ints, y: Outcome) -> Stack:
        encoder = ClinicalEncoder(())
        if self.clinical is not None:
            encoder = select_clinical(self.clinical, rows, y[rows], self.alpha).encoder
        x = self.raw(encoder, rows)
        sd = x.std(axis=0)
        return Stack(self.names, encoder, np.median(x, axis=0), x.mean(axis=0), np.where(sd > 0, sd, 1.0))

    def raw(self, encoder: ClinicalEncoder, rows: Ints) -> Floats:
        if self.clinical is None:
            return self.signs[rows]
        return np.hstack([self.signs[rows], encoder.transform(self.clinical, rows)])

    def inputs(self, fit_rows: Ints, score_rows: Ints, y: Outcome, seed: int) -> tuple[Floats, Floats]:
        stack = self.fit(fit_rows, y)
        return stack.apply(self.raw(stack.encoder, fit_rows)), stack.apply(self.raw(stack.encoder, score_rows))


@dataclass(frozen=True)
class CombinedSignature:
    """Holds the signatures it is stacked on (``signs``, by kind).

    ``bootstraps``: the same refitted on patients drawn with replacement; one is stacked on the bootstraps of its signs
    that were fitted on the same draw.
    """

    signs: dict[str, Signature]
    stack: Stack
    head: Head
    kind: str = "combined"
    bootstraps: tuple[CombinedSignature, ...] = ()

    @property
    def features(self) -> list[str]:
        """Everything its signs need, then its clinical variables."""
        of_signs = [name for sign in self.members for name in sign.features]
        return [*dict.fromkeys(of_signs), *self.clinical_variables]

    @cached_property
    def asked(self) -> list[str]:
        return asked_for(self)

    @property
    def members(self) -> list[Signature]:
        """Its signs, in the order of its inputs."""
        return [self.signs[kind] for kind in self.stack.signs]

    @property
    def clinical_variables(self) -> list[str]:
        """Those it rests on, and those it refuses to go without."""
        return list(self.stack.encoder.names)

    def score(self, features: Mapping[str, Any]) -> ScoreResult:
        """Risk of one patient; a missing clinical variable is treated as its policy says.

        FeaturesMissing as of its signs, and where a variable is missing that nobody may lack.
        """
        signs = []
        for sign in self.members:
            signs.append(sign.logits_of(sign.patient(features)[1][None, :]))
        raw = np.concatenate([*signs, self.stack.encoder.encode(features)])
        logit = self.head.logit(self.stack.apply(raw[None, :]))
        names, values, without = self._occluded(features, raw)
        effects = (logit - self.head.fast_logit(self.stack.apply(without))) * self.head.calibration.slope
        return result(self.head, logit, names, values, effects, interval_of(self, features))

    def logits(self, table: pd.DataFrame) -> Floats:
        """Log-odds beyond the prevalence, one a row of a table with all :attr:`features`; raises as :meth:`score`."""
        signs = np.column_stack([s.logits(table) for s in self.members])
        clinical = table.reindex(columns=self.clinical_variables).astype(object).to_dict(orient="records")
        return self._stacked(signs, [{str(k): v for k, v in row.items()} for row in clinical])

    def probabilities(self, table: pd.DataFrame) -> Floats:
        """Calibrated risks (n,) of a table with one row a patient."""
        return self.head.probability(self.logits(table))

    @property
    def not_numbers(self) -> list[str]:
        return [*(name for sign in self.members for name in sign.scanners), *self.clinical_variables]

    def logits_if_known(self, known: Known) -> Floats:
        signs = np.column_stack([sign.logits_if_known(known) for sign in self.members])
        logits = self._stacked(np.nan_to_num(signs), known.rows)
        return np.where(np.isnan(signs).any(axis=1), np.nan, logits)

    def _stacked(self, signs: Floats, rows: Sequence[Mapping[str, Any]]) -> Floats:
        """Log-odds (n,) of patients from their signs (n, k) and clinical variables."""
        terms = np.array([self.stack.encoder.encode(row) for row in rows])
        raw = np.hstack([signs, terms.reshape(len(rows), len(self.stack.encoder.terms))])
        return self.head.logit(self.stack.apply(raw))

    def _occluded(self, features: Mapping[str, Any], raw: Floats) -> tuple[list[str], list[Any], Floats]:
        """Inputs by name, their values, and the raw inputs (m, d) with one of them at a time at its training median."""
        names: list[str] = []
        values: list[Any] = []
        rows: list[Floats] = []
        indices = {name: [place] for place, name in enumerate(self.stack.names[: len(self.members)])}
        for name, terms in self.stack.encoder.term_indices().items():
            indices[name] = [len(self.members) + term for term in terms]
        fills = {e.variable.name: e.typical() for e in self.stack.encoder.encoded}
        reads = {e.variable.name: e.variable.read(features.get(e.variable.name)) for e in self.stack.encoder.encoded}
        for name, places in indices.items():
            row = raw.copy()
            row[places] = fills.get(name, self.stack.centre[places])
            names.append(name)
            values.append(reads[name] if name in reads else raw[places[0]])
            rows.append(row)
        return names, values, np.array(rows)
