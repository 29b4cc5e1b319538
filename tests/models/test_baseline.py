"""The baseline table: which test is taken, and that its p is that test's own."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from feature_store.errors import UsageError
from models.baseline import baseline_table

RNG = np.random.default_rng(4)
PARTITION = np.repeat(["training", "internal_validation", "external_test"], [120, 50, 30])
OUTCOME = np.tile([0, 1, 0, 1, 0], 40)
TRAINING, VALIDATION, EXTERNAL = (name == PARTITION for name in ("training", "internal_validation", "external_test"))


def one(column, name="x"):
    rows = baseline_table(pd.DataFrame({name: column}), PARTITION, OUTCOME)
    assert [row["variable"] for row in rows] == ["outcome", name]
    json.dumps(rows, allow_nan=False)
    return rows[1]


def contrast(row, b):
    found = [c for c in row["contrasts"] if c["b"] == b]
    assert len(found) == 1
    return found[0]


def test_contrasts_are_named_and_complete():
    row = one(RNG.normal(60, 9, 200))
    assert [(c["a"], c["b"]) for c in row["contrasts"]] == [
        ("training", "internal_validation"),
        ("training", "external_test"),
        ("training/event", "training/no_event"),
    ]


def test_normal_values_take_the_t_test_or_welch():
    x = np.random.default_rng(0).normal(60, 9, 200)
    row = one(x)
    assert row["summary"] == "mean ± SD"
    assert row["cells"][0]["training"] == f"{x[TRAINING].mean():.1f} ± {x[TRAINING].std(ddof=1):.1f}"
    found = contrast(row, "internal_validation")
    assert found["test"] == "t-test"
    assert found["p"] == pytest.approx(stats.ttest_ind(x[TRAINING], x[VALIDATION]).pvalue)
    pooled = np.sqrt((x[TRAINING].var(ddof=1) + x[VALIDATION].var(ddof=1)) / 2)
    assert found["smd"] == pytest.approx(abs(x[TRAINING].mean() - x[VALIDATION].mean()) / pooled)

    x[VALIDATION] = 60 + 4 * (x[VALIDATION] - 60)
    found = contrast(one(x), "internal_validation")
    assert found["test"] == "Welch's t-test"
    assert found["p"] == pytest.approx(stats.ttest_ind(x[TRAINING], x[VALIDATION], equal_var=False).pvalue)


def test_skewed_values_take_mann_whitney_and_quartiles():
    x = np.random.default_rng(1).lognormal(0, 1, 200)
    row = one(x)
    assert row["summary"] == "median (IQR)"
    low, middle, high = np.quantile(x[EXTERNAL], [0.25, 0.5, 0.75])
    assert row["cells"][0]["external_test"] == f"{middle:.1f} ({low:.1f}–{high:.1f})"
    found = contrast(row, "external_test")
    assert (found["test"], found["p"]) == ("Mann–Whitney U", stats.mannwhitneyu(x[TRAINING], x[EXTERNAL]).pvalue)


def test_counts_take_chi_square_or_fisher():
    x = np.where(np.arange(200) % 3 == 0, "female", "male")
    row = one(x)
    assert row["kind"] == "categorical"
    assert [cell["level"] for cell in row["cells"]] == ["female", "male"]
    female = int((x[TRAINING] == "female").sum())
    assert row["cells"][0]["training"] == f"{female} ({100 * female / 120:.1f} %)"
    table = [[(x[g] == level).sum() for level in ("female", "male")] for g in (TRAINING, VALIDATION)]
    found = contrast(row, "internal_validation")
    assert (found["test"], found["p"]) == ("chi-square", stats.chi2_contingency(table, correction=False).pvalue)
    p, q = table[0][0] / 120, table[1][0] / 50
    assert found["smd"] == pytest.approx(abs(p - q) / np.sqrt((p * (1 - p) + q * (1 - q)) / 2))

    rare = np.zeros(200)
    rare[[3, 9, 125, 180]] = 1
    table = [[(rare[g] == level).sum() for level in (0, 1)] for g in (TRAINING, EXTERNAL)]
    found = contrast(one(rare), "external_test")
    assert (found["test"], found["p"]) == ("Fisher's exact", stats.fisher_exact(table).pvalue)


def test_larger_tables_with_few_patients_are_sampled_and_repeatable():
    segments = np.where(np.arange(200) % 40 == 0, 3, 1 + np.arange(200) % 2)
    row = one(segments)
    assert [cell["level"] for cell in row["cells"]] == ["1", "2", "3"]
    found = contrast(row, "external_test")
    assert found["test"] == "Fisher's exact (Monte Carlo)"
    assert found == contrast(one(segments), "external_test")
    table = [[(segments[g] == level).sum() for level in (1, 2, 3)] for g in (TRAINING, EXTERNAL)]
    exact = _fisher_by_enumeration(np.array(table))
    assert found["p"] == pytest.approx(exact, abs=0.02)


def _fisher_by_enumeration(table):
    """Every 2 × 3 table with these margins and its probability."""
    columns, first = table.sum(axis=0), int(table[0].sum())
    law = stats.multivariate_hypergeom(m=columns, n=first)
    observed = law.pmf(table[0])
    every = [
        law.pmf([a, b, first - a - b])
        for a in range(columns[0] + 1)
        for b in range(columns[1] + 1)
        if 0 <= first - a - b <= columns[2]
    ]
    return sum(p for p in every if p <= observed * (1 + 1e-9))


def test_missing_is_counted_and_left_out():
    x = np.random.default_rng(2).normal(25, 3, 200)
    y = x.copy()
    y[[0, 1, 130]] = np.nan
    row = one(y)
    assert row["missing"]["training"] == 2
    assert row["missing"]["internal_validation"] == 1
    assert contrast(row, "external_test")["p"] == pytest.approx(stats.ttest_ind(x[TRAINING][2:], x[EXTERNAL]).pvalue)
    text = pd.Series(np.where(x > 25, "a", "b"), dtype="object")
    text[5] = None
    assert one(text)["missing"]["training"] == 1


@pytest.mark.parametrize(
    "column",
    [
        np.full(200, 7.0),
        np.full(200, np.nan),
        np.where(TRAINING, np.nan, 1.5 * np.arange(200)),
        pd.Series([None] * 200, dtype="object"),
        pd.Series([True, False] * 100),
        pd.Series([f"text {i}" for i in range(200)]),
        np.where(np.arange(200) == 3, 1e9, 0.5 * np.arange(200)),
    ],
    ids=["constant", "all missing", "missing in training", "no text", "booleans", "free text", "heavy tail"],
)
def test_awkward_columns_never_crash_and_stay_json(column):
    row = one(column)
    assert len(row["cells"]) <= 20


def test_partitions_that_are_absent_and_wrong_lengths():
    rows = baseline_table(None, ["training"] * 4, [0, 1, 0, 1])
    assert [row["variable"] for row in rows] == ["outcome"]
    assert rows[0]["contrasts"] == []
    rows = baseline_table(pd.DataFrame({"age": [50.5, 61.2, 70.0, 45.0]}), ["training"] * 4, [0, 0, 0, 0])
    assert "training/event" not in rows[1]["cells"][0]
    with pytest.raises(UsageError):
        baseline_table(None, ["training"] * 3, [0, 1])


def test_same_distribution_is_rarely_called_different():
    rng = np.random.default_rng(9)
    p = [contrast(one(rng.normal(size=200)), "internal_validation")["p"] for _ in range(100)]
    assert np.mean(np.array(p) < 0.05) <= 0.12
