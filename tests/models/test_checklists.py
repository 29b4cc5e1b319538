"""Checklists say met only where the records hold what is asked for, and never know more than the records."""

from __future__ import annotations

from typing import Any

import pytest

from models.report.checklists import Checklist, Item, answers, counted, load

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


def test_without_records_nothing_is_met_but_what_the_software_does() -> None:
    for checklist in load():
        found = answers(checklist, {})
        met = {answer.id for answer in found if answer.state == "met"}
        assert met == {item.id for item in checklist.items if item.software}
        assert sum(counted(found).values()) == len(checklist.items)


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
        Item(id="1", item="x", software="a", unknown="b")
    with pytest.raises(ValueError, match="exactly one"):
        Item(id="1", item="x", there=("metrics",))
    with pytest.raises(ValueError):
        Checklist(name="x", source="y", items=())
