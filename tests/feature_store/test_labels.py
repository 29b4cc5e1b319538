from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from feature_store.errors import UsageError
from feature_store.labels import CRITERIA, derive_label

POSITIVE = {
    "spondylolisthesis_mm": 4.1, "angular_motion_deg": 10.1, "disc_height_loss_pct": 10.1, "ucla": 2, "pfirrmann": 4,
}  # fmt: skip
NEGATIVE = {
    "spondylolisthesis_mm": 4.0, "angular_motion_deg": 10.0, "disc_height_loss_pct": 10.0, "ucla": 1, "pfirrmann": 3,
}  # fmt: skip
VALUES = {"+": POSITIVE, "-": NEGATIVE, "?": dict.fromkeys(POSITIVE)}
ONE_NEIGHBOUR = ["L5-S1"]  # only L4-L5 lies next to it
TWO = ["L4-L5"]


def row(
    states: str = "-----", *, day: int = 365, rater: str = "A", level: str = "L4-L5", **values: Any
) -> dict[str, Any]:
    found = {name: VALUES[state][name] for name, state in zip(POSITIVE, states, strict=True)}
    return {"days_from_index": day, "rater": rater, "level": level, **found, **values}


@pytest.mark.parametrize("states", ["".join(s) for s in product("+-?", repeat=5)])
def test_truth_table(states: str) -> None:
    label = derive_label([row(states)], ONE_NEIGHBOUR)
    positives = {f"L4-L5:{name}" for name, state in zip(POSITIVE, states, strict=True) if state == "+"}
    expected = 1 if "+" in states else 0 if states == "-----" else None
    assert (label.outcome, label.incident, set(label.criteria)) == (expected, expected, positives)
    assert label.last_day == (None if states == "?????" else 365)


@pytest.mark.parametrize(
    ("name", "negative", "positive"),
    [
        ("spondylolisthesis_mm", 4.0, 4.000001),
        ("angular_motion_deg", 10.0, 10.000001),
        ("disc_height_loss_pct", 10.0, 10.000001),
        ("disc_height_loss_pct", -30.0, 10.5),
        ("ucla", 1, 2),
        ("pfirrmann", 3, 4),
    ],
)
def test_boundaries(name: str, negative: float, positive: float) -> None:
    assert derive_label([row(**{name: negative})], ONE_NEIGHBOUR).outcome == 0
    assert derive_label([row(**{name: positive})], ONE_NEIGHBOUR).outcome == 1


def test_five_criteria() -> None:
    assert tuple(CRITERIA) == tuple(POSITIVE)


@pytest.mark.parametrize(("day", "outcome"), [(179, None), (180, 1), (181, 1), (0, None), (-10, None)])
def test_six_months(day: int, outcome: int | None) -> None:
    label = derive_label([row("+----", day=day)], ONE_NEIGHBOUR)
    assert label.outcome == outcome
    assert label.rule == "asdeg-v1-180d"
    later = derive_label([row("+----", day=day)], ONE_NEIGHBOUR, min_days=181)
    assert later.outcome == (1 if day >= 181 else None)
    assert later.rule == "asdeg-v1-181d"


def test_every_adjacent_disc_counts_and_no_other() -> None:
    above, below = row(level="L3-L4"), row(level="L5-S1")
    assert derive_label([above, below], TWO).outcome == 0
    assert derive_label([above], TWO).outcome is None
    assert derive_label([above, row("++++-", level="L4-L5"), row("+++++", level="L2-L3"), below], TWO).outcome == 0
    assert derive_label([row("????+", level="L3-L4")], TWO).criteria == ("L3-L4:pfirrmann",)
    assert derive_label([row(level="L2-L3"), below], ["L3-L4", "L4-L5"]).outcome == 0
    assert derive_label([row(level="L2-L3")], ["L3-L4", "L4-L5", "L5-S1"]).outcome == 0


def test_a_patient_measured_in_pieces() -> None:
    pieces = [row("--???", rater="A"), row("??---", rater="B", day=500)]
    assert derive_label(pieces, ONE_NEIGHBOUR).outcome == 0
    assert derive_label(pieces, ONE_NEIGHBOUR).last_day == 500
    assert derive_label([row("-----", day=200), row("+????", day=700)], ONE_NEIGHBOUR).outcome == 1
    assert derive_label([row("+----", day=200), row("-----", day=700)], ONE_NEIGHBOUR).outcome == 1


@pytest.mark.parametrize(
    ("readings", "outcome"),
    [
        ([("A", "-----"), ("B", "-----")], 0),
        ([("A", "+----"), ("B", "+----")], 1),
        ([("A", "+----"), ("B", "-----")], None),
        ([("A", "+----"), ("B", "?----")], 1),
        ([("A", "+----"), ("B", "-----"), ("adjudicator", "+????")], 1),
        ([("A", "+----"), ("B", "-----"), ("adjudicator", "-????")], 0),
        ([("A", "+----"), ("B", "-----"), ("adjudicator", "?----")], None),
        ([("A", "+----"), ("B", "+----"), ("adjudicator", "-????")], 0),
        ([("A", "++---"), ("B", "-+---")], 1),
    ],
)
def test_raters(readings: list[tuple[str, str]], outcome: int | None) -> None:
    rows = [row(states, rater=rater) for rater, states in readings]
    assert derive_label(rows, ONE_NEIGHBOUR).outcome == outcome
    assert derive_label(rows[::-1], ONE_NEIGHBOUR).outcome == outcome


def test_an_adjudicator_may_come_later() -> None:
    dispute = [row("+----", rater="A"), row("-----", rater="B")]
    assert derive_label([*dispute, row("-????", rater="adjudicator", day=400)], ONE_NEIGHBOUR).outcome == 0
    assert derive_label([*dispute, row("-????", rater="adjudicator", day=300)], ONE_NEIGHBOUR).outcome is None
    assert derive_label([*dispute, row("-----", day=900)], ONE_NEIGHBOUR).outcome is None  # still in dispute


def test_incident_leaves_out_what_was_there_before() -> None:
    before, after = row("+----", day=-20), row("+----")
    label = derive_label([before, after], ONE_NEIGHBOUR)
    assert (label.outcome, label.incident) == (1, 0)
    assert derive_label([row("+----", day=0), row("++---")], ONE_NEIGHBOUR).incident == 1
    assert derive_label([row("+----", day=1), after], ONE_NEIGHBOUR).incident == 1  # after surgery is not before
    assert derive_label([before, row("+?---")], ONE_NEIGHBOUR).incident is None
    assert derive_label([row("+++++", day=-1), row("+++++")], ONE_NEIGHBOUR).incident is None
    assert derive_label([row("+----", day=-20, level="L3-L4"), row("+----", level="L5-S1")], TWO).incident == 1


def test_unknown_fusion_and_wrong_words() -> None:
    assert derive_label([row()], None).reason == "fused levels unknown"
    assert derive_label([row()], []).outcome is None
    assert derive_label([], TWO).outcome is None
    with pytest.raises(UsageError):
        derive_label([row()], ["L4"])
    assert derive_label([row(spondylolisthesis_mm=float("nan"))], ONE_NEIGHBOUR).outcome is None
