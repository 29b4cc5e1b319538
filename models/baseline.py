"""The baseline table: who the patients of each partition are, and whether the partitions differ (paper, Table 1)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from feature_store.errors import UsageError
from feature_store.vocabulary import Partition
from models.evaluation.inputs import BoolArray, FloatArray, outcomes

PARTITIONS = (Partition.TRAINING.value, Partition.INTERNAL_VALIDATION.value, Partition.EXTERNAL_TEST.value)
EVENT, NO_EVENT = "training/event", "training/no_event"
CONTRASTS = ((PARTITIONS[0], PARTITIONS[1]), (PARTITIONS[0], PARTITIONS[2]), (EVENT, NO_EVENT))

ALPHA = 0.05
MOST_COUNTED_VALUES = 5
"""Whole numbers with at most so many different values (surgical segments) are counted, not averaged."""
MOST_LEVELS = 20
"""Levels beyond the most frequent ones are put together."""
OTHER = "other"
MONTE_CARLO_TABLES = 9999


def baseline_table(clinical: pd.DataFrame | None, partition: ArrayLike, outcome: ArrayLike) -> list[dict[str, Any]]:
    """One row a variable, fit for JSON; the outcome itself comes first.

    ``clinical`` (patients, variables), ``partition`` and ``outcome`` (patients,) in the same order. Groups are the
    partitions that have patients and, within training, those with and without the event. A row has

    ``variable``, ``kind`` (continuous or categorical), ``summary`` (how to read its cells),
    ``cells``: one a level (``level`` is None for a continuous variable) with a text a group,
    ``missing``: patients without a value, a group,
    ``contrasts``: ``{"a", "b", "test", "p", "smd"}`` for training against each other partition, and by outcome.

    Continuous: mean ± SD with Student's t-test (Welch's where Levene rejects equal variances), if Shapiro–Wilk
    rejects normality in no group; median (IQR) with the Mann–Whitney U test otherwise. Categorical (text, booleans,
    two values, few whole numbers): n (%) with the chi-square test (no continuity correction), or Fisher's exact test
    where an expected count is under 5 (sampled from seeded Monte Carlo tables beyond 2 × 2). ``smd`` is the absolute
    standardised mean difference (Yang and Dalton 2012 for categories). p values are not adjusted: they describe.
    """
    events = outcomes(outcome)
    where = np.asarray(partition, dtype=object)
    variables = pd.DataFrame(index=range(events.size)) if clinical is None else clinical.reset_index(drop=True)
    if where.shape != events.shape or len(variables) != events.size:
        raise UsageError(
            "Clinical rows, partitions and outcomes differ in number.", action="Pass one of each a patient."
        )
    groups = {name: where == name for name in PARTITIONS}
    groups[EVENT] = groups[PARTITIONS[0]] & events
    groups[NO_EVENT] = groups[PARTITIONS[0]] & ~events
    groups = {name: members for name, members in groups.items() if members.any()}
    by_partition = {name: groups[name] for name in PARTITIONS if name in groups}
    rows = [_categorical("outcome", pd.Series(np.where(events, "1", "0")), by_partition)]
    for name, column in variables.items():
        describe = _categorical if is_counted(column) else _continuous
        rows.append(describe(str(name), column, groups))
    return rows


def is_counted(column: pd.Series) -> bool:
    """Whether a variable is summarised by counts: text, booleans, two values, or few whole numbers."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return True
    values = np.unique(column.dropna().to_numpy(dtype=np.float64))
    return values.size <= 2 or (values.size <= MOST_COUNTED_VALUES and bool((values == np.round(values)).all()))


def _continuous(name: str, column: pd.Series, groups: Mapping[str, BoolArray]) -> dict[str, Any]:
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    values = np.where(np.isfinite(values), values, np.nan)
    of = {group: values[members][~np.isnan(values[members])] for group, members in groups.items()}
    normal = _looks_normal(list(of.values()))
    contrasts = []
    for a, b in _contrasts(groups):
        test, p = _compare_means(of[a], of[b]) if normal else _compare_ranks(of[a], of[b])
        contrasts.append(_contrast(a, b, test, p, _smd(of[a], of[b])))
    return {
        "variable": name,
        "kind": "continuous",
        "summary": "mean ± SD" if normal else "median (IQR)",
        "cells": [{"level": None} | {group: _centre(v, normal) for group, v in of.items()}],
        "missing": {group: int(members.sum()) - of[group].size for group, members in groups.items()},
        "contrasts": contrasts,
    }


