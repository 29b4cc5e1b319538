"""Finished rows into the store: no failure over values; and images of a store that is no folder."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest

from feature_store.blobs import Blobs
from feature_store.control import ControlDatabase, Credential, default_url
from feature_store.erasure import EraseSettings, erase_patient
from feature_store.location import Location
from feature_store.store import FeatureStore
from pipelines.extraction import steps
from pipelines.extraction.plan import ExtractionSettings, plan_extraction
from pipelines.extraction.results import Collector
from pipelines.extraction.steps import ReadStep, WorkerConfig, blank_row, lost_row
from tests.feature_store.examples import feature_set
from tests.pipelines.extraction.extraction_store import add_series, radiomics_of

SETTINGS = ExtractionSettings(encoder=None)
BY = Credential("alice", "operator", None)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.open(tmp_path / "store", create=True)


def _collector(store, control=None):
    plan = plan_extraction(store.snapshot(), SETTINGS, None)
    jobs = [job for series in plan.series for job in series.rois]
    sets = [feature_set(name) for name in {job.feature_set for job in jobs}]  # of three features
    store.push({"feature_sets": sets}, kind="features", source="extraction")
    return Collector(store, SETTINGS, plan, control, None), jobs


def _values(job):
    return {**blank_row(job), "values": np.arange(3.0).tobytes(), "radiomics_s": 1.5, "radiomics_node": "here"}


def test_a_failure_does_not_replace_the_values_another_run_got_meanwhile(store):
    for patient in ("p1", "p2"):
        add_series(store, patient)
    mine, jobs = _collector(store)
    other, _ = _collector(store)
    other.collect([_values(jobs[0])])
    mine.collect(lost_row(job) for job in jobs)
    report = mine.report(1.0)
    assert (report.done, report.failed) == (1, 1)
    rows = radiomics_of(store)
    assert rows["p1", "t2_sag", "all"]["values"] == [0.0, 1.0, 2.0]
    assert rows["p2", "t2_sag", "all"]["error"] == "ExtractionError: its worker process died."
    # the other way round values replace a failure, and the same values again are no revision
    other.collect([_values(jobs[1])])
    third, _ = _collector(store)
    assert third.missing == []
    assert radiomics_of(store)["p2", "t2_sag", "all"]["values"] == [0.0, 1.0, 2.0]
    assert len(store.snapshot().revisions("radiomics", columns=["error"])) == 3


def test_a_failure_looked_at_while_the_other_run_pushes_is_looked_at_again(store, monkeypatch):
    add_series(store, "p1")
    mine, jobs = _collector(store)
    other, _ = _collector(store)
    push = store.push

    def late(*args, **kwargs):
        monkeypatch.setattr(store, "push", push)
        other.collect([_values(jobs[0])])  # between the look and the push
        return push(*args, **kwargs)

    monkeypatch.setattr(store, "push", late)
    mine.collect([lost_row(jobs[0])])
    assert radiomics_of(store)["p1", "t2_sag", "all"]["values"] == [0.0, 1.0, 2.0]
    assert (mine.report(1.0).done, mine.report(1.0).failed) == (1, 0)


@pytest.mark.parametrize("outcome", [_values, lost_row])
def test_of_who_was_erased_meanwhile_nothing_is_stored_and_the_others_are(store, monkeypatch, outcome):
    for patient in ("p1", "p2", "p3"):
        add_series(store, patient)
    control = ControlDatabase.open(default_url(store.uri))
    mine, jobs = _collector(store, control)
    push = store.push
    now = EraseSettings(grace_hours=0.0, patience_s=0.0)

    def erase(patient):
        erase_patient(store, control, "a", patient, reason="r", erased_by=BY, settings=now)

    def late(*args, **kwargs):
        monkeypatch.setattr(store, "push", push)
        erase("p2")  # between the look and the push
        return push(*args, **kwargs)

    erase("p1")
    monkeypatch.setattr(store, "push", late)
    mine.collect(outcome(job) for job in jobs)
    assert {patient for patient, *_ in radiomics_of(store)} == {"p3"}
    assert [case.patient_id for case in control.cases()] == ["p3"]
    assert mine.report(1.0).done + mine.report(1.0).failed == 1


def test_the_report_says_seconds_by_stage_and_who_did_what(store):
    for patient in ("p1", "p2"):
        add_series(store, patient)
    collector, jobs = _collector(store)
    collector.collect(_values(job) for job in jobs)
    report = collector.report(2.0)
    assert report.stage_totals == {"radiomics": 3.0}
    assert report.stage_seconds == {"radiomics": 1.5}
    assert report.machines == {"here": {"radiomics": 2}}


def test_images_of_a_remote_store_are_read_from_copies_on_the_worker(store, tmp_path, monkeypatch):
    """A store without a folder of its own, whose blobs are reached through Arrow's file system as on S3."""

    class Remote(Location):
        def filesystem(self, *names):
            return pafs.SubTreeFileSystem(str(Path(self.uri).joinpath(*names)), pafs.LocalFileSystem())

    add_series(store, "p1")
    plan = plan_extraction(store.snapshot(), SETTINGS, None)
    config = WorkerConfig(store.uri, plan.feature_sets)
    row = {"series": pickle.dumps(plan.series[0])}
    (expected,) = ReadStep(config)(row)
    monkeypatch.setenv("ASDEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(steps, "_blobs", lambda uri: Blobs(Remote(uri, None)))
    (found,) = ReadStep(config)(row)
    assert found["radiomics_error"] == ""
    assert found["crop"] == expected["crop"]
    assert len([file for file in (tmp_path / "cache").rglob("*") if file.is_file()]) == 2
