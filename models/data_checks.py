"""What a reader must be told of the data before believing a figure: heavy tails, batches, scales that differ.

Columns are judged on training patients only; the scale of signatures is compared between all sites.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from feature_store.vocabulary import Partition
from models.evaluation.inputs import logit
from models.performance import HELD_OUT
from models.scanners import Scanners
from models.selection.matrix import FeatureMatrix
from models.selection.scaling import HEAVY_TAIL, quartiles, usable_columns
from models.telling_columns import said_of_columns

Floats = NDArray[np.float64]

BATCH_LIKE = 0.4
"""Share of a column's rank variance that the batch explains, beyond chance, from which it tells batches apart."""
SHIFT, STRETCH = 1.0, 2.0
"""SDs by which a site's log-odds may lie off, and the factor by which their spread may differ, unremarked."""
MIN_PATIENTS = 10
SHOWN = 3
FEWEST_COLUMNS = 5
UNEVEN = 1e-3
"""p of chi-square under which the share of events is no longer taken to be one for all training sites."""


def heavy_tailed(matrix: FeatureMatrix, training: NDArray[np.intp]) -> dict[str, Any]:
    """``n_columns`` whose SD is above fifty quartile ranges, and the ``worst``. Coinciding quartiles are no measure."""
    x = matrix.values[training]
    kept = usable_columns(x).columns
    low, middle, high = quartiles(x[:, kept])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        spread = np.nanstd(x[:, kept], axis=0) / (high - low)
    spread = np.where(np.isfinite(spread) & (high - low > 1e-9 * np.abs(middle)), spread, 0.0)
    heavy = np.flatnonzero(spread > HEAVY_TAIL)
    worst = heavy[np.argsort(-spread[heavy], kind="stable")][:SHOWN]
    return {
        "n_columns": len(heavy),
        "worst": [{"name": matrix.names[kept[i]], "sd_in_quartile_ranges": float(spread[i])} for i in worst],
    }


def batch_like(
    matrix: FeatureMatrix, training: NDArray[np.intp], scanner: Scanners, selected: Sequence[str]
) -> dict[str, Any]:
    """``n_columns`` that tell batches apart among training patients, and which of the ``selected`` ones do.

    By the share of the variance of a column's ranks between the scanners of its sequence, less what chance gives (ω²).
    """
    own = scanner.take(training)
    share = share_by_scanner(matrix.take(training), own)
    names = np.array(matrix.names)
    telling = [n for n in selected if n in matrix.names and share[matrix.names.index(n)] > BATCH_LIKE]
    return {
        "n_batches": len({(by, name) for by in own.groups(matrix.names) for name in own.names[by].tolist()}),
        "n_columns": int((share > BATCH_LIKE).sum()),
        "of": len(names),
        "median_share": float(np.median(share)) if len(share) else None,
        "selected": [{"name": n, "share": float(share[matrix.names.index(n)])} for n in telling],
    }


def share_by_scanner(matrix: FeatureMatrix, scanner: Scanners) -> Floats:
    """:func:`batch_share` of each column (p,) between the scanners of its own sequence, of patients who have it."""
    share = np.zeros(len(matrix.names))
    for by, columns in scanner.groups(matrix.names).items():
        x = matrix.values[:, columns]
        there = np.isfinite(x).any(axis=1)
        share[columns] = batch_share(x[there], scanner.names[by][there])
    return share


def batch_share(x: Floats, batch: NDArray[np.str_]) -> Floats:
    """ω² of each column's ranks between batches (p,); 0 with one batch. Missing values count as the median."""
    found, index = np.unique(batch, return_inverse=True)
    n, k = len(batch), len(found)
    if k < 2 or n <= k:
        return np.zeros(x.shape[1])
    table = pd.DataFrame(np.where(np.isfinite(x), x, np.nan))
    ranks = table.fillna(table.median()).fillna(0.0).rank().to_numpy()
    ranks = ranks - ranks.mean(axis=0)
    total = (ranks**2).sum(axis=0)
    sizes = np.bincount(index)
    sums = np.zeros((k, x.shape[1]))
    np.add.at(sums, index, ranks)
    between = (sums**2 / sizes[:, None]).sum(axis=0)
    within = (total - between) / (n - k)
    with np.errstate(invalid="ignore", divide="ignore"):
        omega = (between - (k - 1) * within) / (total + within)
    return np.asarray(np.where(total > 0, np.maximum(omega, 0.0), 0.0), dtype=np.float64)


