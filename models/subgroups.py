"""Do the signatures hold in every kind of patient: by sex, age, diagnosis and whatever else the clinical table has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.vocabulary import Partition
from models.clinical_columns import ClinicalColumns, ClinicalVariable
from models.evaluation.auc import auc, delong_ci
from models.evaluation.cohort_metrics import FEWEST, beside_auc
from models.evaluation.proportions import wilson
from models.folds import rarer_class
from models.performance import HELD_OUT, outcome_and

Members = NDArray[np.bool_]


def subgroups(
    clinical: ClinicalColumns | None, predictions: pd.DataFrame, thresholds: Mapping[str, float]
) -> list[dict[str, Any]]:
    """A row a subgroup, cohort and signature, fit for JSON.

    ``cohort`` is ``held_out`` (internal validation and external test together, since subgroups are small) or
    ``training`` (nested out-of-fold). Numbers are divided at their training median; a missing value belongs to no
    subgroup. ``auc`` with interval and what stands beside it (net benefit at the signature's of ``thresholds``), None
    where fewer than five patients have the rarer outcome; ``observed`` beside ``predicted`` risk. Nothing is tested:
    with so many subgroups some differ by chance.
    """
    if clinical is None:
        return []
    partition = predictions["partition"].to_numpy(dtype=str)
    training = partition == Partition.TRAINING.value
    rows = []
    for variable, level, members in _groups(clinical, training):
        for cohort, inside in (("held_out", np.isin(partition, HELD_OUT)), ("training", training)):
            for kind, threshold in thresholds.items():
                table = predictions[members & inside].dropna(subset=[kind])
                if len(table):
                    y, p = outcome_and(table, kind)
                    rows.append(
                        {
                            "variable": variable,
                            "level": level,
                            "cohort": cohort,
                            "signature": kind,
                            **_of(y, p, threshold),
                        }
                    )
    return rows


def _of(y: NDArray[np.int64], p: NDArray[np.float64], threshold: float) -> dict[str, Any]:
    events = int(y.sum())
    enough = rarer_class(y) >= FEWEST
    return {
        "n": len(y),
        "events": events,
        "auc": auc(y, p) if enough else None,
        "auc_ci": list(delong_ci(y, p)) if enough else None,
        "observed": events / len(y),
        "observed_ci": list(wilson(events, len(y))),
        "predicted": float(p.mean()),
        **beside_auc(y, p, threshold),
    }


def _groups(clinical: ClinicalColumns, training: Members) -> Iterator[tuple[str, str, Members]]:
    for variable in clinical.variables:
        values = clinical.values[variable.name]
        if variable.kind == "numeric":
            yield from _halves(variable, values, training)
        else:
            for level in sorted({value for value in values if value is not None}, key=str):
                name = level if isinstance(level, str) else f"{level:g}"
                yield variable.name, name, np.array([value == level for value in values], dtype=np.bool_)


def _halves(
    variable: ClinicalVariable, values: Sequence[float | str | None], training: Members
) -> Iterator[tuple[str, str, Members]]:
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    known = numbers[training & ~np.isnan(numbers)]
    if known.size:
        cut = float(np.median(known))
        yield variable.name, f"≤ {cut:.4g}", numbers <= cut
        yield variable.name, f"> {cut:.4g}", numbers > cut
