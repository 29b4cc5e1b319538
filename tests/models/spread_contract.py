"""What holds of every spread: this machine's cores, and a cluster's. Each check takes one, and an empty folder."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_store.errors import FeatureTableError, WorkerLost
from models.classifiers import FAMILIES, Configuration, configurations
from models.crossfit import CrossFit, Plan, crossfit
from models.folds import stratified_folds
from models.protocol import SelectorSource
from models.selection.matrix import FeatureMatrix
from models.selection.recipes import RadRecipe
from models.spread import OnCores, Spread

BROKEN = Configuration("linear_svm", {"C": -1.0})
"""What no library fits."""


def leave_a_mark(folder: Path, number: int) -> int:
    time.sleep(0.1)
    (folder / str(number)).touch()
    return number


def total(values: np.ndarray, number: int) -> float:
    return float(values.sum()) + number


def refuse(number: int) -> int:
    if number == 2:
        raise FeatureTableError("nothing usable", action="mend it")
    return number


def die(number: int) -> int:
    os._exit(1)


def results_come_in_order_and_as_they_are_there(spread: Spread, folder: Path) -> None:
    with closing(spread(leave_a_mark, (folder,), ((i,) for i in range(24)))) as results:
        assert next(results) == 0
        assert len(list(folder.iterdir())) < 24
        assert list(results) == list(range(1, 24))


def what_is_shared_reaches_every_call(spread: Spread, folder: Path) -> None:
    values = np.arange(300_000.0).reshape(3, -1)
    assert list(spread(total, (values,), ((i,) for i in range(3)))) == [values.sum() + i for i in range(3)]
    assert list(spread(total, (values,), ())) == []


def an_error_comes_as_it_was_raised(spread: Spread, folder: Path) -> None:
    before = []
    with pytest.raises(FeatureTableError, match="nothing usable") as caught:
        before.extend(spread(refuse, (), ((i,) for i in range(4))))
    assert caught.value.action == "mend it"
    assert before in ([], [0], [0, 1])


def calls_that_are_left_never_begin(spread: Spread, folder: Path) -> None:
    with closing(spread(leave_a_mark, (folder,), ((i,) for i in range(60)))) as results:
        next(results)
    begun = len(list(folder.iterdir()))
    time.sleep(0.5)
    assert begun <= len(list(folder.iterdir())) <= begun + 2 < 60


def a_call_that_takes_its_process_along_is_an_error_of_ours(spread: Spread, folder: Path) -> None:
    with pytest.raises(WorkerLost, match=r"spread_contract\.die") as caught:
        list(spread(die, (), [(0,)]))
    assert caught.value.action


def a_classifier_that_fails_is_named_and_the_others_are_the_same_to_the_last_bit(spread: Spread, folder: Path) -> None:
    """All fourteen; the arrays are large enough to be shared without a copy."""
    alone, found = (_fitted(one) for one in (OnCores(1), spread))
    assert found.logits.tobytes() == alone.logits.tobytes()
    assert found.inner_auc.tobytes() == alone.inner_auc.tobytes()
    assert (found.table, found.chosen, found.failures) == (alone.table, alone.chosen, alone.failures)
    assert [failure["classifier"] for failure in found.failures] == ["linear_svm"]
    assert {row["name"] for row in found.table if row["cv_auc"] is not None} == set(FAMILIES)


def _fitted(spread: Spread) -> CrossFit:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 2400))
    x[:, :3] += y[:, None]
    plan = Plan(y, stratified_folds(y, 3, 0), (*configurations("quick"), BROKEN), seed=0)
    matrix = FeatureMatrix(tuple(f"f{i:04d}" for i in range(2400)), x)
    return crossfit(replace(plan, spread=spread), SelectorSource(matrix, RadRecipe()))


PEACEFUL = (
    results_come_in_order_and_as_they_are_there,
    what_is_shared_reaches_every_call,
    an_error_comes_as_it_was_raised,
    a_classifier_that_fails_is_named_and_the_others_are_the_same_to_the_last_bit,
)
DEADLY = (calls_that_are_left_never_begin, a_call_that_takes_its_process_along_is_an_error_of_ours)
"""These cost processes, which others would have used again."""
