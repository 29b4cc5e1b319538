from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from feature_store.control import ControlDatabase
from feature_store.errors import NotFound
from feature_store.store import FeatureStore
from models.checkpoints import random_weights
from models.encoders import EncoderSettings, named_encoder
from pipelines.embedding.embedder import Embedder, roi_cube
from pipelines.embedding.registry import load_weights, register_checkpoint_file, register_encoder, resolve_encoder
from pipelines.extraction.plan import ExtractionSettings
from pipelines.extraction.run import extract
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_sets import STUDY_CT, STUDY_MR
from pipelines.radiomics.preprocessing import preprocess
from pipelines.ray_session import ray_session
from tests.pipelines.extraction.extraction_store import BODIES, add_series, make_image, make_mask

pytestmark = [pytest.mark.cores, pytest.mark.slow]
REPOSITORY = Path(__file__).resolve().parents[3]
RADIOMICS_ONLY = ExtractionSettings(encoder=None)


@pytest.fixture(scope="module")
def ray_running():
    """One Ray for the module: extract uses the connection it finds, and leaves it."""
    with ray_session(cpus=2) as resources:
        assert resources.cpus == 2
        yield


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore.open(tmp_path / "store", create=True)


def _table(store, name) -> dict[tuple, dict]:
    rows = store.snapshot().table(name).to_pylist()
    return {(row["site"], row["patient_id"], row["sequence"], row["level"]): row for row in rows}


def _roi(image, level) -> np.ndarray:
    mask = sitk.GetArrayFromImage(make_mask(image))
    return mask > 0 if level == "all" else mask == {v: k for k, v in BODIES.items()}[level]


# --- a run -------------------------------------------------------------------------------------
def test_every_roi_gets_the_features_of_its_image(ray_running, store, tmp_path):
    add_series(store, "p1", "ct", seed=1)
    add_series(store, "p1", "t2_sag", seed=2)
    add_series(store, "p2", "t2_sag", seed=3)
    control = ControlDatabase.open(f"sqlite:///{tmp_path / 'control.db'}")
    control.set_case_state("a", "p2", "case-a-p2", "validated", ["MaskUnreadable: one mask could not be used"])
    seen: list[tuple[int, int]] = []
    report = extract(store, ExtractionSettings(rois="every"), control, lambda done, total: seen.append((done, total)))

    assert (report.done, report.failed, report.left_out) == (9, 0, 0)
    assert seen[0] == (0, 9)
    assert seen[-1] == (9, 9)
    assert set(report.stage_seconds) == {"read", "radiomics", "embedding"}
    radiomics, embeddings = _table(store, "radiomics"), _table(store, "embeddings")
    assert len(radiomics) == len(embeddings) == 9
    encoder = named_encoder("vit_small")
    embedder = Embedder(encoder, random_weights("vit_small", 0))
    for patient, sequence, seed in (("p1", "ct", 1), ("p1", "t2_sag", 2), ("p2", "t2_sag", 3)):
        feature_set = STUDY_CT if sequence == "ct" else STUDY_MR
        image = make_image(seed, sequence)
        for level in ("L4", "L5", "all"):
            row = radiomics["a", patient, sequence, level]
            mask = _roi(image, level)
            expected = RadiomicsExtractor(feature_set).extract(preprocess(image, feature_set), mask)
            # workers use one thread; a mean over the image summed by two differs in its last bits
            np.testing.assert_allclose(row["values"], expected, rtol=1e-9)
            assert (row["feature_set"], row["error"]) == (feature_set.id, None)
            row = embeddings["a", patient, sequence, level]
            expected = embedder.embed(roi_cube(image, mask, encoder)[None])[0]
            np.testing.assert_allclose(row["values"], expected, atol=1e-5)
            assert (row["encoder"], row["error"]) == (encoder.id, None)
    sets = {row["feature_set"]: row for row in store.snapshot().table("feature_sets").to_pylist()}
    assert sets[STUDY_MR.id]["feature_names"] == list(STUDY_MR.feature_names)
    (row,) = store.snapshot().table("encoders").to_pylist()
    assert (row["encoder"], row["origin"], row["outcomes_seen"]) == (encoder.id, "random:0", False)
    state = control.case("case-a-p2", "a")
    assert (state.state, state.reasons) == ("extracted", ("MaskUnreadable: one mask could not be used",))

    before = store.snapshot().sequence
    again = extract(store, ExtractionSettings(rois="every"), control)
    assert (again.done, again.failed, again.left_out) == (0, 0, 9)
    assert store.snapshot().sequence == before  # not even an empty push


