"""Checklists say met only where the records hold what is asked for, and never know more than the records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from models.report.checklists import Checklist, Item, answers, counted, load
from models.report.evidence import records_of
from tests.models.test_report import phantom_study

FULL: dict[str, Any] = {
    "title": "a study",
    "metrics": {
        "signatures": {"rad": {"cohorts": {"external_test": {"auc": 0.7, "auc_ci": [0.6, 0.8]}}}},
        "robustness": {"kept": 3},
    },
}


@pytest.mark.parametrize(("name", "count"), [("TRIPOD+AI", 52), ("CLEAR", 58), ("METRICS", 30)])
def test_every_item_of_the_published_list_is_there_once(name: str, count: int) -> None:
    (checklist,) = [one for one in load() if one.name == name]
    ids = [item.id for item in checklist.items]
    assert len(ids) == len(set(ids)) == count


def test_without_records_nothing_is_met() -> None:
    for checklist in load():
        found = answers(checklist, {})
        assert not [answer.id for answer in found if answer.state == "met"]
        assert sum(counted(found).values()) == len(checklist.items)


def _states(records: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {checklist.name: {a.id: a.state for a in answers(checklist, records)} for checklist in load()}


def test_each_verdict_follows_its_own_record() -> None:
    """With one record taken away, exactly the items that rest on it change."""
    development = {"n": 200, "events": 80, "criteria": [{"needed": 150}, {"needed": 199}]}
    study = phantom_study(n=(60, 30, 30))
    study.metrics.update(
        sample_size={"development": development},
        ablation=[{"axis": "sequence", "signature": "rad", "part": "ct", "use": "alone", "cohort": "external_test"}],
        missing_values=[{"variable": "age", "missing": {}, "patients": {}, "left_out": {}}],
    )
    study.metrics["leakage_check"]["structural"] = {"passed": True}
    study.figure_data["facts"]["Software"] = "asdeg 0.1.0"
    title = "Radiomics to predict degeneration after lumbar fusion"
    records = records_of(study, title)
    full = _states(records)

    def changed(**new: Any) -> set[str]:
        now = _states(records | new)
        return {f"{n} {i}" for n, items in full.items() for i, state in items.items() if now[n][i] != state}

    assert (full["TRIPOD+AI"]["1"], full["CLEAR"]["1"], full["METRICS"]["16"]) == ("met", "met", "met")
    assert changed(title_says=records_of(study, "ASDeg study")["title_says"]) == {"TRIPOD+AI 1", "CLEAR 1"}
    assert changed(facts={}) == {"TRIPOD+AI 18f", "CLEAR 56", "METRICS 29"}
    assert changed(axes={}) == {"METRICS 23"}
    only_outcome = {"baseline_table": [{"variable": "outcome"}]}  # every study has it; it describes no patient
    nobody = records_of(replace(study, metrics=study.metrics | only_outcome), title)["baseline"]
    assert changed(baseline=nobody) == {"TRIPOD+AI 16", "TRIPOD+AI 20b", "TRIPOD+AI 20c", "CLEAR 44"}
    assert changed(limits=[]) == {"TRIPOD+AI 26", "CLEAR 52"}
    without = {k: v for k, v in study.metrics.items() if k != "missing_values"}
    assert changed(metrics=without) == {"TRIPOD+AI 11", "CLEAR 29"}
    leaky = study.metrics | {"leakage_check": {"structural": {"passed": False}}}
    assert changed(metrics=leaky) == {"METRICS 18"}
    tuned = study.metrics | {"in_sample": {"encoders": ["e"], "handling": "leave_out"}}
    assert changed(metrics=tuned) == {"METRICS 17"}
    assert _states(records | {"metrics": tuned})["METRICS"]["17"] == "unknown"
    development["n"] = 198  # one too few for the second assumption
    assert changed(enough_patients=records_of(study, title)["enough_patients"]) == {"METRICS 16"}


def test_an_item_is_met_by_what_stands_at_the_end_of_its_path() -> None:
    by_id = {answer.id: answer for answer in answers(load()[2], FULL)}
    assert by_id["27"].state == "met"
    assert by_id["26"].state == "not met"  # no internal validation in these records
    assert by_id["14"].state == "met"
    emptied = {**FULL, "metrics": {**FULL["metrics"], "robustness": {}}}
    assert {a.id: a.state for a in answers(load()[2], emptied)}["14"] == "not met"
    nothing = {**FULL, "metrics": {"signatures": {"rad": {"cohorts": {"external_test": {"auc": None}}}}}}
    assert {a.id: a.state for a in answers(load()[2], nothing)}["27"] == "not met"


def test_an_item_is_answered_in_one_way_only() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Item(id="1", item="x", not_applicable="a", unknown="b")
    with pytest.raises(ValueError, match="exactly one"):
        Item(id="1", item="x", there=("metrics",))
    with pytest.raises(ValueError):
        Checklist(name="x", source="y", items=())
