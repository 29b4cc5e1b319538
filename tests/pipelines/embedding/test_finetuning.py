"""Supervised tuning: subset A and the disjoint B, what is recorded, pooling over ROIs, stopping, going on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_store.cohort_settings import CohortSettings
from feature_store.cohorts import Cohort, freeze_cohort
from feature_store.errors import NotReady, TooFewPatients, UsageError
from feature_store.retrieval import training_table
from feature_store.store import FeatureStore
from models import encoders, vit
from models.checkpoints import random_weights
from models.learning.learner import Learner
from models.learning.outcome_net import OutcomeNet
from models.learning.settings import Augmentation, FinetuneSettings
from models.learning.subset import stratified_part
from pipelines.embedding.finetuning import OutcomeTask, TuningPatient, finetune
from pipelines.embedding.registry import known_encoder, register_encoder
from pipelines.embedding.training_cubes import training_rois
from tests.feature_store import examples
from tests.pipelines.embedding.tiny import COMPUTE, TINY
from tests.pipelines.extraction.extraction_store import add_series


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vit.ARCHITECTURES, "vit_small", TINY)
    monkeypatch.setitem(encoders.ARCHITECTURE_DIMENSIONS, "vit_small", TINY.hidden)
    torch.set_num_threads(1)


def settings(**changed: object) -> FinetuneSettings:
    given = {"steps": 4, "batch": 2, "evaluate_every": 2, "rois_a_step": 1, "learning_rate": 1e-3, **changed}
    return FinetuneSettings.model_validate(given)


PLAN = CohortSettings(name="study", external_sites=("b",), ratio=0.8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """40 patients at home, four elsewhere, all with outcomes; the first 34 have images."""
    store = FeatureStore.open(tmp_path_factory.mktemp("outcomes") / "store", create=True)
    rows: examples.Rows = {"cases": [], "labels": []}
    for site, count in (("a", 40), ("b", 4)):
        for number in range(count):
            rows["cases"] += examples.case(f"p{number:02d}", site)["cases"]
            rows["labels"].append(examples.label(f"p{number:02d}", number % 2, site))
    store.push(rows, kind="case", source="tests")
    for number in range(34):
        add_series(store, f"p{number:02d}", seed=number)
    return store


@pytest.fixture
def cohort(store: FeatureStore) -> Cohort:
    return freeze_cohort(store, PLAN)


# --- the split -----------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.25, 0.5, 0.7])
def test_a_part_is_even_over_sites_and_outcomes(seed: int, share: float) -> None:
    draw = np.random.default_rng(seed)
    strata = [f"{draw.integers(2)}\n{'abc'[draw.integers(3)]}" for _ in range(97)]
    taken = stratified_part(strata, share, seed)
    assert abs(taken.sum() - share * 97) <= 1
    for name in set(strata):
        mine = np.array(strata) == name
        assert abs(taken[mine].sum() - share * mine.sum()) <= 1
    assert (taken == stratified_part(strata, share, seed)).all()
    assert (taken != stratified_part(strata, share, seed + 100)).any()


# --- the net -------------------------------------------------------------------------------------
def _cubes(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, 128, 128, 128, generator=torch.Generator().manual_seed(seed))


def test_a_patients_logit_is_the_mean_of_the_rois() -> None:
    net = OutcomeNet("vit_small", random_weights("vit_small", 0), 0.25)
    with torch.no_grad():
        net.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        cubes, one = _cubes(3), torch.ones(1, 1)
        alone = torch.cat([net(cubes[i : i + 1], one, torch.ones(1))[1] for i in range(3)])
        losses, together = net(cubes, torch.full((1, 3), 1 / 3), torch.ones(1))
        start = OutcomeNet("vit_small", random_weights("vit_small", 0), 0.25)(
            cubes, torch.full((1, 3), 1 / 3), torch.ones(1)
        )
    assert together[0] == pytest.approx(float(alone.mean()), abs=1e-5)
    assert alone.std() > 1e-3
    assert losses[0] == pytest.approx(float(np.log1p(np.exp(-together[0]))), abs=1e-5)
    assert torch.sigmoid(start[1])[0] == pytest.approx(0.25)  # before the first step: the prevalence


def test_micro_batches_do_not_change_a_step(store: FeatureStore, tmp_path: Path) -> None:
    rois = training_rois(store.snapshot(), unions_only=True)
    patients = (TuningPatient(rois[0].patient, 1, tuple(rois[:2])), TuningPatient(rois[2].patient, 0, (rois[2],)))
    start = encoders.EncoderSettings()
    checkpoint = register_encoder(store, start)
    task = OutcomeTask(settings(rois_a_step=2), store.uri, "vit_small", 5.0, patients, patients, checkpoint, 3)
    samples = task.open(tmp_path)
    batch = [samples.sample(0, 0), samples.sample(0, 1)]
    assert {len(part[0]) for part in batch} == {1, 2}
    found = []
    for parts in ([batch[0], batch[1]], [samples.together(batch)]):
        learner = Learner(samples.net(), task.settings)
        with torch.no_grad():
            learner.net.head.weight.fill_(0.5)
        loss = learner.learn(learner.net, parts, 2)
        # not the weights: Adam's first step is as long for a gradient that is nothing but rounding
        found.append((loss, {name: p.grad for name, p in learner.net.named_parameters() if p.grad is not None}))
    (loss, gradients), (loss_together, together) = found
    assert loss == pytest.approx(loss_together, rel=1e-5)
    assert gradients.keys() == together.keys()
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    assert largest > 1e-3
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, together[name], rtol=1e-4, atol=1e-5 * largest), name


def test_it_learns_what_can_be_told() -> None:
    """Bright lower halves are events: soon the loss is far under ln 2."""
    s = settings(steps=25, learning_rate=3e-3, weight_decay=0.0)
    learner = Learner(OutcomeNet("vit_small", random_weights("vit_small", 0), 0.5), s)
    losses = []
    for step in range(s.steps):
        y = step % 2
        cube = _cubes(1, step) * 0.5
        cube[:, :, :64] += 1.0 if y else -1.0
        losses.append(learner.learn(learner.net, [(cube, torch.ones(1, 1), torch.tensor([float(y)]))], 1))
    assert losses[0] == pytest.approx(np.log(2))
    assert np.mean(losses[-6:]) < 0.3


# --- the whole -----------------------------------------------------------------------------------
def test_a_is_tuned_on_and_b_is_left_to_the_protocol(store: FeatureStore, cohort: Cohort, tmp_path: Path) -> None:
    trained = finetune(store, settings(), tmp_path, COMPUTE, cohort, encoder="vit_small")
    snapshot = store.snapshot()
    row = snapshot.table("encoders", where={"encoder": trained.encoder}).to_pylist()[0]
    members = cohort.members
    names = members["site"] + "/" + members["patient_id"]
    a = set(row["outcomes_of"])
    with_images = names[
        (members["partition"] == "training") & members["patient_id"].isin([f"p{i:02d}" for i in range(34)])
    ]
    assert a < set(with_images)
    assert abs(len(a) - len(with_images) / 2) <= 1
    assert abs(2 * members[names.isin(a)]["outcome"].sum() - len(a)) <= 2
    assert (row["origin"], row["outcomes_seen"], set(row["patients_seen"])) == ("fine_tuned", True, a)
    assert trained.patients == len(a)
    derived = json.loads(row["derived"])
    assert derived["pooling"] == "mean of the ROIs' embeddings, then one linear head"
    assert derived["fine_tuned"]["subset"] == 0.5
    assert derived["started_from"].startswith("vit_small-")
    curve = [json.loads(line) for line in store.blobs.read_bytes("artefacts", derived["curve"]).splitlines()]
    assert [r["step"] for r in curve] == [2, 4]
    assert all(0 <= r["held_out_auc"] <= 1 for r in curve)
    # and the rule downstream: the very patients it was tuned on are not fitted on
    with pytest.raises(UsageError, match=f"fitted on {len(a)} patients"):
        training_table(snapshot, "study", [trained.encoder], as_of=snapshot.sequence)
    table = training_table(snapshot, "study", [trained.encoder], as_of=snapshot.sequence, in_sample="leave_out")
    assert set(table.patients["site"] + "/" + table.patients["patient_id"]) == set(names) - a
    # tuned once more from there, the patients of both times are known
    again = finetune(store, settings(seed=5, subset=0.3), tmp_path / "b", COMPUTE, cohort, encoder=trained.encoder)
    assert known_encoder(store.snapshot(), again.encoder).tuned_on >= a


def test_it_stops_early_and_keeps_the_best(store: FeatureStore, cohort: Cohort, tmp_path: Path) -> None:
    """With a rate at which it only gets worse, training stops after the patience and hands over its best weights."""
    wild = settings(steps=40, evaluate_every=1, patience=2, learning_rate=1.0, warmup=0.0)
    trained = finetune(store, wild, tmp_path, COMPUTE, cohort, encoder="vit_small")
    losses = [row["held_out_loss"] for row in trained.curve]
    best = int(np.argmin(losses))
    assert trained.steps == best + 1 + 2 < 40
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["best_loss"] == min(losses)
    last = {name.removeprefix("encoder."): t for name, t in state["net"].items() if name.startswith("encoder.")}
    assert not torch.equal(state["weights"]["norm.weight"], last["norm.weight"])


class Interrupted(Exception):
    pass


def _until(step: int) -> Callable[[str, float], None]:
    def progress(said: str, done: float) -> None:
        if said.startswith(f"step {step} "):
            raise Interrupted

    return progress


def test_it_goes_on_to_the_same_bits(store: FeatureStore, cohort: Cohort, tmp_path: Path) -> None:
    chosen = settings(steps=6, evaluate_every=2, augmentation=Augmentation(smallest_crop=0.5))
    with pytest.raises(Interrupted):
        finetune(store, chosen, tmp_path / "stopped", COMPUTE, cohort, encoder="vit_small", progress=_until(5))
    assert torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)["step"] == 4
    whole = finetune(store, chosen, tmp_path / "whole", COMPUTE, cohort, encoder="vit_small")
    gone_on = finetune(store, chosen, tmp_path / "stopped", COMPUTE, cohort, encoder="vit_small")
    assert (gone_on.encoder, gone_on.curve) == (whole.encoder, whole.curve)


def test_what_cannot_be_tuned_is_named(store: FeatureStore, cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(TooFewPatients, match="Subset A"):
        finetune(store, settings(subset=0.1), tmp_path, COMPUTE, cohort, encoder="vit_small")
    with pytest.raises(NotReady, match="No training patient has an image"):
        finetune(store, settings(), tmp_path, COMPUTE, cohort, encoder="vit_small", sequences=("dixon",))
    tests = cohort.members[cohort.members["partition"] != "training"].iloc[0]
    leaky = encoders.EncoderSettings(checkpoint="random:77")
    register_encoder(store, leaky, patients_seen=[f"{tests['site']}/{tests['patient_id']}"])
    with pytest.raises(UsageError, match="has seen 1 test patients"):
        finetune(store, settings(), tmp_path, COMPUTE, cohort, encoder=leaky.id)
