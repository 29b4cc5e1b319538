"""Features that come out the same when a region is segmented again: intraclass correlation (paper, "Segmentation")."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.vocabulary import PRIMARY_SEGMENTATION, Partition
from models.study_tables import StudyTables

Floats = NDArray[np.float64]
KEYS = ("patient_id", "site", "segmentation")
MIN_PATIENTS = 5


def icc_2_1(values: Floats) -> Floats:
    """ICC(2,1), two-way random effects, absolute agreement, single rater (Shrout and Fleiss 1979).

    ``values`` (patients, raters, features) without missing values; returns (features,), NaN where nothing varies.
    """
    n, k, _ = values.shape
    grand = values.mean(axis=(0, 1))
    of_patients = k * ((values.mean(axis=1) - grand) ** 2).sum(axis=0) / (n - 1)
    of_raters = n * ((values.mean(axis=0) - grand) ** 2).sum(axis=0) / (k - 1)
    residual = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + grand
    error = (residual**2).sum(axis=(0, 1)) / ((n - 1) * (k - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((of_patients - error) / (of_patients + (k - 1) * error + k * (of_raters - error) / n))


def repeatable(study: StudyTables, cutoff: float) -> tuple[pd.DataFrame | None, list[str]]:
    """The radiomics table less the columns whose ICC(2,1) lies under ``cutoff``, and a sentence on it.

    Only training patients' repeats count, and no outcome, so that the filter needs no refit inside folds.
    Raters are the segmentations in ``repeats``, or these and the study's own where there is only one.
    """
    if study.repeats is None or study.radiomics is None:
        return study.radiomics, []
    table = study.radiomics.set_axis([str(c) for c in study.radiomics.columns], axis=1)
    names = [str(c) for c in study.repeats.columns if c not in KEYS and str(c) in table.columns]
    raters = _raters(study, table, names)
    together = sorted(set.intersection(*(set(r.index) for r in raters))) if len(raters) > 1 else []
    if not names or len(together) < MIN_PATIENTS:
        return table, [
            f"Repeatability was not judged: {len(together)} training patients have repeated segmentations of "
            f"{len(names)} shared features; at least {MIN_PATIENTS} are needed."
        ]
    values = np.stack([rater.loc[together, names].to_numpy(dtype=np.float64) for rater in raters], axis=1)
    with np.errstate(invalid="ignore"):
        poor = {name for name, icc in zip(names, icc_2_1(values), strict=True) if not icc >= cutoff}
    note = (
        f"{len(poor)} of {len(names)} features had an ICC(2,1) under {cutoff:g} in {len(together)} training patients "
        "segmented again, and are left out."
    )
    return table[[name for name in table.columns if name not in poor]], [note]


def _raters(study: StudyTables, table: pd.DataFrame, names: list[str]) -> list[pd.DataFrame]:
    """One frame a rater, indexed by patient, training patients only."""
    assert study.repeats is not None
    keys = ["site", "patient_id"] if "site" in study.repeats.columns else ["patient_id"]
    training = study.rows(Partition.TRAINING)
    own = table.iloc[training].set_axis(_ids(study.patients.iloc[training], keys), axis=0)
    segmentation = study.repeats["segmentation"].astype(str).to_numpy()
    found = []
    for name in sorted(set(segmentation)):
        rows = study.repeats.loc[segmentation == name]
        rater = rows[names].set_axis(_ids(rows, keys), axis=0)
        found.append(rater.loc[~rater.index.duplicated() & rater.index.isin(own.index)])
    return found if len(found) > 1 or PRIMARY_SEGMENTATION in segmentation else [own[names], *found]


def _ids(table: pd.DataFrame, keys: list[str]) -> list[str]:
    return ["\n".join(row) for row in zip(*(table[key].astype(str) for key in keys), strict=True)]
