"""Which clinical variables matter: univariable, then multivariable logistic regression, as in the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.clinical_columns import ClinicalColumns, ClinicalEncoder
from models.logistic import LogisticFit, fit_logistic, independent_columns

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Outcome = NDArray[np.int64]


@dataclass(frozen=True)
class ClinicalSelection:
    """``encoder``: of the selected variables only. ``table``: one row a term, as metrics.json has it."""

    encoder: ClinicalEncoder
    selected: tuple[str, ...]
    table: list[dict[str, Any]]


def select_clinical(columns: ClinicalColumns, rows: Ints, y: Outcome, alpha: float = 0.05) -> ClinicalSelection:
    """Fits on the patients ``rows`` with outcomes ``y`` (len(rows),).

    Variables with p < ``alpha`` alone enter one multivariable model; those with p < ``alpha`` in it are
    selected (Wald tests; a categorical variable is tested as a whole, and enters as a whole). The table shows
    the multivariable odds ratio where a variable entered that model and the univariable one elsewhere. A
    numeric variable's odds ratio is per unit. ``univariable`` has the figures of each term alone beside it. Where
    the outcomes are separated, Firth's penalised likelihood.
    """
    encoder = ClinicalEncoder.fit(columns, rows)
    x = encoder.transform(columns, rows)
    indices = encoder.term_indices()
    univariable = {name: _model(x, terms, y) for name, terms in indices.items()}
    p_alone = {name: _p(univariable[name], terms) for name, terms in indices.items()}
    entered = [name for name in indices if (p := p_alone[name]) is not None and p < alpha]
    together = _model(x, [term for name in entered for term in indices[name]], y)
    p_together = {name: _p(together, indices[name]) for name in entered}
    selected = tuple(name for name in entered if (p := p_together[name]) is not None and p < alpha)
    table = []
    for name, terms in indices.items():
        model, label = (together, "multivariable") if name in entered else (univariable[name], "univariable")
        for term in terms:
            shown = {**_row(encoder.terms[term], model, term), "selected": name in selected, "model": label}
            alone = _row(encoder.terms[term], univariable[name], term)
            table.append({**shown, "univariable": {key: alone[key] for key in ("odds_ratio", "ci", "p")}})
    return ClinicalSelection(encoder.only(selected), selected, table)


@dataclass(frozen=True)
class _Model:
    fit: LogisticFit
    position: dict[int, int]
    """Term -> its place in the fit; terms that do not vary, or follow from others, have none."""


def _model(x: Floats, terms: list[int], y: Outcome) -> _Model | None:
    kept = [terms[i] for i in independent_columns(x[:, terms])] if terms else []
    if not kept:
        return None
    return _Model(fit_logistic(x[:, kept], y), {term: i for i, term in enumerate(kept)})


def _p(model: _Model | None, terms: list[int]) -> float | None:
    places = [model.position[term] for term in terms if term in model.position] if model else []
    return model.fit.p_value(places) if model and places else None


def _row(variable: str, model: _Model | None, term: int) -> dict[str, Any]:
    if model is None or term not in model.position:
        return {"variable": variable, "odds_ratio": None, "ci": None, "p": None}
    place = model.position[term]
    with np.errstate(over="ignore"):
        ratio, low, high = np.exp([model.fit.coefficients[place], *model.fit.interval(place)])
    finite = bool(np.isfinite([ratio, low, high]).all())
    return {
        "variable": variable,
        "odds_ratio": float(ratio) if finite else None,
        "ci": [float(low), float(high)] if finite else None,
        "p": model.fit.p_value([place]),
    }
