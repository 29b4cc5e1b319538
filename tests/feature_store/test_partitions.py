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


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(0, 60), st.sampled_from([0.1, 0.25, 0.5]), st.integers(0, 5))
def test_who_is_locked_stays_locked_and_newcomers_fill_the_share(n: int, more: int, locked: float, seed: int) -> None:
    """A share of the internal patients and a whole site; whatever is asked for later, nobody changes sides."""
    first = assign(patients(n), {}, {"c"}, 0.7, seed, {"b"}, locked)
    everyone = patients(n + more)
    later = assign(everyone, first, {"c"}, 0.7, seed + 1, {"b"}, locked)
    without = assign(everyone, first, {"c"}, 0.7, seed)
    assert first.items() <= later.items()
    assert first.items() <= without.items()
    assert {p for p, part in later.items() if p[0] == "b"} == {
        p for p, part in later.items() if p[0] == "b" and part == "locked_test"
    }
    for outcome in (0, 1):
        inside = [later[p] for p, y in everyone.items() if y == outcome and p[0] == "a"]
        assert abs(inside.count("locked_test") - locked * len(inside)) <= 0.5
        training, others = inside.count("training"), len(inside) - inside.count("locked_test")
        assert abs(training - 0.7 * others) <= 0.5


def test_who_was_used_before_cannot_be_locked() -> None:
    first = assign(patients(12), {}, {"c"}, 0.7, 0)
    with pytest.raises(PartitionConflict, match="4 patients of b have been used before"):
        assign(patients(12), first, {"c"}, 0.7, 0, {"b"})
    newcomers = assign(patients(40), first, {"c"}, 0.7, 0, (), 0.2)
    assert first.items() <= newcomers.items()
    assert sum(part == "locked_test" for part in newcomers.values()) == 5  # 4 of 20 without, 1 of 7 with the outcome