def copies(partition: NDArray[np.str_], *matrices: FeatureMatrix | None) -> int:
    """How many held-out patients have, bit for bit, the features of a training patient: one patient under two ids?"""
    found = np.zeros(len(partition), dtype=np.bool_)
    training = partition == Partition.TRAINING.value
    for matrix in matrices:
        if matrix is None:
            continue
        rows = [None if np.isnan(row).mean() > 0.5 else row.tobytes() for row in np.ascontiguousarray(matrix.values)]
        own = {row for row, inside in zip(rows, training, strict=True) if inside} - {None}
        found |= np.array([row in own for row in rows]) & ~training
    return int(found.sum())


def twins(training: NDArray[np.intp], *matrices: FeatureMatrix | None) -> int:
    """How many training patients have, bit for bit, the features of another one: in two folds, one tells the other.

    A table of fewer than five columns may have them by chance and does not count.
    """
    found = np.zeros(len(training), dtype=np.bool_)
    for matrix in matrices:
        if matrix is not None and len(matrix.names) >= FEWEST_COLUMNS:
            rows = [None if np.isnan(row).mean() > 0.5 else row.tobytes() for row in matrix.values[training]]
            counts = Counter(rows)
            found |= np.array([row is not None and counts[row] > 1 for row in rows], dtype=np.bool_)
    return int(found.sum())


def not_external(partition: NDArray[np.str_], site: NDArray[np.str_], unnamed: str) -> int:
    """How many patients of the external test are of a site that training has as well; sites without a name aside."""
    own = set(site[partition == Partition.TRAINING.value].tolist()) - {unnamed}
    return int((np.isin(site, sorted(own)) & (partition == Partition.EXTERNAL_TEST.value)).sum())


def uneven_sites(y: NDArray[np.int64], site: NDArray[np.str_]) -> dict[str, float]:
    """Share of events by site (of ``y`` and ``site`` (n,) in training) where sites differ beyond chance; else empty."""
    names, place = np.unique(site, return_inverse=True)
    counts = np.array([np.bincount(place[y == value], minlength=len(names)) for value in (0, 1)])
    if len(names) < 2 or stats.chi2_contingency(counts, correction=False).pvalue >= UNEVEN:
        return {}
    shares = counts[1] / counts.sum(axis=0)
    return dict(zip(names.tolist(), shares.tolist(), strict=True))


def scales_by_site(predictions: pd.DataFrame, kind: str, unnamed: str) -> list[dict[str, Any]]:
    """Log-odds of each held-out site beside training's, and of each training site (out of fold) beside the others'.

    ``shift`` in SDs of what it stands beside, ``spread`` as a ratio of SDs. The shift is the mean of those of events
    and non-events, so that another prevalence alone is no shift. Sites with fewer than ten patients are left out;
    ``remarkable`` marks those past a shift of 1 or a spread of 2 (or 1/2). ``site`` is None where it is ``unnamed``.
    """
    rows = predictions.dropna(subset=[kind])
    rows = rows.assign(log_odds=logit(rows[kind].to_numpy(dtype=np.float64)))
    training = rows[rows["partition"] == Partition.TRAINING.value]
    found = []
    for cohort, table in (("held_out", rows[rows["partition"].isin(HELD_OUT)]), ("training", training)):
        for site, members in table.groupby("site", sort=True):
            others = training if cohort == "held_out" else training[training["site"] != site]
            measured = None if len(members) < MIN_PATIENTS else _scale_beside(members, others)
            if measured is not None:
                shift, spread = measured
                found.append(
                    {
                        "cohort": cohort,
                        "site": None if site == unnamed else str(site),
                        "n": len(members),
                        "shift": shift,
                        "spread": spread,
                        "remarkable": abs(shift) > SHIFT or not 1 / STRETCH <= spread <= STRETCH,
                    }
                )
    return found