def _categorical(name: str, column: pd.Series, groups: Mapping[str, BoolArray]) -> dict[str, Any]:
    there = column.notna().to_numpy()
    frequent = column.value_counts().index[: MOST_LEVELS - 1]
    if column.nunique() > MOST_LEVELS:
        column = column.astype(object).where(column.isin(frequent) | ~there, OTHER)
    levels = sorted(column[there].unique().tolist(), key=lambda level: (isinstance(level, str), level))
    codes = np.array([levels.index(v) if ok else -1 for v, ok in zip(column, there, strict=True)], dtype=np.int64)
    counts = {g: np.bincount(codes[m & there], minlength=len(levels)) for g, m in groups.items()}
    contrasts = []
    for a, b in _contrasts(groups):
        table = np.array([counts[a], counts[b]])
        contrasts.append(_contrast(a, b, *_compare_counts(table), _smd_of_counts(table)))
    return {
        "variable": name,
        "kind": "categorical",
        "summary": "n (%)",
        "cells": [
            {"level": _level(level)}
            | {g: f"{c[i]} ({100 * c[i] / c.sum():.1f} %)" if c.sum() else "0" for g, c in counts.items()}
            for i, level in enumerate(levels)
        ],
        "missing": {group: int((members & ~there).sum()) for group, members in groups.items()},
        "contrasts": contrasts,
    }


def _contrasts(groups: Mapping[str, BoolArray]) -> list[tuple[str, str]]:
    return [(a, b) for a, b in CONTRASTS if a in groups and b in groups]


def _contrast(a: str, b: str, test: str, p: float, smd: float) -> dict[str, Any]:
    return {"a": a, "b": b, "test": test, "p": _or_none(p), "smd": _or_none(smd)}


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _level(level: Any) -> str:
    """2.0 reads 2; True reads yes."""
    if isinstance(level, (bool, np.bool_)):
        return "yes" if level else "no"
    return f"{level:g}" if isinstance(level, (int, float)) else str(level)


def _centre(values: FloatArray, normal: bool) -> str:
    if not values.size:
        return "–"
    spread = float(values.std())
    # One decimal, more where the values differ by less than that.
    digits = int(np.clip(1 - np.floor(np.log10(spread)), 1, 6)) if spread > 0 else 1
    if normal:
        sd = f"{values.std(ddof=1):.{digits}f}" if values.size > 1 else "–"
        return f"{values.mean():.{digits}f} ± {sd}"
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _looks_normal(groups: Sequence[FloatArray]) -> bool:
    """Whether Shapiro–Wilk rejects in no group; a group under three patients has no say, a constant one is not."""
    tested = [values for values in groups if values.size >= 3]
    if not tested or any(np.ptp(values) == 0 for values in tested):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # beyond 5,000 patients p is rough: they reject anyway
        return all(stats.shapiro(values).pvalue > ALPHA for values in tested)


def _compare_means(a: FloatArray, b: FloatArray) -> tuple[str, float]:
    if min(a.size, b.size) < 2:
        return "not tested", np.nan
    equal = stats.levene(a, b).pvalue > ALPHA
    return ("t-test" if equal else "Welch's t-test"), float(stats.ttest_ind(a, b, equal_var=bool(equal)).pvalue)


def _compare_ranks(a: FloatArray, b: FloatArray) -> tuple[str, float]:
    if not a.size or not b.size:
        return "not tested", np.nan
    if np.ptp(np.concatenate([a, b])) == 0:
        return "Mann–Whitney U", 1.0
    return "Mann–Whitney U", float(stats.mannwhitneyu(a, b).pvalue)


def _compare_counts(table: NDArray[np.int64]) -> tuple[str, float]:
    """``table`` (2, levels) of counts; levels that neither group has do not count."""
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or (table.sum(axis=1) == 0).any():
        return "not tested", np.nan
    if stats.contingency.expected_freq(table).min() >= 5:
        return "chi-square", float(stats.chi2_contingency(table, correction=False).pvalue)
    if table.shape == (2, 2):
        return "Fisher's exact", float(stats.fisher_exact(table).pvalue)
    sampled = stats.MonteCarloMethod(n_resamples=MONTE_CARLO_TABLES, rng=np.random.default_rng(0))
    return "Fisher's exact (Monte Carlo)", float(stats.fisher_exact(table, method=sampled).pvalue)


def _smd(a: FloatArray, b: FloatArray) -> float:
    if min(a.size, b.size) < 2:
        return np.nan
    spread = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    difference = abs(a.mean() - b.mean())
    return float(difference / spread) if spread > 0 else (0.0 if difference == 0 else np.nan)


def _smd_of_counts(table: NDArray[np.int64]) -> float:
    """Yang and Dalton (2012): the Mahalanobis distance between the two vectors of proportions, first level left out."""
    table = table[:, table.sum(axis=0) > 0]
    if (table.sum(axis=1) == 0).any():
        return np.nan
    if table.shape[1] < 2:
        return 0.0
    p, q = (row[1:] / row.sum() for row in table)
    spread = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    if np.linalg.matrix_rank(spread) < len(p):
        return 0.0 if np.allclose(p, q) else np.nan
    return float(np.sqrt((p - q) @ np.linalg.solve(spread, p - q)))
