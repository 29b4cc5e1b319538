"""Matched specificity: by hand, on ties, and with the right coverage."""

import numpy as np
import pytest

from feature_store.errors import TooFewPatients
from models.evaluation.matched import matched_specificity

Y = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
SCORES = np.array([0.9, 0.7, 0.5, 0.2, 0.8, 0.6, 0.4, 0.3, 0.1])


def test_by_hand():
    reading = np.array([1, 0, 0, 1, 1, 0, 0, 0, 0])  # one false alarm: the score may raise one as well, at 0.8
    found = matched_specificity(Y, SCORES, reading, seed=0)
    assert 0.6 < found.threshold < 0.7
    assert (found.specificity, found.sensitivity, found.difference) == (0.8, 0.5, 0.0)
    assert found.p == 1.0
    assert found.ci[0] <= 0 <= found.ci[1]


@pytest.mark.parametrize(("reading", "sensitivity"), [(np.zeros(9), 0.25), (np.ones(9), 1.0)])
def test_no_false_alarm_and_nothing_else(reading, sensitivity):
    found = matched_specificity(Y, SCORES, reading, seed=0)
    assert found.sensitivity == sensitivity
    assert found.specificity == 1 - reading[0]


def test_beside_a_reader_who_calls_everybody_the_score_may_call_everybody():
    found = matched_specificity([1, 1, 0, 0], [0.1, 0.9, 0.3, 0.5], [1, 1, 1, 1], seed=0)
    assert (found.sensitivity, found.specificity, found.difference, found.ci) == (1.0, 0.0, 0.0, (0.0, 0.0))


def test_ties_raise_no_more_false_alarms_than_the_reader():
    y, tied = np.repeat([1, 0], [3, 6]), np.full(9, 0.5)
    assert matched_specificity(y, tied, np.array([1, 1, 1, 1, 0, 0, 0, 0, 0]), seed=1).specificity == 1.0
    with pytest.raises(TooFewPatients):
        matched_specificity(np.ones(4), np.ones(4), np.ones(4), seed=0)


def test_an_equal_score_differs_by_nothing_and_a_better_one_shows():
    """The reader calls at a fixed cut of a latent score; the truth is known, so coverage can be counted."""
    rng = np.random.default_rng(4)
    covered = found_better = 0
    for draw in range(30):
        y = np.repeat([1, 0], [60, 90])
        reader, equal, better = (d * y + rng.normal(size=150) for d in (1.0, 1.0, 2.0))
        reading = reader >= 0.5
        same = matched_specificity(y, equal, reading, seed=draw, n_bootstrap=200)
        covered += same.ci[0] <= 0 <= same.ci[1]
        found_better += matched_specificity(y, better, reading, seed=draw, n_bootstrap=200).ci[0] > 0
    assert covered >= 26
    assert found_better >= 24
