"""Study tables whose risks and effects are known: sparse effects in correlated blocks, and a logistic outcome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.study_tables import StudyTables

BLOCK = 10
"""Columns that share a hidden factor."""
WITHIN = 0.7
"""Correlation of two columns of a block."""
FACTORS = 4
"""Hidden factors behind the embeddings; the first carries an effect."""


@dataclass(frozen=True)
class KnownTruth:
    """``tables`` of the study; ``risk`` (n,) of each patient; ``causal``: radiomics columns that decide it."""

    tables: StudyTables
    risk: NDArray[np.float64]
    causal: tuple[str, ...]


def known_truth(
    n_training: int,
    n_external: int,
    *,
    columns: int = 100,
    causal: int = 5,
    deep: int = 32,
    effect: float = 0.7,
    prevalence: float = 0.4,
    seed: int = 0,
) -> KnownTruth:
    """Log-odds = ± ``effect`` × the first column of each of the first ``causal`` blocks, the first deep factor and age.

    All predictors are standard normal; the outcome is drawn from the risk, so that a perfect model has a calibration
    slope of 1. ``deep`` 0 leaves embeddings and age out.
    """
    rng = np.random.default_rng(seed)
    n = n_training + n_external
    factor = rng.normal(size=(n, -(-columns // BLOCK)))
    x = np.sqrt(WITHIN) * np.repeat(factor, BLOCK, axis=1)[:, :columns]
    x += np.sqrt(1 - WITHIN) * rng.normal(size=x.shape)
    told = np.arange(causal) * BLOCK
    log_odds = np.log(prevalence / (1 - prevalence)) + x[:, told] @ (effect * (-1.0) ** np.arange(causal))
    hidden, age = rng.normal(size=(n, FACTORS)), rng.normal(size=n)
    embeddings = hidden @ rng.normal(size=(FACTORS, deep)) / np.sqrt(FACTORS) + 0.5 * rng.normal(size=(n, deep))
    if deep:
        log_odds = log_odds + effect * (hidden[:, 0] + age)
    risk = 1 / (1 + np.exp(-log_odds))
    names = [f"t2_sag.vertebral_body.all.f{i:04d}" for i in range(columns)]
    patients = pd.DataFrame(
        {
            "patient_id": [f"PHANTOM-{i:06d}" for i in range(n)],
            "site": np.where(np.arange(n) < n_training, "inside", "outside"),
            "partition": np.where(np.arange(n) < n_training, "training", "external_test"),
            "outcome": (rng.random(n) < risk).astype(np.int64),
        }
    )
    tables = StudyTables(
        patients,
        radiomics=pd.DataFrame(x, columns=names),
        deep=pd.DataFrame(embeddings, columns=[f"ct.vertebral_body.all.e{i:03d}" for i in range(deep)])
        if deep
        else None,
        clinical=pd.DataFrame({"age": 60 + 10 * age}) if deep else None,
    )
    return KnownTruth(tables, risk, tuple(names[i] for i in told))
