from __future__ import annotations

from datetime import UTC, datetime, timedelta

from feature_store.follow_up_window import gone, least_days
from feature_store.store import FeatureStore
from tests.feature_store.examples import case


def test_days_gone_by_are_counted_from_the_push() -> None:
    pushed = datetime(2030, 1, 1, tzinfo=UTC)
    assert gone(-5, pushed, pushed + timedelta(days=400, hours=23)) == 395
    assert gone(200, pushed, pushed) == 200
    assert gone(200, pushed, pushed - timedelta(days=3)) == 200  # another machine's clock


def visit(patient: str, day: int) -> dict[str, object]:
    return {"site": "a", "patient_id": patient, "days_from_index": day, "rater": "A", "level": "L3-L4", "ucla": 1}


def test_what_visits_and_images_say_as_of_a_moment(store: FeatureStore) -> None:
    names = ("followed", "imaged", "undated", "silent")
    for name, days in zip(names, (-3, -3, -3, None), strict=True):
        tables = case(name, days=days)
        if name == "undated":
            tables["cases"][0]["index_date_known"] = False
        store.push(tables, kind="case", source="a")
    cases = [("a", name, f"case-a-{name}") for name in names]
    assert least_days(store.snapshot(), cases) == [-3, -3, None, None]
    before = store.snapshot().sequence
    store.push({"follow_up": [visit("followed", 200), visit("undated", 90)]}, kind="outcome", source="a")
    store.push({"follow_up": [visit("followed", 190)]}, kind="outcome", source="a")
    assert least_days(store.snapshot(), cases) == [200, -3, 90, None]
    assert least_days(store.snapshot().at(before), cases) == [-3, -3, None, None]
    keys = {name: value for name, value in visit("followed", 200).items() if name != "ucla"}
    store.push({}, kind="withdrawal", source="a", withdraw={"follow_up": [keys]})
    assert least_days(store.snapshot(), cases) == [190, -3, 90, None]
