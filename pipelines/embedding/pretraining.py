"""Self-supervised pretraining: a masked autoencoder on a store's own images, without outcomes.

Patients who are in a test partition of any frozen cohort are left out (a patient's partition is given once, for
ever), so that the encoder may embed training patients and test patients alike. Which patients it saw is kept with
the encoder; one of them who becomes a test patient later makes it unusable for that cohort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from feature_store.cohorts import load_cohort
from feature_store.errors import NotReady, UsageError
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from feature_store.vocabulary import Partition
from models.checkpoints import random_weights
from models.encoders import EncoderSettings
from models.learning.learner import Inputs
from models.learning.masked_autoencoder import MaskedAutoencoder, masking_order, starting_weights
from models.learning.settings import PretrainSettings
from pipelines.embedding.augmentation import augmented
from pipelines.embedding.distributed import Compute, train_with
from pipelines.embedding.registry import keep_trained, known_encoder, load_weights
from pipelines.embedding.training import CUBES, Progress, Samples, Task, Trained, task_key
from pipelines.embedding.training_cubes import CubeReader, EpochOrder, TrainingRoi, training_rois

LOSS = "mean squared error of masked patches, each z-scored"


def pretrain(
    store: FeatureStore,
    settings: PretrainSettings,
    folder: Path,
    compute: Compute,
    *,
    cohort: str | None = None,
    encoder: str | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train on the store's images and register the encoder, origin ``self_supervised``.

    ``cohort``: on the training patients of this frozen cohort only. ``encoder``: start from a registered encoder
    instead of random weights. The same call goes on where a killed one stopped (its state is in ``folder``).
    Raises NotReady without images to learn from, NotFound, UsageError where the architectures differ.
    """
    snapshot = store.snapshot()
    start = None if encoder is None else known_encoder(snapshot, encoder)
    if start is not None and start.settings.architecture != settings.architecture:
        raise UsageError(
            f"Encoder {encoder} is a {start.settings.architecture}.", action="Name the same architecture, or none."
        )
    tests = test_patients(snapshot)
    chosen = None if cohort is None else training_patients(snapshot, cohort)
    rois = training_rois(snapshot, patients=chosen, left_out=tests)
    patients = sorted({roi.patient for roi in rois})
    if len(patients) < 2:
        raise NotReady(
            f"{len(patients)} patients have images that may be learned from.",
            action="Ingest cases first. Test patients of frozen cohorts are left out.",
        )
    apart = held_out_patients(patients, settings)
    task = ReconstructionTask(
        settings,
        store.uri,
        tuple(roi for roi in rois if roi.patient not in apart),
        tuple(spread([roi for roi in rois if roi.patient in apart], settings.held_out_cubes)),
        None if start is None else start.checkpoint_hash,
    )
    state = train_with(task, folder, compute, progress)
    id_ = keep_trained(
        store,
        EncoderSettings(architecture=settings.architecture, margin_mm=settings.margin_mm),
        state,
        start,
        origin="self_supervised",
        patients=patients,
        derived={"masked_autoencoder": settings.model_dump(mode="json"), "cohort": cohort},
        loss_name=LOSS,
    )
    left_out = len({roi.patient for roi in training_rois(snapshot)} & tests)
    return Trained(id_, int(state["step"]), state["curve"], len(patients), left_out)


def test_patients(snapshot: Snapshot) -> set[str]:
    """``site/patient_id`` of everyone in a partition other than training, in any cohort ever frozen."""
    rows = snapshot.table("cohorts", ["site", "patient_id", "partition"]).to_pylist()
    return {f"{row['site']}/{row['patient_id']}" for row in rows if row["partition"] != Partition.TRAINING}


def training_patients(snapshot: Snapshot, cohort: str) -> set[str]:
    """``site/patient_id`` of a frozen cohort's training patients. Raises NotFound."""
    members = load_cohort(snapshot, cohort).members
    training = members[members["partition"] == Partition.TRAINING]
    return set(training["site"] + "/" + training["patient_id"])


def held_out_patients(patients: Sequence[str], settings: PretrainSettings) -> set[str]:
    """At least one, drawn by the seed; only the curve is judged on them."""
    order = np.random.default_rng([settings.seed, 1]).permutation(len(patients))
    count = max(1, round(settings.held_out * len(patients)))
    return {patients[i] for i in order[:count]}


def spread(rois: Sequence[TrainingRoi], most: int) -> list[TrainingRoi]:
    """At most ``most`` of them, evenly over the list."""
    at = np.linspace(0, len(rois) - 1, min(most, len(rois))).round().astype(int)
    return [rois[i] for i in at]


@dataclass(frozen=True)
class ReconstructionTask(Task):
    """What a masked autoencoder is trained on; pickled to the workers."""

    settings: PretrainSettings
    store_uri: str
    rois: tuple[TrainingRoi, ...]
    held_out: tuple[TrainingRoi, ...]
    checkpoint_hash: str | None

    @property
    def key(self) -> str:
        return task_key(self.settings, self.checkpoint_hash, self.rois, self.held_out)

    def open(self, folder: Path) -> Samples:
        return _Reconstruction(self, folder)


class _Reconstruction(Samples):
    """Cubes in an order drawn anew for each epoch, with masks drawn for each step."""

    def __init__(self, task: ReconstructionTask, folder: Path) -> None:
        self._task, self._settings = task, task.settings
        self._blobs = FeatureStore.open(task.store_uri).blobs
        cut = EncoderSettings(architecture=task.settings.architecture, margin_mm=task.settings.margin_mm)
        self._cubes = CubeReader(self._blobs, cut, folder / CUBES)
        self._order = EpochOrder(len(task.rois), task.settings.seed)
        self.held_out = len(task.held_out)

    def net(self) -> nn.Module:
        stored = self._task.checkpoint_hash
        if stored is None:
            weights = starting_weights(random_weights(self._settings.architecture, self._settings.seed))
        else:
            weights = load_weights(self._blobs, stored)
        return MaskedAutoencoder(self._settings, weights)

    def sample(self, step: int, position: int) -> Inputs:
        draw = np.random.default_rng([self._settings.seed, 2, step, position])
        at = self._order[step * self._settings.batch + position]
        cube = self._cubes.read_one_of(self._task.rois, at)
        return self._inputs(augmented(cube, self._settings.augmentation, draw), draw)

    def held_out_sample(self, number: int) -> Inputs:
        draw = np.random.default_rng([self._settings.seed, 3, number])
        return self._inputs(self._cubes.read_one_of(self._task.held_out, number), draw)

    @staticmethod
    def _inputs(cube: np.ndarray, draw: np.random.Generator) -> Inputs:
        return torch.from_numpy(cube)[None, None], masking_order(draw)[None]
