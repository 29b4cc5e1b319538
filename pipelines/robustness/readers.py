"""Robustness against who drew the region: features of repeated segmentations, as the store has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from feature_store.errors import FeaturesMissing, NotReady
from feature_store.matrix import read_matrix
from feature_store.vocabulary import PRIMARY_SEGMENTATION
from models.selection.robustness import MIN_SUBJECTS, READERS, robustness_rows
from pipelines.robustness.plan import Population, RobustnessScope


def readers_table(found: Population, scope: RobustnessScope, segmentations: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of kind ``readers``, a region at a time, over the patients who have each of the segmentations.

    ``segmentations``: the raters; none named: all there are beside ``primary``. A single one is held against
    ``primary``. ``scope.patients`` does not matter: nothing is computed anew, so all patients count.

    Raises NotReady where no region has ``MIN_SUBJECTS`` patients with two segmentations and features of both.
    """
    names = list(segmentations) or _repeated(found)
    raters = names if len(names) > 1 else [PRIMARY_SEGMENTATION, *names]
    tables, most = [], 0
    for region in scope.regions() if len(raters) > 1 else ():
        wanted = scope.feature_sets()[region.sequence].id
        try:
            read = [read_matrix(found.view, found.cases, [wanted], [replace(region, segmentation=r)]) for r in raters]
        except FeaturesMissing:
            continue  # no series of this sequence was extracted
        features = read[0].names
        if any(matrix.names != features for matrix in read) or not features:
            continue  # one of the raters never drew this region
        values = np.stack([matrix.values for matrix in read], axis=1)
        drawn = np.isfinite(values).any(axis=2).all(axis=1)
        most = max(most, int(drawn.sum()))
        if drawn.sum() >= MIN_SUBJECTS:
            tables.append(robustness_rows(READERS, features, values[drawn], found.partitions))
    if not tables:
        raise NotReady(
            f"{most} of {len(found.cases)} patients have features of one region under "
            f"{' and '.join(raters) if len(raters) > 1 else 'two segmentations'}; {MIN_SUBJECTS} are needed.",
            action="Send repeated masks with their `segmentation` in case.yaml, ingest and extract them.",
        )
    return pd.concat(tables, ignore_index=True)


def _repeated(found: Population) -> list[str]:
    columns = ["site", "patient_id", "case_id", "segmentation"]
    sites = sorted({case[0] for case in found.cases})
    rows = found.view.table("rois", columns=columns, where={"site": sites}).to_pylist() if sites else []
    cases = set(found.cases)
    there = {row["segmentation"] for row in rows if (row["site"], row["patient_id"], row["case_id"]) in cases}
    return sorted(there - {PRIMARY_SEGMENTATION})
