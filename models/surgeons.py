"""Surgeons' readings beside the models (paper, Table 2): agreement, and who is right more often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.evaluation.agreement import cohen_kappa, mcnemar_exact
from models.evaluation.matched import matched_specificity
from models.evaluation.proportions import wilson
from models.folds import rarer_class
from models.signature import AnySignature
from models.study_tables import StudyTables

Floats = NDArray[np.float64]
READERS = ("A", "B", "C")


def surgeon_metrics(
    study: StudyTables, predictions: pd.DataFrame, signatures: Mapping[str, AnySignature], seed: int = 0
) -> dict[str, Any]:
    """Cohen's kappa of A and B, and each reader with each signature on the same held-out patients.

    The adjudicated reading is A's and B's where they agree and C's where they do not (missing where C is:
    ``n_unresolved``, on whom it is silent though they are the hard ones). There is none without both A's and B's.
    Signatures classify at their released threshold (exact McNemar test), and at the reader's own specificity, where
    sensitivities are compared (``matched_KIND``; a paired bootstrap, ``seed``). Empty without readings.
    """
    if study.reads is None:
        return {}
    reads = {reader: study.reads[reader].to_numpy(dtype=np.float64) for reader in READERS if reader in study.reads}
    result: dict[str, Any] = {}
    if "A" in reads and "B" in reads:
        both = ~np.isnan(reads["A"]) & ~np.isnan(reads["B"])
        kappa = cohen_kappa(reads["A"][both], reads["B"][both])
        result.update(kappa_ab=kappa.kappa, kappa_ab_ci=kappa.ci, n_ab=int(both.sum()))
        third = reads.get("C", np.full(len(both), np.nan))
        reads["adjudicated"] = np.where(reads["A"] == reads["B"], reads["A"], np.where(both, third, np.nan))
        result["n_unresolved"] = int((both & np.isnan(reads["adjudicated"])).sum())
    y = predictions["outcome"].to_numpy(dtype=np.float64)
    held_out = predictions["partition"].isin(["internal_validation", "external_test"]).to_numpy()
    for reader, reading in reads.items():
        rows = held_out & ~np.isnan(reading)
        if not rows.any():
            continue
        result[reader] = _against(y[rows], reading[rows])
        for kind, signature in signatures.items():
            risk = predictions[kind].to_numpy(dtype=np.float64)[rows]
            high = risk >= signature.head.threshold
            test = mcnemar_exact(high == y[rows], reading[rows] == y[rows])
            result[reader][f"mcnemar_{kind}"] = {
                "only_model_right": test.only_a,
                "only_reader_right": test.only_b,
                "p": test.p,
            }
            if rarer_class(y[rows]):
                matched = matched_specificity(y[rows], risk, reading[rows], seed)
                result[reader][f"matched_{kind}"] = matched._asdict()
    return result


def _against(y: Floats, reading: Floats) -> dict[str, Any]:
    events = y == 1
    result: dict[str, Any] = {"n": len(y), "events": int(events.sum()), "accuracy": float((reading == y).mean())}
    for name, of, value in (("sensitivity", events, 1), ("specificity", ~events, 0)):
        right, total = int((reading[of] == value).sum()), int(of.sum())
        result[name] = right / total if total else None
        result[f"{name}_ci"] = list(wilson(right, total)) if total else None
    return result
