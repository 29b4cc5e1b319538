from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from feature_store.cohort_settings import CohortSettings, Inclusion
from feature_store.cohorts import freeze_cohort, load_cohort
from feature_store.errors import NotFound, PartitionConflict, SettingsError, TooFewPatients
from feature_store.store import FeatureStore
from tests.feature_store.examples import case, feature_set, label, radiomics


def fill(store: FeatureStore, patients: range, site: str = "a", **clinical: Any) -> None:
    tables: dict[str, list[dict[str, Any]]] = {}
    for i in patients:
        for name, rows in case(f"p{i}", site, **clinical).items():
            tables.setdefault(name, []).extend(rows)
        tables.setdefault("labels", []).append(label(f"p{i}", i % 2, site))
    store.push(tables, kind="case", source=site)


def settings(**more: Any) -> CohortSettings:
    return CohortSettings(name="study", **more)


def test_freeze_and_load(store: FeatureStore) -> None:
    fill(store, range(20))
    fill(store, range(6), "ext")
    cohort = freeze_cohort(store, settings(external_sites=("ext",)))
    assert (cohort.version, cohort.as_of, cohort.rule) == (1, 2, "asdeg-v1-180d")
    counts = Counter(zip(cohort.members["partition"], cohort.members["outcome"], strict=True))
    assert counts == {
        ("training", 0): 7, ("training", 1): 7, ("internal_validation", 0): 3, ("internal_validation", 1): 3,
        ("external_test", 0): 3, ("external_test", 1): 3,
    }  # fmt: skip
    loaded = load_cohort(store.snapshot(), "study")
    assert loaded.members.equals(cohort.members)
    assert (loaded.version, loaded.as_of, loaded.rule) == (1, 2, "asdeg-v1-180d")
    with pytest.raises(NotFound):
        load_cohort(store.snapshot(), "study", 2)
    with pytest.raises(NotFound):
        load_cohort(store.snapshot(), "other")


def test_the_same_again_is_the_same_version(store: FeatureStore) -> None:
    fill(store, range(10))
    first = freeze_cohort(store, settings())
    assert freeze_cohort(store, settings()).version == 1
    store.push({"feature_sets": [feature_set()]}, kind="features", source="x")
    again = freeze_cohort(store, settings())
    assert (again.version, again.as_of) == (1, first.as_of)
    assert store.snapshot().sequence == 3
    # new features of a member: the table made from the cohort would differ, so it is another version
    store.push({"radiomics": [radiomics("p1", [1.0, 2.0, 3.0])]}, kind="features", source="x")
    newer = freeze_cohort(store, settings())
    assert (newer.version, newer.as_of) == (2, 4)
    assert newer.members.equals(first.members)
    store.push({"radiomics": [radiomics("p99", [1.0, 2.0, 3.0])]}, kind="features", source="x")  # nobody's
    assert freeze_cohort(store, settings()).version == 2


def test_partitions_are_for_ever(store: FeatureStore) -> None:
    fill(store, range(10))
    fill(store, range(4), "b")
    first = freeze_cohort(store, settings(external_sites=("b",)))
    fill(store, range(10, 30))
    other = freeze_cohort(store, CohortSettings(name="other", external_sites=("b",), seed=9))
    assert other.version == 1
    both = first.members.merge(other.members, on=["site", "patient_id"])
    assert len(both) == 14
    assert (both["partition_x"] == both["partition_y"]).all()
    assert (other.members["partition"] == "training").sum() == 22  # 11 of 15 in each outcome
    with pytest.raises(PartitionConflict):
        freeze_cohort(store, CohortSettings(name="third"))
    # a corrected outcome is a new version; the partition stays
    store.push({"labels": [label("p0", 1)]}, kind="outcome", source="a")
    second = freeze_cohort(store, settings(external_sites=("b",)))
    assert second.version == 2
    merged = other.members.merge(second.members, on=["site", "patient_id"])
    assert (merged["partition_x"] == merged["partition_y"]).all()
    assert (merged["outcome_x"] != merged["outcome_y"]).sum() == 1


def test_everyone_left_out_is_counted(store: FeatureStore) -> None:
    known = {"prior_surgery": False, "infection_or_tumour": False, "image_quality": "good", "surgical_segments": 2}
    bent: list[dict[str, Any]] = [
        {}, {"prior_surgery": True}, {"infection_or_tumour": True}, {"image_quality": "poor"},
        {"surgical_segments": None, "image_quality": None}, {"image_quality": "acceptable"},
        {"procedure": "TLIF"}, {"prior_surgery": True, "image_quality": "poor"},
    ]  # fmt: skip
    for i, change in enumerate(bent):
        fill(store, range(i, i + 1), **{**known, **change})
    store.push(case("x1", **known), kind="case", source="a")
    labels = [label("x2", None), label("x3", 1, last_day=200)]
    store.push(case("x2", **known) | {"labels": labels}, kind="case", source="a")
    store.push(case("x3", **known), kind="case", source="a")
    rules = Inclusion(procedures=("PLIF",), follow_up_days=365)
    cohort = freeze_cohort(store, settings(inclusion=rules))
    assert set(cohort.members["patient_id"]) == {"p0", "p4", "p5"}
    partitions = {"training", "internal_validation"}
    assert {k: v for k, v in cohort.flow.items() if k not in partitions} == {
        "cases": 11, "members": 3,
        "excluded: no follow-up": 1, "excluded: outcome unknown": 1, "excluded: follow-up window open": 1,
        "excluded: prior_surgery": 2, "excluded: infection_or_tumour": 1, "excluded: image_quality": 1,
        "excluded: procedure": 1,
        "kept with unknown surgical_segments": 1, "kept with unknown image_quality": 1,
        "kept with unknown procedure": 3,
    }  # fmt: skip
    lenient = settings(exclusion={"prior_surgery": False, "image_quality": []}, inclusion={"surgical_segments": [1]})
    assert set(freeze_cohort(store, lenient).members["patient_id"]) == {"p4"}


def test_nobody_and_nowhere(store: FeatureStore) -> None:
    with pytest.raises(TooFewPatients):
        freeze_cohort(store, settings())
    fill(store, range(3))
    with pytest.raises(SettingsError, match="nowhere"):
        freeze_cohort(store, settings(external_sites=("nowhere",)))


def test_two_freezes_at_once_agree_on_partitions(store: FeatureStore) -> None:
    fill(store, range(20))
    other = FeatureStore.open(store.uri)
    commit = store._push_log.commit

    def commit_second(*args: Any) -> int:
        store._push_log.commit = commit  # type: ignore[method-assign]
        freeze_cohort(other, CohortSettings(name="other", seed=5))
        return commit(*args)

    store._push_log.commit = commit_second  # type: ignore[method-assign]
    mine = freeze_cohort(store, settings(seed=1))
    theirs = load_cohort(store.snapshot(), "other")
    assert mine.members.equals(theirs.members)


def test_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "cohort.yaml"
    path.write_text(
        "name: study\nexternal_sites: [b]\nratio: 0.8\nexclusion: {prior_surgery: false}\nsequences: [ct]\n"
    )
    read = CohortSettings.load(path)
    assert (read.ratio, read.external_sites, read.exclusion.prior_surgery, read.sequences) == (
        0.8,
        ("b",),
        False,
        ("ct",),
    )
    for text, wrong in (
        ("name: study\nratios: 1\n", "ratios"),
        ("name: x\nratio: 2\n", "ratio"),
        ("[", "YAML"),
        ("", "file"),
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match=wrong):
            CohortSettings.load(path)
    with pytest.raises(SettingsError):
        CohortSettings.load(tmp_path / "nothing.yaml")
