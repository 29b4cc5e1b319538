"""Small made-up study tables with a stated effect."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from models.study_settings import StudySettings
from models.study_tables import StudyTables


def small_tables(
    n: int = 80, seed: int = 0, effect: float = 1.5, p: int = 40, q: int = 24, clinical: bool = True
) -> StudyTables:
    """``n`` patients of two sites (60 % training), ``p`` radiomics, ``q`` deep columns; three of each matter."""
    rng = np.random.default_rng(seed)
    outcome = rng.permutation(np.arange(n) % 5 < 2).astype(np.int64)
    radiomics = rng.normal(size=(n, p))
    radiomics[:, :3] += effect * outcome[:, None]
    radiomics[:, 3] = np.exp(3 * radiomics[:, 3])  # a heavy tail
    deep = rng.normal(size=(n, q)) + rng.normal(size=(n, 2)) @ rng.normal(size=(2, q))
    deep[:, :3] += effect * outcome[:, None]
    partition = np.where(
        np.arange(n) < 0.6 * n, "training", np.where(np.arange(n) < 0.8 * n, "internal_validation", "")
    )
    partition = np.where(partition == "", "external_test", partition)
    variables = pd.DataFrame(
        {
            "age": rng.normal(60, 9, n) + 9 * effect * outcome,
            "sex": rng.choice(["female", "male"], n),
            "osteoporosis": rng.integers(0, 2, n),
        }
    )
    return StudyTables(
        pd.DataFrame(
            {
                "patient_id": [f"p{i:03d}" for i in range(n)],
                "site": np.where(np.arange(n) % 3 == 0, "b", "a"),
                "partition": partition,
                "outcome": outcome,
            }
        ),
        radiomics=pd.DataFrame(radiomics, columns=[f"ct.vertebral_body.all.f{i:02d}" for i in range(p)]),
        deep=pd.DataFrame(deep, columns=[f"ct.vertebral_body.all.vit_{i:03d}" for i in range(q)]),
        clinical=variables if clinical else None,
    )


def small_settings(**changes: Any) -> StudySettings:
    """Few folds, the quick grid, no permutations, one process."""
    return StudySettings(**{"grid": "quick", "n_folds": 3, "permutations": 0, "n_jobs": 1, **changes})


class MemoryBlobs(dict[str, bytes]):
    """The store's blobs in memory."""

    def put_bytes(self, kind: str, data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        self[name] = data
        return name

    def read_bytes(self, kind: str, name: str) -> bytes:
        return self[name]