def _scale_beside(members: pd.DataFrame, others: pd.DataFrame) -> tuple[float, float] | None:
    """Shift and spread; None where too few ``others`` are there, or they do not have both outcomes and a spread."""
    own = {y: table["log_odds"] for y, table in members.groupby("outcome")}
    reference = {y: table["log_odds"] for y, table in others.groupby("outcome")}
    if len(others) < MIN_PATIENTS or len(reference) < 2:
        return None
    sd = float(np.sqrt(np.mean([v.var(ddof=0) for v in reference.values()])))
    if not sd > 0:
        return None
    shift = float(np.mean([v.mean() - reference[y].mean() for y, v in own.items()])) / sd
    return shift, float(np.sqrt(np.average([v.var(ddof=0) for v in own.values()]))) / sd


def sentences(checks: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Whole sentences of what is remarkable. ``names``: signature kind to what it is called."""
    said = []
    if checks["copies"]:
        said.append(
            f"{checks['copies']} held-out patients have the very features of a training patient. If they are the same "
            "people under two ids, the held-out figures are too good."
        )
    if number := checks.get("twins"):
        said.append(
            f"{number} training patients have the very features of another training patient. If they are the same "
            "people under two ids, nested figures are too good as well."
        )
    if number := checks.get("not_external"):
        said.append(
            f"{number} patients of the external test are of sites that training has too: for them it is no external "
            "test, and says nothing of other hospitals."
        )
    if shares := checks.get("uneven_sites"):
        low, high = min(shares, key=lambda s: shares[s]), max(shares, key=lambda s: shares[s])
        said.append(
            f"Training sites differ in the share of events, from {100 * shares[low]:.0f} % ({low}) to "
            f"{100 * shares[high]:.0f} % ({high}): whatever tells sites apart predicts the outcome. Look at the "
            "figures within sites."
        )
    said.extend(said_of_columns(checks.get("columns") or {"outcome": [], "numbering": []}))
    for source, found in checks["heavy_tailed"].items():
        if found["n_columns"]:
            worst = found["worst"][0]
            said.append(
                f"{found['n_columns']} {source} columns are heavy-tailed; the worst is {worst['name']} (SD "
                f"{worst['sd_in_quartile_ranges']:.3g} quartile ranges). They are clipped before they are used."
            )
    for source, found in checks["batch_like"].items():
        if found["selected"]:
            listed = ", ".join(f"{row['name']} ({100 * row['share']:.0f} %)" for row in found["selected"][:SHOWN])
            said.append(
                f"Selected {source} columns that tell sites or scanners apart: {listed} of the variance lies between "
                "them. They may measure where a patient was scanned."
            )
        elif found["n_columns"] > 0.1 * found["of"]:
            said.append(f"{found['n_columns']} of {found['of']} {source} columns tell sites or scanners apart.")
    for kind, rows in checks["scales"].items():
        for cohort, reference in (("held_out", "in training"), ("training", "at the other training sites")):
            off = [row for row in rows if row["remarkable"] and row["cohort"] == cohort]
            if off:
                listed = ", ".join(
                    f"{_place(r, cohort)} (shift {r['shift']:+.1f} SD, spread ×{r['spread']:.1f})" for r in off
                )
                said.append(f"{names.get(kind, kind)} is on another scale {listed} than {reference}.")
    return said


def _place(row: Mapping[str, Any], cohort: str) -> str:
    patients = "training" if cohort == "training" else "held-out"
    return f"in {patients} patients whose site is not named" if row["site"] is None else f"at {row['site']}"
