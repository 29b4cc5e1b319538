"""The outcome, derived from follow-up by a rule that states its version.

A patient has adjacent segment degeneration (1) when at any follow-up of ``min_days`` or later any of five
criteria is positive on a disc next to the fusion; not (0) when all five were measured and negative on
every such disc; otherwise the outcome is unknown. Criteria (paper, Methods): slip over 4 mm, angular
motion over 10°, loss of disc height over 10 %, UCLA grade 2 or more, Pfirrmann grade IV or more; a
value on a boundary of "over" is negative.

Raters are compared visit by visit (the same day, level and criterion): where they agree the reading
counts, where they do not the ``adjudicator``'s reading of that day or the next later one decides, and
without one the visit leaves the criterion unknown. An adjudicator's reading wins on its own day.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.vocabulary import adjacent_segments

MIN_DAYS = 180
"""Six months."""

RULE_VERSION = "asdeg-v1"
ADJUDICATOR = "adjudicator"

CRITERIA: dict[str, Callable[[float], bool]] = {
    "spondylolisthesis_mm": lambda mm: mm > 4.0,
    "angular_motion_deg": lambda degrees: degrees > 10.0,
    "disc_height_loss_pct": lambda percent: percent > 10.0,
    "ucla": lambda grade: grade >= 2,
    "pfirrmann": lambda grade: grade >= 4,
}
"""Column of `follow_up` to whether a value of it is positive."""

Place = tuple[str, str]
"""Disc level and criterion."""


@dataclass(frozen=True)
class Label:
    """``outcome`` and ``incident``: 1, 0 or None; ``criteria``: what is positive, as level:criterion."""

    outcome: int | None
    incident: int | None
    criteria: tuple[str, ...]
    reason: str
    last_day: int | None
    rule: str


def rule_name(min_days: int = MIN_DAYS) -> str:
    """Version and setting of the rule, for example ``asdeg-v1-180d``."""
    return f"{RULE_VERSION}-{min_days}d"


def derive_label(
    measurements: Sequence[Mapping[str, Any]], fused_levels: Sequence[str] | None, *, min_days: int = MIN_DAYS
) -> Label:
    """Apply the rule to one patient's rows of `follow_up` and the fused discs.

    ``incident`` leaves out what was positive already before surgery (days_from_index <= 0); it is None
    where nothing else is left to judge. Raises UsageError where a fused level is no disc.
    """
    rule = rule_name(min_days)
    if not fused_levels:
        return Label(None, None, (), "fused levels unknown", None, rule)
    adjacent = adjacent_segments(tuple(fused_levels))
    places = [(level, criterion) for level in adjacent for criterion in CRITERIA]
    rows = [row for row in measurements if row["level"] in adjacent and _measured(row)]
    late = [row for row in rows if row["days_from_index"] >= min_days]
    if not late:
        return Label(None, None, (), f"no follow-up at {min_days} days or later", None, rule)
    last_day = max(int(row["days_from_index"]) for row in late)
    before = _judge([row for row in rows if row["days_from_index"] <= 0])
    after = _judge(late)
    outcome = _conclude(places, after)
    incident = _conclude([place for place in places if before.get(place) is not True], after)
    positive = tuple(f"{level}:{criterion}" for level, criterion in places if after.get((level, criterion)) is True)
    unknown = sum(after.get(place) is None for place in places)
    if outcome == 1:
        reason = f"{len(positive)} criteria positive"
    elif outcome == 0:
        reason = "all criteria measured and negative"
    else:
        reason = f"none positive, {unknown} of {len(places)} criteria missing or in dispute"
    return Label(outcome, incident, positive, reason, last_day, rule)


def _measured(row: Mapping[str, Any]) -> bool:
    return any(_value(row, criterion) is not None for criterion in CRITERIA)


def _value(row: Mapping[str, Any], criterion: str) -> float | None:
    value = row.get(criterion)
    return None if value is None or math.isnan(value) else float(value)


def _conclude(places: Iterable[Place], judged: Mapping[Place, bool | None]) -> int | None:
    found = [judged.get(place) for place in places]
    if any(found):
        return 1
    return 0 if found and all(value is False for value in found) else None


def _judge(rows: Sequence[Mapping[str, Any]]) -> dict[Place, bool | None]:
    """Positive, negative or (in dispute) None for every level and criterion that was measured at all."""
    visits: dict[Place, dict[int, dict[str, bool]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        for criterion, is_positive in CRITERIA.items():
            value = _value(row, criterion)
            if value is not None:
                place = (str(row["level"]), criterion)
                visits[place][int(row["days_from_index"])][str(row["rater"])] = is_positive(value)
    return {place: _over_time(days) for place, days in visits.items()}


def _over_time(days: Mapping[int, Mapping[str, bool]]) -> bool | None:
    adjudicated = {day: raters[ADJUDICATOR] for day, raters in sorted(days.items()) if ADJUDICATOR in raters}
    settled: list[bool | None] = []
    for day, raters in days.items():
        readings = set(raters.values())
        if day in adjudicated:
            settled.append(adjudicated[day])
        elif len(readings) == 1:
            settled.append(readings.pop())
        else:
            settled.append(next((value for later, value in adjudicated.items() if later > day), None))
    if any(settled):
        return True
    return None if None in settled else False
