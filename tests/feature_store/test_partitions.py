from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import PartitionConflict
from feature_store.partitions import assign

SITES = ("a", "b", "c")


def patients(n: int, start: int = 0, sites: tuple[str, ...] = SITES) -> dict[tuple[str, str], int]:
    return {(sites[i % len(sites)], f"p{i}"): int(i % 4 == 0) for i in range(start, start + n)}


def share(given: dict[tuple[str, str], str], outcomes: dict[tuple[str, str], int], outcome: int) -> tuple[int, int]:
    inside = [given[p] for p, y in outcomes.items() if y == outcome and given[p] != "external_test"]
    return inside.count("training"), len(inside)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 80), st.sampled_from([0.5, 0.7, 0.8]), st.integers(0, 5), st.randoms(use_true_random=False))
def test_ratio_in_every_stratum_and_no_meaning_in_order(n: int, ratio: float, seed: int, rng: random.Random) -> None:
    outcomes = patients(n)
    found = assign(outcomes, {}, {"c"}, ratio, seed)
    for outcome in (0, 1):
        training, total = share(found, outcomes, outcome)
        assert abs(training - ratio * total) <= 0.5
    assert {p for p, part in found.items() if part == "external_test"} == {p for p in outcomes if p[0] == "c"}
    shuffled = list(outcomes.items())
    rng.shuffle(shuffled)
    assert assign(dict(shuffled), {}, {"c"}, ratio, seed) == found


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 5))
def test_partitions_stay_and_newcomers_keep_the_ratio(n: int, more: int, seed: int) -> None:
    first = assign(patients(n), {}, {"c"}, 0.7, seed)
    everyone = patients(n + more)
    later = assign(everyone, first, {"c"}, 0.7, seed + 1)
    assert first.items() <= later.items()
    for outcome in (0, 1):
        training, total = share(later, everyone, outcome)
        assert abs(training - 0.7 * total) <= 0.5


def test_seed_decides() -> None:
    draws = [assign(patients(60), {}, (), 0.7, seed) for seed in range(3)]
    assert draws[0] != draws[1] != draws[2]


def test_contradictions_are_refused_both_ways() -> None:
    first = assign(patients(12), {}, {"c"}, 0.7, 0)
    with pytest.raises(PartitionConflict, match=" of b "):
        assign(patients(12), first, {"b", "c"}, 0.7, 0)
    with pytest.raises(PartitionConflict, match=" of c "):
        assign(patients(12), first, (), 0.7, 0)
    locked = {("a", "p0"): "locked_test"}
    assert assign(patients(12), locked, {"a"}, 0.7, 0)["a", "p0"] == "locked_test"
