"""A store that has features and outcomes, made without images: enough to select, train, release and score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from feature_store.cohort_settings import CohortSettings
from feature_store.store import FeatureStore
from models.study_settings import StudySettings
from tests.feature_store import examples

RADIOMICS, ENCODER = "study-mr-0a1b2c3d", "vit_small-0a1b2c3d"
NAMES = tuple(f"original_firstorder_F{i}" for i in range(8))
COHORT = CohortSettings(name="tests", external_sites=("b",))
STUDY = StudySettings(grid="quick", permutations=0, n_folds=3, n_jobs=1)


def study_store(folder: Path, patients: int = 30, seed: int = 0, prefix: str = "") -> FeatureStore:
    """``patients`` at site a (home) and half as many at site b (external); the outcome shifts features and age."""
    store = FeatureStore.open(folder, create=True)
    random = np.random.default_rng(seed)
    roi = examples.ROIS[1]
    rows: examples.Rows = {
        "labels": [],
        "feature_sets": [examples.feature_set(RADIOMICS, NAMES)],
        "encoders": [examples.encoder(ENCODER)],
        "radiomics": [],
        "embeddings": [],
    }
    for site, count in (("a", patients), ("b", patients // 2)):
        for number in range(count):
            name, outcome = f"{prefix}{site}{number:03d}", number % 2
            clinical = {"age": 50.0 + 8 * outcome + random.normal(0, 5), "bmi": 25.0, "osteoporosis": bool(number % 3)}
            for table, more in examples.case(name, site, **clinical).items():
                rows.setdefault(table, []).extend(more)
            rows["labels"].append(examples.label(name, outcome, site))
            values = random.normal(0, 1, len(NAMES)) + outcome * np.array([1.5, 1.0, 0, 0, 0, 0, 0, 0])
            rows["radiomics"].append(examples.radiomics(name, values, roi, site, RADIOMICS))
            vector = random.normal(0, 1, 4) + outcome * np.array([1.2, 0, 0, 0])
            rows["embeddings"].append(examples.embedding(name, vector, roi, site, ENCODER))
    receipt = store.push(rows, kind="case", source="tests")
    assert not receipt.rejected, receipt.rejected[:3]
    return store
