"""Incident degeneration beside the paper's label: the same risks against what was not there before surgery."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from feature_store.vocabulary import Partition
from models.evaluation.auc import auc, delong_ci
from models.folds import rarer_class
from models.performance import HELD_OUT


def incident_record(incident: pd.Series | None, predictions: pd.DataFrame, kinds: list[str]) -> list[dict[str, Any]]:
    """A row a signature and cohort; empty where nothing is known of incident degeneration.

    ``incident`` (n,; 1, 0 or missing) in the order of ``predictions``: 1 for degeneration that was not there before
    surgery. ``n_unknown``: patients of whom it is not known, for example since everything was there before.
    Signatures were fitted to the paper's label; nothing is fitted to this one.
    """
    if incident is None or incident.isna().all():
        return []
    known = incident.notna().to_numpy()
    rows = []
    for kind in kinds:
        for cohort in (Partition.TRAINING.value, *HELD_OUT):
            members = ((predictions["partition"] == cohort) & predictions[kind].notna()).to_numpy()
            if not members.any():
                continue
            y = incident[members & known].to_numpy(dtype=np.int64)
            p = predictions.loc[members & known, kind].to_numpy(dtype=np.float64)
            both = rarer_class(y) > 0
            rows.append(
                {
                    "signature": kind,
                    "cohort": cohort,
                    "n": len(y),
                    "events": int(y.sum()),
                    "n_unknown": int((members & ~known).sum()),
                    "auc": auc(y, p) if both else None,
                    "auc_ci": list(delong_ci(y, p)) if both else None,
                }
            )
    return rows
