"""The uncertainty of one patient's risk: what refits of the whole protocol on redrawn patients say of the same patient.

A percentile interval (Efron and Tibshirani 1993, ch. 13). Nothing of other patients enters it, only the patient's own
features and refits that are frozen beside the signature, so that one patient equals many here as well. It is of how
the signature came about, not of measuring the patient again; the risk itself may lie outside of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from models.signature import AnySignature

Floats = NDArray[np.float64]
Interval = tuple[float, float]

LABEL = "uncertainty of the risk"
PERCENTILES = (2.5, 97.5)


def intervals(signature: AnySignature, table: pd.DataFrame) -> Floats:
    """95 % intervals (n, 2) of the calibrated risks of a table's patients, for a signature that has bootstraps.

    A feature that the table does not have is missing. NaN where a bootstrap would refuse the patient for what is
    missing: without that one the others would look surer than they are.
    """
    known = table.reindex(columns=signature.asked)
    risks = [np.where(one.lacking(known), np.nan, one.probabilities(known)) for one in signature.bootstraps]
    return np.asarray(np.percentile(risks, PERCENTILES, axis=0).T, dtype=np.float64)


def interval_of(signature: AnySignature, features: Mapping[str, Any]) -> Interval | None:
    """Of one patient; None without bootstraps, or where :func:`intervals` has none."""
    if not signature.bootstraps:
        return None
    low, high = intervals(signature, pd.DataFrame([dict(features)]))[0].tolist()
    return None if np.isnan(low) else (low, high)


def asked_for(signature: AnySignature) -> list[str]:
    """What a signature and its bootstraps go by, each once."""
    return list(dict.fromkeys(name for one in (signature, *signature.bootstraps) for name in one.features))