def test_a_broken_image_is_recorded_and_the_rest_is_done(ray_running, store, tmp_path):
    broken = add_series(store, "p1", seed=1)
    cut = add_series(store, "p2", seed=2)
    gone = add_series(store, "p3", seed=3)
    add_series(store, "p4", seed=4)
    paths = {name: store.blobs.local_path("images", name) for name in (broken, cut, gone)}
    whole = {name: path.read_bytes() for name, path in paths.items()}
    paths[broken].write_bytes(store.blobs.local_path("images", cut).read_bytes())  # readable, of another image
    paths[cut].write_bytes(whole[cut][: len(whole[cut]) // 2])
    paths[gone].unlink()
    control = ControlDatabase.open(f"sqlite:///{tmp_path / 'control.db'}")

    report = extract(store, ExtractionSettings(), control)
    assert (report.done, report.failed) == (1, 3)
    assert report.errors == {"BlobCorrupt": 2, "NotFound": 1}
    assert report.cases == {"extracted": 1, "rejected": 3}
    for table in ("radiomics", "embeddings"):
        rows = {key[1]: row for key, row in _table(store, table).items()}
        assert [rows[p]["values"] is None for p in ("p1", "p2", "p3", "p4")] == [True, True, True, False]
        assert rows["p1"]["error"].startswith("BlobCorrupt: ")
        assert rows["p4"]["error"] is None
        for row in rows.values():  # a reason, and neither a path nor a traceback
            assert not any(word in (row["error"] or "") for word in (str(tmp_path), "/", "Traceback", "\n"))
    state = control.case("case-a-p1", "a")
    assert state.state == "rejected"
    assert state.reasons[0].startswith("extraction: t2_sag/vertebral_body/all/both/primary: BlobCorrupt")

    # failures stay until they are to be tried again; a mended blob is then extracted
    assert extract(store, ExtractionSettings(), control).left_out == 4
    for name, path in paths.items():
        path.write_bytes(whole[name])
    report = extract(store, ExtractionSettings(retry_failed=True), control)
    assert (report.done, report.failed, report.left_out) == (3, 0, 1)
    assert all(row["values"] for row in _table(store, "radiomics").values())
    state = control.case("case-a-p1", "a")
    assert (state.state, state.reasons) == ("extracted", ())


# --- killed in the middle ----------------------------------------------------------------------
RUN = """
import sys, time
from feature_store.store import FeatureStore
from pipelines.extraction.run import extract
from pipelines.extraction.plan import ExtractionSettings
settings = ExtractionSettings(encoder=None, rois="every", batch_rows=1, cpus=2)
extract(FeatureStore.open(sys.argv[1]), settings, progress=lambda done, total: time.sleep(0.5 if done else 0))
"""


def test_a_killed_run_is_finished_by_the_next_one(ray_running, store, tmp_path):
    for number in range(4):
        add_series(store, f"p{number}", seed=number)
    undisturbed_uri = tmp_path / "undisturbed"
    shutil.copytree(store.uri.removeprefix("file://"), undisturbed_uri)

    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.Popen([sys.executable, "-c", RUN, store.uri], env=environment, stderr=subprocess.PIPE)
    try:
        while run.poll() is None and not len(store.snapshot().table("radiomics", columns=["error"])):
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    finally:
        run.kill()
        _, stderr = run.communicate()
    stored = len(store.snapshot().table("radiomics", columns=["error"]))
    assert 0 < stored < 12, stderr.decode()

    settings = ExtractionSettings(encoder=None, rois="every")
    report = extract(store, settings)
    assert (report.done, report.left_out) == (12 - stored, stored)
    undisturbed = FeatureStore.open(undisturbed_uri)
    extract(undisturbed, settings)
    rows, expected = _table(store, "radiomics"), _table(undisturbed, "radiomics")
    assert {key: row["values"] for key, row in rows.items()} == {key: row["values"] for key, row in expected.items()}
    assert len(store.snapshot().revisions("radiomics", columns=["error"])) == 12  # none twice


def test_two_extractions_at_once_on_one_store_store_no_row_twice(store):
    for number in range(6):
        add_series(store, f"p{number}", seed=number)
    command = "import infra.cli, sys; sys.exit(infra.cli.main(sys.argv[1:]))"
    arguments = ["extract", "--store", store.uri, "--encoder", "none", "--cpus", "1", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    runs = [
        subprocess.Popen([sys.executable, "-c", command, *arguments], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    reports = []
    for run in runs:
        said, _ = run.communicate(timeout=300)
        assert run.returncode == 0
        reports.append(json.loads(said))
    assert all(report["done"] + report["left_out"] == 6 for report in reports)
    assert all(report["failed"] == 0 for report in reports)
    assert reports[0]["stage_totals"].keys() <= {"read", "radiomics"}
    assert len(store.snapshot().revisions("radiomics", columns=["error"])) == 6
    assert all(row["values"] for row in _table(store, "radiomics").values())


# --- encoders in the store ---------------------------------------------------------------------
def test_encoders_are_registered_once_and_found_by_id(store, tmp_path):
    settings = EncoderSettings(checkpoint="random:5")
    checkpoint = register_encoder(store, settings)
    sequence = store.snapshot().sequence
    assert register_encoder(store, settings) == checkpoint
    assert store.snapshot().sequence == sequence
    assert resolve_encoder(store, settings.id) == settings
    weights = load_weights(store.blobs, checkpoint)
    drawn = random_weights("vit_small", 5)
    assert all(np.array_equal(weights[name], drawn[name]) for name in drawn)

    file = tmp_path / "weights.safetensors"
    file.write_bytes(store.blobs.read_bytes("artefacts", checkpoint))
    from_file = register_checkpoint_file(store, file, "vit_small", margin_mm=2.0)
    rows = {row["encoder"]: row for row in store.snapshot().table("encoders").to_pylist()}
    assert rows[from_file.id]["origin"] == f"file:{checkpoint}"
    assert resolve_encoder(store, from_file.id) == from_file
    with pytest.raises(NotFound):
        resolve_encoder(store, "vit_small-00000000")
    with pytest.raises(NotFound, match="checkpoint"):
        register_encoder(store, EncoderSettings(checkpoint="0" * 64), origin="self_supervised")
