"""The short form of ``make torture``, and that its judge sees what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feature_store.store import FeatureStore
from tests.torture.run import MUST_BE_NONE, count, judge, torture
from tests.torture.workers import marked, torn, twice


@pytest.mark.cores
def test_kills_of_everybody_lose_nothing(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    found = torture(str(tmp_path / "store"), notes, kills=6, writers=3, extractors=1, readers=1, seed=1)
    assert {name: found[name] for name in MUST_BE_NONE if found[name]} == {}, found["what_was_torn"]
    assert sum(found["kills"].values()) == 6
    assert min(found["acknowledged"], found["reads"]) > 0


def test_the_judge_sees_what_is_lost_doubled_and_torn(folder_store: FeatureStore) -> None:
    lines: list[dict[str, Any]] = []
    for mark, patient in enumerate(("p1", "p2", "p1", "p3"), start=1):
        receipt = folder_store.push(marked(patient, "a", mark), kind="case", source="a")
        lines.append({"kind": "case", "mark": mark, "sequence": receipt.sequence})
    whole = folder_store.snapshot()
    fine = count(whole, lines)
    assert not any(fine[name] for name in MUST_BE_NONE if name in fine)
    assert count(whole, [*lines, {"kind": "case", "mark": 9, "sequence": 5}])["lost"] == 1
    moved = count(whole, [*lines[:2], {**lines[2], "sequence": 1}, lines[3]])
    assert (moved["lost"], moved["duplicated"]) == (1, 1)
    # the same case of the same writer stands in two pushes
    folder_store.push(marked("p2", "a", 5), kind="case", source="a")
    folder_store.push(marked("p2", "a", 2), kind="case", source="a")
    assert count(folder_store.snapshot(), lines)["duplicated"] == 1
    # half a case
    folder_store.push({"clinical": marked("p3", "a", 6)["clinical"]}, kind="case", source="a")
    assert torn(folder_store.snapshot()) == ["a case is of several pushes"]
    # rows of a committed push that are not there
    last = folder_store.snapshot().pushes["push_id"].to_pylist()[0]
    folder_store.log("series").remove_pushes([last])
    reader = FeatureStore.open(folder_store.uri)
    assert "a push is torn in series" in torn(reader.snapshot())
    assert judge(folder_store.uri, lines)["broken_promises"] != []
    assert twice(reader.snapshot()) == 0
