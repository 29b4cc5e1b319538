"""What a site takes back is gone from then on, stays in older views, and is named where it was used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from feature_store.cohort_settings import CohortSettings
from feature_store.cohorts import freeze_cohort
from feature_store.errors import NotFound
from feature_store.retrieval import patient_features, training_table
from feature_store.store import FeatureStore
from feature_store.touched import changed_since, touched
from feature_store.withdrawal import no_longer_there, withdraw_case
from tests.feature_store.examples import ROIS, case, encoder, feature_set, ids, label, radiomics

SET = "study-mr-0a1b2c3d"


def filled(store: FeatureStore, patients: int = 4) -> FeatureStore:
    store.push({"feature_sets": [feature_set(SET)]}, kind="feature_set", source="x")
    for number in range(patients):
        name = f"p{number}"
        store.push(case(name), kind="case", source="a")
        rows = [radiomics(name, [float(number), 1.0, 2.0], roi, name=SET) for roi in ROIS]
        store.push({"labels": [label(name, number % 2)], "radiomics": rows}, kind="features", source="x")
    return store


def push_again(store: FeatureStore, tables: dict[str, list[dict[str, Any]]]) -> Any:
    gone = no_longer_there(store.snapshot(), tables["cases"][0], tables)
    return store.push(tables, kind="case", source="a", withdraw=gone)


def test_a_region_that_is_no_longer_sent_is_gone_with_its_features(store: FeatureStore) -> None:
    before = filled(store).snapshot()
    smaller = case("p1")
    smaller["rois"] = smaller["rois"][:1]
    receipt = push_again(store, smaller)
    assert receipt.withdrawn == {"rois": 1}
    assert receipt.written == {"cases": 0, "series": 0, "rois": 1, "clinical": 0}
    found = store.snapshot().table("rois", where={"patient_id": "p1"})
    assert found["structure"].to_pylist() == [ROIS[0].structure]
    assert {name.split(".")[0] for name in patient_features(store.snapshot(), "a", "p1", [SET], ROIS)} == {"ct"}
    assert len(patient_features(before, "a", "p1", [SET], ROIS)) == 6  # an older view has both still
    assert len(patient_features(store.snapshot(), "a", "p2", [SET], ROIS)) == 6
    assert push_again(store, smaller).sequence is None  # the same again changes nothing
    whole = push_again(store, case("p1"))
    assert whole.written["rois"] == 1
    assert len(patient_features(store.snapshot(), "a", "p1", [SET], ROIS)) == 6
    history = store.snapshot().revisions("rois", where={"patient_id": "p1", "sequence": ROIS[1].sequence})
    assert history["withdrawn"].to_pylist() == [None, True, None]


def test_features_of_a_mask_that_was_replaced_do_not_count(store: FeatureStore) -> None:
    corrected = case("p1")
    corrected["rois"][0]["mask_hash"] = "ee"
    push_again(filled(store), corrected)
    assert {name.split(".")[0] for name in patient_features(store.snapshot(), "a", "p1", [SET], ROIS)} == {"t2_sag"}
    again = radiomics("p1", [7.0, 8.0, 9.0], ROIS[0], name=SET) | {"mask_hash": "ee"}
    store.push({"radiomics": [again]}, kind="features", source="x")
    assert 7.0 in patient_features(store.snapshot(), "a", "p1", [SET], ROIS).values()


def test_a_drawn_region_stays_while_its_image_does(store: FeatureStore) -> None:
    filled(store)
    drawn = case("p1")["rois"][1] | {"segmenter": "ct-0a1b2c3d"}
    store.push({"rois": [drawn]}, kind="segmentation", source="x")
    without = case("p1")
    without["rois"] = without["rois"][:1]
    assert push_again(store, without).withdrawn == {}
    for row in without["series"]:
        row["image_hash"] = "ff"
    assert push_again(store, without).withdrawn == {"rois": 1}


def test_a_withdrawn_case_is_gone_and_what_used_it_is_named(store: FeatureStore) -> None:
    frozen = freeze_cohort(filled(store), CohortSettings(name="study"))
    before = training_table(store.snapshot(), "study", [SET], rois=ROIS)
    now = datetime.now(UTC)
    run = {
        "run_id": "r1", "kind": "training", "state": "finished", "cohort": "study", "version": 1, "settings": "{}",
        "artefacts": '{"rad": "abc", "report/report.html": "def"}', "started_at": now, "software_version": "test",
    }  # fmt: skip
    score = {
        **ids("p1"), "score_id": "s1", "kind": "rad", "signature": "abc", "probability": 0.5, "high_risk": False,
        "threshold": 0.6, "moved_by": "[]", "asked_by": "app", "asked_at": now, "as_of": 3,
    }  # fmt: skip
    tuned = encoder("vit_small-99999999", seen=["a/p1", "a/p2"], outcomes=True)
    rows = {"training_runs": [run], "scores": [score], "encoders": [encoder(), tuned]}
    store.push(rows, kind="run", source="x")
    case_id = withdraw_case(store, "a", "p1", "consent withdrawn", "registry")
    snapshot = store.snapshot()
    for name in ("cases", "series", "rois", "clinical"):
        assert "p1" not in snapshot.table(name, ["patient_id"])["patient_id"].to_pylist()
        assert "p2" in snapshot.table(name, ["patient_id"])["patient_id"].to_pylist()
    with pytest.raises(NotFound):
        patient_features(snapshot, "a", "p1", [SET], ROIS)
    with pytest.raises(NotFound):
        withdraw_case(store, "a", "p1", "again", "registry")
    (found,) = touched(snapshot)
    assert (found.case_id, found.scores, found.cohorts) == (case_id, 1, ("study v1",))
    assert (found.runs, found.signatures, found.nets) == (("r1",), ("abc",), ("vit_small-99999999",))
    assert found.score_ids == ("s1",)
    assert [changed_since(snapshot, "a", one, f"case-a-{one}", 3) for one in ("p1", "p2")] == ["withdrawn", None]
    assert touched(snapshot, "b") == []
    # the frozen cohort's table can still be made again as it was; a new freeze is without the patient
    again = training_table(snapshot, "study", [SET], rois=ROIS)
    assert again.features.equals(before.features)
    newer = freeze_cohort(store, CohortSettings(name="study"))
    assert newer.version == 2
    assert len(newer.members) == len(frozen.members) - 1


def test_a_withdrawn_case_may_come_back(store: FeatureStore) -> None:
    withdraw_case(filled(store), "a", "p1", "wrong side", "registry")
    assert push_again(store, case("p1")).written == {"cases": 1, "series": 2, "rois": 2, "clinical": 1}
    assert len(patient_features(store.snapshot(), "a", "p1", [SET], ROIS)) == 6
    score = {
        **ids("p1"), "score_id": "s9", "kind": "rad", "signature": "abc", "probability": 0.5, "high_risk": False,
        "threshold": 0.6, "moved_by": "[]", "asked_by": "app", "asked_at": datetime.now(UTC),
        "as_of": store.snapshot().sequence,
    }  # fmt: skip
    store.push({"scores": [score]}, kind="scores", source="x")
    assert [(one.change, one.scores) for one in touched(store.snapshot())] == [("withdrawn", 0)]  # it is of what came
    withdraw_case(store, "a", "p1", "wrong again", "registry")
    changes = [(one.reason, one.score_ids) for one in touched(store.snapshot()) if one.change == "withdrawn"]
    assert changes == [("wrong again", ("s9",)), ("wrong side", ())]


def test_what_used_a_case_before_it_was_corrected_is_named(folder_store: FeatureStore) -> None:
    store = filled(folder_store)
    freeze_cohort(store, CohortSettings(name="study"))
    now, at = datetime.now(UTC), store.snapshot().sequence
    run = {
        "run_id": "r1", "kind": "training", "state": "finished", "cohort": "study", "version": 1, "settings": "{}",
        "artefacts": '{"rad": "abc"}', "started_at": now, "software_version": "test",
    }  # fmt: skip
    score = {
        **ids("p1"), "kind": "rad", "signature": "abc", "probability": 0.5, "high_risk": False, "threshold": 0.6,
        "moved_by": "[]", "asked_by": "app", "asked_at": now,
    }  # fmt: skip
    early = {**score, "score_id": "s1", "as_of": at}
    tuned = encoder("vit_small-99999999", seen=["a/p1"], outcomes=True)
    store.push({"training_runs": [run], "scores": [early], "encoders": [tuned]}, kind="run", source="x")
    assert touched(store.snapshot()) == []
    store.push({"radiomics": [radiomics("p1", [7.0, 8.0, 9.0], ROIS[1], name=SET)]}, kind="features", source="x")
    assert touched(store.snapshot()) == []  # made anew from the same image and mask: nothing was corrected
    other = case("p1")
    other["clinical"][0]["age"] = 61.0
    other["rois"][0]["mask_hash"] = "ee"
    push_again(store, other)
    late = {**score, "score_id": "s2", "as_of": store.snapshot().sequence}
    store.push({"scores": [late]}, kind="scores", source="x")
    assert [changed_since(store.snapshot(), "a", "p1", "case-a-p1", row["as_of"]) for row in (early, late)] == [
        "corrected",
        None,
    ]
    (found,) = touched(store.snapshot())
    assert (found.change, found.case_id, found.reason) == ("corrected", "case-a-p1", "another clinical, rois")
    assert (found.scores, found.cohorts, found.runs) == (
        1,
        ("study v1",),
        ("r1",),
    )  # the later score is of the new case
    assert (found.signatures, found.nets) == (("abc",), ("vit_small-99999999",))
    # another outcome than the cohort was frozen with
    store.push({"labels": [label("p2", 1 - label_of(store, "p2"))]}, kind="outcome", source="a")
    changes = {(one.case_id, one.reason): one for one in touched(store.snapshot())}
    assert changes["case-a-p2", "another outcome"].runs == ("r1",)
    assert freeze_cohort(store, CohortSettings(name="study")).version == 2
    assert {one.cohorts for one in touched(store.snapshot())} == {("study v1",)}  # the new version is of the new cases


def label_of(store: FeatureStore, patient: str) -> int:
    (row,) = store.snapshot().table("labels", where={"site": "a", "patient_id": patient}).to_pylist()
    return int(row["outcome"])
