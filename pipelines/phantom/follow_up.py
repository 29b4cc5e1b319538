"""Follow-up measurements that lead the label rule to a phantom's outcome.

Columns as the ``follow_up`` table without the site. Two raters read every visit at both segments adjacent to
the fusion; where their readings disagree on a criterion an adjudicator's row settles it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from feature_store.schemas import FOLLOW_UP
from feature_store.vocabulary import adjacent_segments
from pipelines.phantom.patient import PhantomPatient

COLUMNS = tuple(name for name in FOLLOW_UP.column_names if name != "site")
RATERS = ("rater_a", "rater_b")
ADJUDICATOR = "adjudicator"
DISAGREEMENT = 0.15
"""Share of last visits at which rater B sees one criterion differently."""

CRITERIA = ("spondylolisthesis_mm", "angular_motion_deg", "disc_height_loss_pct", "ucla", "pfirrmann")


def follow_up_rows(patient: PhantomPatient) -> list[dict[str, Any]]:
    """All rows of one patient, in order of day, level, rater."""
    rng = patient.rng("follow_up")
    levels = adjacent_segments(patient.clinical.fused_levels)
    early, late = int(rng.integers(80, 105)), int(rng.integers(185, 401))
    affected = levels[int(rng.integers(len(levels)))]
    preexisting = patient.outcome == 1 and rng.random() < 0.08  # grade IV before surgery and nothing new
    positive: tuple[str, ...] = ()
    if patient.outcome and not preexisting:
        positive = tuple(rng.choice(CRITERIA, size=int(rng.integers(1, 4)), replace=False))

    rows = []
    for level in levels:
        before = _negative(rng)
        if preexisting and level == affected:
            before["pfirrmann"] = 4
        rows += _two_readings(patient, -1, level, before, rng)
        rows += _two_readings(patient, early, level, before | {"disc_height_loss_pct": rng.uniform(0.5, 4.0)}, rng)
        if patient.open_window:
            continue
        after = before | {"disc_height_loss_pct": rng.uniform(0.5, 8.5)}
        if level == affected:
            after |= {name: value for name, value in _positive(rng).items() if name in positive}
        rows += _two_readings(patient, late, level, after, rng)
        if rng.random() < DISAGREEMENT:
            rows += _settled(rows[-1], after)
    return sorted(rows, key=lambda row: (row["days_from_index"], row["level"], row["rater"]))


def _negative(rng: np.random.Generator) -> dict[str, Any]:
    """One segment's true state before surgery: every criterion negative."""
    return {
        "spondylolisthesis_mm": rng.uniform(0.2, 3.2),
        "angular_motion_deg": rng.uniform(2.0, 8.8),
        "disc_height_loss_pct": 0.0,
        "ucla": 1,
        "pfirrmann": int(rng.integers(1, 4)),
    }


def _positive(rng: np.random.Generator) -> dict[str, Any]:
    """A value for each criterion that makes it positive."""
    return {
        "spondylolisthesis_mm": rng.uniform(4.8, 9.0),
        "angular_motion_deg": rng.uniform(11.5, 18.0),
        "disc_height_loss_pct": rng.uniform(12.0, 35.0),
        "ucla": int(rng.integers(2, 5)),
        "pfirrmann": int(rng.integers(4, 6)),
    }


def _two_readings(
    patient: PhantomPatient, day: int, level: str, state: dict[str, Any], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Both raters' rows: the same grades, lengths and angles a little apart (never across a boundary)."""
    rows = []
    for rater in RATERS:
        row = {"patient_id": patient.patient_id, "days_from_index": day, "rater": rater, "level": level, **state}
        row["spondylolisthesis_mm"] = round(max(0.0, state["spondylolisthesis_mm"] + rng.normal(0, 0.1)), 1)
        row["angular_motion_deg"] = round(max(0.0, state["angular_motion_deg"] + rng.normal(0, 0.2)), 1)
        if state["disc_height_loss_pct"]:  # at baseline there is nothing to compare with
            row["disc_height_loss_pct"] = round(state["disc_height_loss_pct"] + rng.normal(0, 0.1), 1)
        rows.append(row)
    return rows


def _settled(second: dict[str, Any], state: dict[str, Any]) -> list[dict[str, Any]]:
    """Rater B's row is turned on one criterion, in place; the adjudicator's row has the true state."""
    truth = second | {"rater": ADJUDICATOR}
    if state["ucla"] >= 2:
        second["ucla"] = 1
    elif state["pfirrmann"] >= 4:
        second["pfirrmann"] = 3
    else:
        second["ucla"] = 2
    return [truth]


def write_outcomes(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A CSV with the columns that ``asdeg outcomes`` takes."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
