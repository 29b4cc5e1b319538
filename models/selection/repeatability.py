"""Features that come out the same when a region is segmented again, or is changed a little (paper, "Segmentation").

Both ways end in one filter (:mod:`models.selection.robustness`): repeated segmentations of training patients
are measured here, a table of ``asdeg robustness`` was measured before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from feature_store.errors import FeatureTableError
from feature_store.vocabulary import PRIMARY_SEGMENTATION, Partition
from models.selection.robustness import MIN_SUBJECTS, READERS, TRAINING, RobustnessRule, robust_names, robustness_rows
from models.study_tables import StudyTables

KEYS = ("patient_id", "site", "segmentation")


@dataclass(frozen=True)
class RobustRadiomics:
    """The radiomics table less the columns that are not robust; ``record`` None where nothing was to be judged."""

    table: pd.DataFrame | None
    record: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def robust_radiomics(study: StudyTables, rule: RobustnessRule) -> RobustRadiomics:
    """Applies the rule to what ``study.repeats`` and ``study.robustness`` say; no outcome is looked at.

    Only training patients' repeats count. A table that has both kinds, or repeats beside a table, must be
    passed in each; of ``readers`` the study's own repeats count before the table's rows.
    Raises as :func:`models.selection.robustness.robust_names`.
    """
    if study.radiomics is None or (study.repeats is None and study.robustness is None):
        return RobustRadiomics(study.radiomics)
    radiomics = study.radiomics.set_axis([str(c) for c in study.radiomics.columns], axis=1)
    measured, notes = _measured(study, radiomics)
    tables = [table for table in (measured, study.robustness) if table is not None]
    if not tables:
        return RobustRadiomics(radiomics, None, tuple(notes))
    table = pd.concat(tables, ignore_index=True).drop_duplicates(["feature", "kind"])
    kept, record, more = robust_names(radiomics.columns, table, rule)
    return RobustRadiomics(radiomics[kept], record, (*notes, *more))


def _measured(study: StudyTables, radiomics: pd.DataFrame) -> tuple[pd.DataFrame | None, list[str]]:
    """Robustness of the repeats' columns; None, and a sentence, where too few patients have repeats.

    Raters are the segmentations in ``repeats``, or these and the study's own where there is only one.
    """
    if study.repeats is None:
        return None, []
    names = [str(c) for c in study.repeats.columns if c not in KEYS and str(c) in radiomics.columns]
    raters = _raters(study, radiomics, names)
    together = sorted(set.intersection(*(set(r.index) for r in raters))) if len(raters) > 1 else []
    if not names or len(together) < MIN_SUBJECTS:
        return None, [
            f"Repeatability was not judged: {len(together)} training patients have repeated segmentations of "
            f"{len(names)} shared features; at least {MIN_SUBJECTS} are needed."
        ]
    values = np.stack([rater.loc[together, names].to_numpy(dtype=np.float64) for rater in raters], axis=1)
    return robustness_rows(READERS, names, values, TRAINING), []


def _raters(study: StudyTables, table: pd.DataFrame, names: list[str]) -> list[pd.DataFrame]:
    """One frame a rater, indexed by patient, training patients only. FeatureTableError where ids are ambiguous."""
    assert study.repeats is not None
    keys = ["site", "patient_id"] if "site" in study.repeats.columns else ["patient_id"]
    training = study.rows(Partition.TRAINING)
    own = table.iloc[training].set_axis(_ids(study.patients.iloc[training], keys), axis=0)
    segmentation = study.repeats["segmentation"].astype(str).to_numpy()
    if own.index.duplicated().any():
        raise FeatureTableError(
            "Two sites have patients of the same id, and the repeats have no site.", action="Add the site column."
        )
    if twice := int(study.repeats.duplicated([*keys, "segmentation"]).sum()):
        raise FeatureTableError(
            f"{twice} rows of the repeats are of a patient and segmentation that are there already.",
            action="Give each reading a segmentation of its own.",
        )
    found = []
    for name in sorted(set(segmentation)):
        rows = study.repeats.loc[segmentation == name]
        rater = rows[names].set_axis(_ids(rows, keys), axis=0)
        found.append(rater.loc[rater.index.isin(own.index)])
    return found if len(found) > 1 or PRIMARY_SEGMENTATION in segmentation else [own[names], *found]


def _ids(table: pd.DataFrame, keys: list[str]) -> list[str]:
    return ["\n".join(row) for row in zip(*(table[key].astype(str) for key in keys), strict=True)]
