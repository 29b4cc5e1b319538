"""Intraclass correlations against published examples and an analysis of variance by statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols  # type: ignore[import-untyped]
from statsmodels.stats.anova import anova_lm  # type: ignore[import-untyped]

from models.evaluation.reliability import Reliability, reliability

SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)
"""Shrout and Fleiss 1979, Table 2: six subjects, four judges."""


def one(values: np.ndarray) -> Reliability:
    return reliability(np.asarray(values, dtype=float)[:, :, None])


def test_shrout_and_fleiss() -> None:
    """Their Table 4 has 0.29 and 0.71; R's psych::ICC prints 0.019 to 0.76 and 0.342 to 0.95 for this table."""
    found = one(SHROUT_FLEISS)
    assert (found.n_subjects[0], found.n_versions) == (6, 4)
    assert found.icc_2_1[0] == pytest.approx(0.2898, abs=5e-5)
    assert found.icc_3_1[0] == pytest.approx(0.7148, abs=5e-5)
    assert found.icc_2_1_low[0] == pytest.approx(0.019, abs=5e-4)
    assert found.icc_2_1_high[0] == pytest.approx(0.76, abs=5e-3)
    assert found.icc_3_1_low[0] == pytest.approx(0.342, abs=5e-4)
    assert found.icc_3_1_high[0] == pytest.approx(0.95, abs=5e-3)


@pytest.mark.parametrize("shape", [(7, 2), (12, 3), (40, 11)])
def test_against_an_analysis_of_variance_by_statsmodels(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape[0])
    n, k = shape
    values = rng.normal(5, 2, (n, 1)) + rng.normal(0, 0.7, k) + rng.normal(0, 1, (n, k))
    long = pd.DataFrame(
        {"value": values.ravel(), "subject": np.repeat(np.arange(n), k), "version": np.tile(np.arange(k), n)}
    )
    table = anova_lm(ols("value ~ C(subject) + C(version)", data=long).fit())
    r, c, e = (table["mean_sq"][name] for name in ("C(subject)", "C(version)", "Residual"))
    found = one(values)
    assert found.icc_2_1[0] == pytest.approx((r - e) / (r + (k - 1) * e + k * (c - e) / n), rel=1e-9)
    assert found.icc_3_1[0] == pytest.approx((r - e) / (r + (k - 1) * e), rel=1e-9)
    assert found.icc_2_1_low[0] < found.icc_2_1[0] < found.icc_2_1_high[0]
    assert found.icc_3_1_low[0] < found.icc_3_1[0] < found.icc_3_1_high[0]


def test_intervals_hold_the_true_value_as_often_as_they_say() -> None:
    """2,000 tables of 20 subjects by 4 versions; true ICC(3,1) = 4 / (4 + 1), ICC(2,1) = 4 / (4 + 0.25 + 1)."""
    rng = np.random.default_rng(1)
    shape = (20, 4, 2000)
    subject = rng.normal(0, 2, (20, 1, 2000))
    found = reliability(subject + rng.normal(0, 0.5, (1, 4, 2000)) + rng.normal(0, 1, shape))
    within_2 = (found.icc_2_1_low <= 4 / 5.25) & (found.icc_2_1_high >= 4 / 5.25)
    within_3 = (found.icc_3_1_low <= 0.8) & (found.icc_3_1_high >= 0.8)
    assert within_3.mean() == pytest.approx(0.95, abs=0.015)
    assert within_2.mean() == pytest.approx(0.95, abs=0.02)  # Satterthwaite's is an approximation


