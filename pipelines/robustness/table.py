"""From features of many versions to one row a feature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from models.selection.robustness import COLUMNS, PERTURBATION, robustness_rows
from pipelines.robustness.versions import RoiValues


@dataclass(frozen=True)
class Measured:
    """``table``: rows of kind ``perturbation``. ``versions``: how many were computed, without the ones as drawn;
    ``refused`` and ``failed``: versions, and whole ROIs, that could not be, by error code."""

    table: pd.DataFrame
    rois: int
    versions: int
    refused: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)


SUMMARY_COLUMNS = ("kind", "images", "family", "features", "at_least_0.75", "at_least_0.90", "median_icc", "median_cv")


def summary(table: pd.DataFrame, icc: str = "icc_2_1") -> list[dict[str, Any]]:
    """A row a kind, image type (original, wavelet, log) and family, and one for all of a kind.

    ``at_least_0.75`` and ``at_least_0.90``: share of the features whose ICC is that or more; a feature without one
    counts as not reaching it. Medians are over the features that have the number.
    """
    parts = table["feature"].str.rpartition(".")[2].str.split("_", n=2)
    table = table.assign(images=parts.str[0].str.partition("-")[0], family=parts.str[1])
    rows = []
    for kind, of_kind in table.groupby("kind", sort=False):
        rows.append({"kind": kind, "images": "all", "family": "all", **_shares(of_kind, icc)})
        for (images, family), group in of_kind.groupby(["images", "family"], sort=False, dropna=False):
            rows.append({"kind": kind, "images": images, "family": family, **_shares(group, icc)})
    return rows


def _shares(group: pd.DataFrame, icc: str) -> dict[str, Any]:
    values = group[icc]
    return {
        "features": len(group),
        "at_least_0.75": float((values >= 0.75).mean()),
        "at_least_0.90": float((values >= 0.90).mean()),
        "median_icc": float(values.median()),
        "median_cv": float(group["cv"].median()),
    }


def perturbation_table(found: Sequence[RoiValues], partitions: str) -> Measured:
    """ICCs and variation over subjects, region by region; the order of ``found`` does not matter.

    The ROI as it was drawn is one of the versions. A subject counts for a feature if it has a number in
    each of them.
    """
    usable = [roi for roi in found if not roi.error]
    tables = []
    for region in sorted({(roi.region, roi.feature_set.id) for roi in usable}):
        of_region = [roi for roi in usable if (roi.region, roi.feature_set.id) == region]
        of_region.sort(key=lambda roi: roi.subject)
        prefix = f"{region[0]}." if region[0] else ""
        names = [prefix + name for name in of_region[0].feature_set.feature_names]
        values = np.stack([roi.values for roi in of_region])
        tables.append(robustness_rows(PERTURBATION, names, values, partitions))
    refused: Counter[str] = sum((roi.refused for roi in usable), Counter())
    return Measured(
        table=pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS)),
        rois=len(usable),
        versions=sum(len(roi.values) - 1 for roi in usable) - refused.total(),
        refused=dict(refused),
        failed=dict(Counter(roi.error for roi in found if roi.error)),
    )
