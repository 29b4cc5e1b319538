"""Self-supervised pretraining: what it may see, that it goes on after a kill with the same bits, and on two workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from feature_store.errors import NotFound, NotReady, UsageError
from feature_store.store import FeatureStore
from models import encoders, vit
from models.checkpoints import random_weights
from models.learning.learner import Learner
from models.learning.masked_autoencoder import MaskedAutoencoder, masking_order, patches, starting_weights
from models.learning.settings import Augmentation
from models.vit import TokenMean
from pipelines.embedding.augmentation import augmented
from pipelines.embedding.distributed import Compute, train_with
from pipelines.embedding.pretraining import pretrain
from pipelines.embedding.registry import known_encoder, load_weights
from pipelines.embedding.training_cubes import CubeReader, EpochOrder, training_rois
from tests.conftest import REPOSITORY
from tests.pipelines.embedding.tiny import COMPUTE, TINY, DeadlyTask, TinyTask, image_store, settings


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vit.ARCHITECTURES, "vit_small", TINY)
    monkeypatch.setitem(encoders.ARCHITECTURE_DIMENSIONS, "vit_small", TINY.hidden)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return image_store(tmp_path_factory.mktemp("images") / "store")


def weights_of(store: FeatureStore, encoder: str) -> dict[str, torch.Tensor]:
    return load_weights(store.blobs, known_encoder(store.snapshot(), encoder).checkpoint_hash)


# --- the net -----------------------------------------------------------------------------------
def test_patches_are_those_of_the_encoders_own_convolution() -> None:
    cubes = torch.randn(1, 1, 128, 128, 128, generator=torch.Generator().manual_seed(0))
    weights = random_weights("vit_small", 0)
    kernel = weights["patch_embedding.patch_embeddings.weight"]
    by_hand = patches(cubes)[0] @ kernel.reshape(48, -1).T
    convolved = torch.nn.functional.conv3d(cubes, kernel, stride=16)[0].flatten(1).T
    assert torch.allclose(by_hand, convolved, atol=1e-4)


def test_the_loss_is_of_masked_patches_only_and_the_encoder_sees_the_others_only() -> None:
    net = MaskedAutoencoder(settings(), starting_weights(random_weights("vit_small", 0)))
    cube = torch.randn(1, 1, 128, 128, 128, generator=torch.Generator().manual_seed(0))
    order = masking_order(np.random.default_rng(0))[None]
    assert net.kept == 128
    with torch.no_grad():
        before, painted = net(cube, order)
        z, y, x = np.unravel_index(int(order[0, 300]), (8, 8, 8))  # a patch the encoder does not see
        hidden = cube.clone()
        hidden[0, 0, 16 * z : 16 * z + 16, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16].mul_(-1)
        after, painted_after = net(hidden, order)
    assert torch.equal(painted, painted_after)
    assert before != after
    seen = cube.clone()
    z, y, x = np.unravel_index(int(order[0, 5]), (8, 8, 8))
    seen[0, 0, 16 * z : 16 * z + 16, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16].mul_(-1)
    with torch.no_grad():
        assert not torch.equal(net(seen, order)[1], painted)


def test_it_learns_to_paint_what_can_be_known() -> None:
    """Cubes of one wave along z, at any phase: soon the loss is well under that of painting the mean (1)."""
    s = settings(steps=40, batch=1, learning_rate=5e-3, weight_decay=0.0)
    net = MaskedAutoencoder(s, starting_weights(random_weights("vit_small", 0)))
    learner, draw = Learner(net, s), np.random.default_rng(0)
    losses = []
    for _ in range(s.steps):
        wave = torch.sin(torch.arange(128) * (2 * np.pi / 16) + float(draw.random()))
        cube = wave[:, None, None].expand(1, 1, 128, 128, 128).contiguous()
        losses.append(learner.learn(net, [(cube, masking_order(draw)[None])], 1))
    assert np.mean(losses[:3]) > 0.9
    assert np.mean(losses[-5:]) < 0.5


def test_learning_rate_warms_up_and_falls_to_nothing() -> None:
    s = settings(steps=100, warmup=0.1, learning_rate=1.0)
    learner = Learner(torch.nn.Linear(2, 1), s)
    rates = []
    for learner.step in range(100):
        rates.append(learner.learning_rate())
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 1e-3


# --- the data ----------------------------------------------------------------------------------
def test_augmentation_is_what_it_says() -> None:
    cube = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    none = Augmentation(smallest_crop=1.0, mirror=False, gain=0.0, shift=0.0)
    np.testing.assert_array_equal(augmented(cube, none, np.random.default_rng(1)), cube)
    mirror = none.model_copy(update={"mirror": True})
    both = {augmented(cube, mirror, np.random.default_rng(i)).tobytes() for i in range(8)}
    assert both == {cube.tobytes(), np.ascontiguousarray(cube[:, :, ::-1]).tobytes()}
    bright = Augmentation(smallest_crop=1.0, mirror=False, gain=0.1, shift=0.2)
    out = augmented(cube, bright, np.random.default_rng(1))
    slope, shift = np.polyfit(cube.ravel(), out.ravel(), 1)
    assert 0.9 <= slope <= 1.1
    assert abs(shift) <= 0.2
    assert abs(slope - 1) > 1e-4
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32), (32, 32, 32))
    crop = augmented(ramp, none.model_copy(update={"smallest_crop": 0.5}), np.random.default_rng(2))
    assert crop.shape == (32, 32, 32)
    spread = crop[0, 0, -1] - crop[0, 0, 0]
    assert 15 <= spread < 31  # part of the ramp, stretched over the whole cube


def test_every_roi_comes_once_an_epoch_in_another_order() -> None:
    order = EpochOrder(7, 0)
    epochs = [[order[7 * e + i] for i in range(7)] for e in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert [EpochOrder(7, 0)[i] for i in (20, 3, 11)] == [epochs[2][6], epochs[0][3], epochs[1][4]]


def test_cubes_are_those_of_embedding_and_kept(store: FeatureStore, tmp_path: Path) -> None:
    from pipelines.cases.rois import roi_mask
    from pipelines.embedding.embedder import roi_cube
    from tests.pipelines.extraction.extraction_store import make_image, make_mask

    rois = training_rois(store.snapshot())
    assert len(rois) == 18
    assert [roi.level for roi in training_rois(store.snapshot(), unions_only=True)] == ["all"] * 6
    cut = encoders.EncoderSettings()
    image = make_image(int(rois[0].patient[-1]))
    expected = roi_cube(image, roi_mask(make_mask(image), rois[0].labels), cut)
    for cache_gb in (1.0, 0.0):
        reader = CubeReader(store.blobs, cut, tmp_path / str(cache_gb), cache_gb)
        np.testing.assert_array_equal(reader.read(rois[0]), expected)
        np.testing.assert_array_equal(reader.read(rois[0]), expected)
    assert len(list((tmp_path / "1.0").iterdir())) == 1
    assert not list((tmp_path / "0.0").glob("*.npy"))


def test_what_quality_control_failed_is_not_learned_from(tmp_path: Path) -> None:
    store = image_store(tmp_path / "store", patients=3)
    rois = store.snapshot().table("rois").to_pylist()
    judged = [
        {
            name: row[name]
            for name in ("site", "patient_id", "case_id", "sequence", "side", "segmentation", "image_hash")
        }
        | {"structure": structure, "level": level, "mask_hash": mask, "verdict": verdict, "reasons": ["X: y."]}
        | {"measured": "{}", "quality_settings": "q", "software_version": "t"}
        for row, structure, level, mask, verdict in (
            (_roi(rois, "p0"), "image", "all", None, "fail"),
            (_roi(rois, "p1"), "vertebral_body", "L4", _roi(rois, "p1")["mask_hash"], "fail"),
            (_roi(rois, "p2"), "vertebral_body", "L4", _roi(rois, "p2")["mask_hash"], "warn"),
        )
    ]
    assert not store.push({"quality": judged}, kind="case", source="tests").rejected
    kept = [(roi.patient, roi.level) for roi in training_rois(store.snapshot())]
    assert kept == [("a/p1", "L5"), ("a/p1", "all"), ("a/p2", "L4"), ("a/p2", "L5"), ("a/p2", "all")]


def _roi(rois: list[dict[str, Any]], patient: str) -> dict[str, Any]:
    return next(row for row in rois if row["patient_id"] == patient)


# --- whom it sees --------------------------------------------------------------------------------
def test_test_patients_are_left_out_and_what_was_done_is_recorded(store: FeatureStore, tmp_path: Path) -> None:
    rows = [
        {"cohort": "study", "version": 1, "site": "a", "patient_id": f"p{i}", "case_id": f"case-a-p{i}",
         "outcome": i % 2, "partition": ("training", "internal_validation", "external_test")[i % 3],
         "rule": "r", "as_of": 1}
        for i in range(5)
    ]  # fmt: skip
    own = image_store(tmp_path / "store")
    own.push({"cohorts": rows}, kind="cohort", source="tests")
    trained = pretrain(own, settings(steps=2), tmp_path / "run", COMPUTE)
    row = own.snapshot().table("encoders", where={"encoder": trained.encoder}).to_pylist()[0]
    assert row["origin"] == "self_supervised"
    assert row["outcomes_seen"] is False
    assert row["patients_seen"] == ["a/p0", "a/p3", "a/p5"]  # p5 is in no cohort yet
    assert (trained.patients, trained.left_out) == (3, 3)
    derived = json.loads(row["derived"])
    assert derived["masked_autoencoder"]["mask_ratio"] == 0.75
    curve = [json.loads(line) for line in own.blobs.read_bytes("artefacts", derived["curve"]).splitlines()]
    assert curve == trained.curve
    assert set(curve[0]) == {"step", "learning_rate", "training_loss", "held_out_loss"}
    assert own.blobs.read_bytes("artefacts", derived["figure"]).startswith(b"\x89PNG")
    # an encoder like any other: its weights are exactly the embedding net's, and changed
    weights, before = weights_of(own, trained.encoder), starting_weights(random_weights("vit_small", 0))
    assert set(weights) == set(before)
    assert not torch.equal(weights["blocks.0.attn.qkv.weight"], before["blocks.0.attn.qkv.weight"])
    assert TokenMean("vit_small", weights)(torch.zeros(1, 1, 128, 128, 128)).shape == (1, 48)
    only = pretrain(own, settings(steps=2), tmp_path / "again", COMPUTE, cohort="study", encoder=trained.encoder)
    row = own.snapshot().table("encoders", where={"encoder": only.encoder}).to_pylist()[0]
    assert row["patients_seen"] == ["a/p0", "a/p3", "a/p5"]  # what it started from has seen p5
    assert only.patients == 2
    assert json.loads(row["derived"])["started_from"] == trained.encoder


def test_what_cannot_be_pretrained_is_named(store: FeatureStore, tmp_path: Path) -> None:
    empty = FeatureStore.open(tmp_path / "empty", create=True)
    with pytest.raises(NotReady, match="0 patients have images"):
        pretrain(empty, settings(), tmp_path, COMPUTE)
    with pytest.raises(NotFound, match="no encoder"):
        pretrain(store, settings(), tmp_path, COMPUTE, encoder="vit_small-00000000")
    with pytest.raises(NotFound, match="no such cohort"):
        pretrain(store, settings(), tmp_path, COMPUTE, cohort="nobody")
    with pytest.raises(UsageError, match="batch of 2 cannot be shared by 3 workers"):
        pretrain(store, settings(), tmp_path, Compute(workers=3))


# --- stopped and gone on -------------------------------------------------------------------------
def test_a_killed_process_goes_on_to_the_same_bits(store: FeatureStore, tmp_path: Path) -> None:
    steps = 12
    command = [sys.executable, "-m", "tests.pipelines.embedding.tiny", store.uri, str(tmp_path / "killed"), str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE)
    told = tmp_path / "killed" / "progress.json"
    deadline = time.monotonic() + 180
    while not (told.exists() and json.loads(told.read_text())[0] >= 3):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = torch.load(tmp_path / "killed" / "state.pt", weights_only=True)
    assert 2 <= kept["step"] < steps  # in the middle, and at most two steps behind
    undisturbed = pretrain(store, settings(steps=steps), tmp_path / "whole", COMPUTE)
    said: list[float] = []
    gone_on = pretrain(store, settings(steps=steps), tmp_path / "killed", COMPUTE, progress=lambda _, d: said.append(d))
    assert said[0] == pytest.approx((kept["step"] + 1) / steps)  # it did not begin again
    assert gone_on.encoder == undisturbed.encoder  # the id hashes the weights: the same to the last bit
    assert gone_on.curve == undisturbed.curve
    assert undisturbed.curve[-1]["held_out_loss"] < undisturbed.curve[0]["held_out_loss"]


def test_a_state_of_other_settings_is_not_gone_on_from(store: FeatureStore, tmp_path: Path) -> None:
    first = pretrain(store, settings(steps=2), tmp_path, COMPUTE)
    assert pretrain(store, settings(steps=2), tmp_path, COMPUTE).encoder == first.encoder
    other = pretrain(store, settings(steps=2, seed=1), tmp_path, COMPUTE)
    assert other.encoder != first.encoder
    assert other.curve[0]["step"] == 2


# --- several workers -----------------------------------------------------------------------------
@pytest.mark.cores
def test_two_ray_workers_learn_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same batch over two workers (gloo, DDP): the same weights up to the order of sums, though one of them dies."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    store = image_store(tmp_path / "store", patients=3)
    rois = tuple(training_rois(store.snapshot()))
    given = (settings(steps=2, batch=4, evaluate_every=1), store.uri, rois[:6], rois[6:8], None)
    one = train_with(TinyTask(*given), tmp_path / "one", COMPUTE)
    two = train_with(DeadlyTask(*given), tmp_path / "two", Compute(workers=2, readers=2, cpus=2))
    assert (tmp_path / "two" / "died").exists()
    assert one["step"] == two["step"] == 2
    for single, shared in zip(one["curve"], two["curve"], strict=True):
        assert single == pytest.approx(shared, rel=1e-4)
    moved = 0.0
    start = starting_weights(random_weights("vit_small", 0))
    for name, tensor in one["weights"].items():
        assert torch.allclose(tensor, two["weights"][name], atol=2e-5), name
        moved = max(moved, float((tensor - start[name]).abs().max()))
    assert moved > 5e-4  # it learned something in the meantime