def test_a_missing_reading_takes_its_subject_out_of_that_feature_only() -> None:
    both = np.repeat(SHROUT_FLEISS[:, :, None], 2, axis=2)
    both[2, 1, 1] = np.nan
    found = reliability(both)
    alone = one(np.delete(SHROUT_FLEISS, 2, axis=0))
    assert found.n_subjects.tolist() == [6, 5]
    assert found.icc_2_1.tolist() == pytest.approx([one(SHROUT_FLEISS).icc_2_1[0], alone.icc_2_1[0]], rel=1e-12)
    assert found.cv[1] == pytest.approx(alone.cv[0], rel=1e-12)
    assert found.sd_ratio[1] == pytest.approx(alone.sd_ratio[0], rel=1e-12)
    assert found.cv_median[1] == pytest.approx(alone.cv_median[0], rel=1e-12)


def test_agreement_and_consistency_differ_by_a_readers_bias() -> None:
    subject = np.arange(10, dtype=float)[:, None]
    same = one(np.hstack([subject, subject]))
    for value in (same.icc_2_1, same.icc_2_1_low, same.icc_2_1_high, same.icc_3_1, same.icc_3_1_low):
        assert value[0] == pytest.approx(1.0, abs=1e-12)
    assert same.cv[0] == same.sd_ratio[0] == 0
    biased = one(np.hstack([subject, subject + 5]))
    assert biased.icc_3_1[0] == pytest.approx(1.0, abs=1e-12)
    assert biased.icc_2_1[0] < 0.5


@pytest.mark.parametrize("constant", [0.0, 3.7, 1e15, -1e-9])
def test_a_feature_that_is_the_same_everywhere_has_no_icc(constant: float) -> None:
    values = np.full((8, 3), constant) * (1 + 1e-15 * np.arange(3))  # and rounding is no variation
    found = one(values)
    assert np.isnan([found.icc_2_1[0], found.icc_3_1[0], found.icc_2_1_low[0], found.sd_ratio[0]]).all()
    assert found.cv[0] == pytest.approx(0, abs=1e-12)


def test_too_few_subjects_or_versions() -> None:
    assert np.isnan(one(SHROUT_FLEISS[:1]).icc_2_1[0])
    assert one(SHROUT_FLEISS[:1]).cv[0] > 0
    single = one(SHROUT_FLEISS[:, :1])
    assert np.isnan([single.icc_2_1[0], single.icc_3_1[0], single.cv[0], single.sd_ratio[0]]).all()
    nobody = reliability(np.full((4, 2, 3), np.nan))
    assert nobody.n_subjects.tolist() == [0, 0, 0]
    assert np.isnan(nobody.icc_3_1).all()
    assert np.isnan(nobody.cv).all()


def test_scale_and_shift_change_no_icc() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (15, 1)) + rng.normal(0, 0.4, (15, 3))
    plain = one(values)
    for scale, shift in ((1e12, 0.0), (1e-9, 0.0), (1.0, 1e6), (-2.0, 3.0)):
        moved = one(values * scale + shift)
        assert moved.icc_2_1[0] == pytest.approx(plain.icc_2_1[0], rel=1e-7)
        assert moved.icc_3_1_low[0] == pytest.approx(plain.icc_3_1_low[0], rel=1e-7)
        assert moved.sd_ratio[0] == pytest.approx(plain.sd_ratio[0], rel=1e-7)


def test_coefficient_of_variation_within_subjects() -> None:
    values = np.array([[9.0, 11.0], [19.0, 21.0], [100.0, 100.0]])
    cvs = np.sqrt(2) / np.array([10.0, 20.0, np.inf])
    found = one(values)
    assert found.cv[0] == pytest.approx(np.sqrt((cvs**2).mean()))
    assert found.cv_median[0] == pytest.approx(np.median(cvs))
    assert one(-values).cv[0] == pytest.approx(found.cv[0])


def test_a_feature_that_changes_its_sign_within_a_subject_has_no_cv() -> None:
    found = one(np.array([[-1.0, 2.0], [5.0, 6.0], [8.0, 8.5]]))
    assert np.isnan([found.cv[0], found.cv_median[0]]).all()
    assert found.sd_ratio[0] > 0
    assert one(np.array([[0.0, 0.0], [5.0, 6.0]])).cv[0] > 0  # zero twice is no change
