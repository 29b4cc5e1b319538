from __future__ import annotations

import pytest
from pydantic import ValidationError

from feature_store.errors import NotFound
from feature_store.store import FeatureStore
from models.encoders import EncoderSettings
from pipelines.extraction.plan import ExtractionPlan, ExtractionSettings, plan_extraction
from pipelines.radiomics.feature_sets import STUDY_CT, STUDY_MR
from tests.feature_store.examples import encoder, feature_set
from tests.pipelines.extraction.extraction_store import add_series

ENCODER = EncoderSettings()


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore.open(tmp_path / "store", create=True)


def _plan(store, encoder=ENCODER, **settings) -> ExtractionPlan:
    return plan_extraction(store.snapshot(), ExtractionSettings(**settings), encoder)


def _levels(plan) -> list[str]:
    return [job.source.name.level for series in plan.series for job in series.rois]


def _store_features(store, plan, error=None) -> None:
    """What a run would push for the whole plan."""
    jobs = [job for series in plan.series for job in series.rois]
    common = {"software_version": "test", "error": error}
    tables = {
        "radiomics": [
            {**j.source.row(), **common, "feature_set": j.feature_set, "values": None if error else [1.0]}
            for j in jobs
            if j.feature_set
        ],
        "embeddings": [
            {**j.source.row(), **common, "encoder": j.encoder, "values": None if error else [1.0] * 4}
            for j in jobs
            if j.encoder
        ],
        "feature_sets": [feature_set(name, ("one",)) for name in {j.feature_set for j in jobs} if name],
        "encoders": [encoder(name) for name in {j.encoder for j in jobs} if name],
    }
    receipt = store.push({t: rows for t, rows in tables.items() if rows}, kind="features", source="extraction")
    assert not receipt.rejected


def test_unions_by_default_and_every_label_when_asked(store):
    add_series(store, "p1")
    assert _levels(_plan(store)) == ["all"]
    assert sorted(_levels(_plan(store, rois="every"))) == ["L4", "L5", "all"]


def test_labels_stand_in_where_a_structure_has_no_union(store):
    add_series(store, "p1", whole=False)
    add_series(store, "p2")
    assert sorted(_levels(_plan(store))) == ["L4", "L5", "all"]


def test_ct_and_mr_get_their_feature_sets_unless_one_is_named(store):
    add_series(store, "p1", "ct")
    add_series(store, "p1", "t2_sag")
    by_sequence = {s.rois[0].source.name.sequence: s.rois[0].feature_set for s in _plan(store).series}
    assert by_sequence == {"ct": STUDY_CT.id, "t2_sag": STUDY_MR.id}
    assert set(_plan(store, feature_set="pyradiomics-default").feature_sets) != {STUDY_CT.id, STUDY_MR.id}
    with pytest.raises(NotFound):
        _plan(store, feature_set="unheard-of")


def test_one_job_a_series_with_all_its_rois(store):
    add_series(store, "p1", "ct")
    add_series(store, "p1", "t2_sag")
    plan = _plan(store, rois="every")
    assert [len(series.rois) for series in plan.series] == [3, 3]
    assert plan.total == 6
    assert [tally.to_do for tally in plan.cases.values()] == [6]


def test_what_is_stored_is_left_out_output_by_output(store):
    add_series(store, "p1")
    _store_features(store, _plan(store, encoder=None))
    plan = _plan(store)
    job = plan.series[0].rois[0]
    assert (job.feature_set, job.encoder) == (None, ENCODER.id)
    _store_features(store, plan)
    plan = _plan(store)
    assert plan.series == []
    assert plan.left_out == 1
    (tally,) = plan.cases.values()
    assert (tally.to_do, tally.usable, tally.reasons) == (0, 1, [])
    # another feature set, or another encoder, is another row
    assert _plan(store, feature_set="pyradiomics-default").total == 1
    assert _plan(store, encoder=EncoderSettings(margin_mm=9.0)).total == 1


def test_failed_rois_are_left_out_until_they_are_to_be_retried(store):
    add_series(store, "p1")
    _store_features(store, _plan(store), error="RoiTooSmall: one voxel.")
    plan = _plan(store)
    assert plan.total == 0
    (tally,) = plan.cases.values()
    assert tally.usable == 0
    assert tally.reasons == ["t2_sag/vertebral_body/all/both/primary: RoiTooSmall: one voxel."]
    assert _plan(store, retry_failed=True).total == 1


def test_a_new_image_is_extracted_again_and_the_replaced_one_is_not(store):
    old = add_series(store, "p1", seed=1)
    _store_features(store, _plan(store))
    new = add_series(store, "p1", seed=2)
    plan = _plan(store)
    assert [series.image_hash for series in plan.series] == [new]
    assert old != new


def test_sites_and_segmentations_can_be_chosen(store):
    add_series(store, "p1", site="a")
    add_series(store, "p1", site="b")
    assert _plan(store).total == 2
    assert [s.rois[0].source.case[0] for s in _plan(store, sites=("b",)).series] == ["b"]
    assert _plan(store, segmentations=("reader_a",)).total == 0


def test_nothing_to_plan_in_an_empty_store(store):
    plan = _plan(store)
    assert (plan.series, plan.left_out, plan.cases) == ([], 0, {})


def test_settings_refuse_unknown_keys():
    with pytest.raises(ValidationError):
        ExtractionSettings(rois="some")
    with pytest.raises(ValidationError):
        ExtractionSettings(speed=3)
