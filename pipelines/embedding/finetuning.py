"""Supervised fine-tuning of an encoder to the outcome, on a subset of the training patients.

The cohort's training patients are split by patient, stratified by site and outcome: the encoder is tuned on
subset A (a part of which only decides when to stop), and what follows (PCA, LASSO, classifiers) may be fitted on
the disjoint subset B alone. Both are told by the encoder's row: ``outcomes_of`` is A.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from feature_store.cohorts import Cohort
from feature_store.errors import AsdegError, NotReady, TooFewPatients, UsageError
from feature_store.store import FeatureStore
from feature_store.vocabulary import Partition
from models.encoders import EncoderSettings
from models.evaluation.auc import auc
from models.folds import MIN_CLASS, rarer_class
from models.learning.learner import Inputs
from models.learning.outcome_net import OutcomeNet
from models.learning.settings import FinetuneSettings
from models.learning.subset import stratified_part
from pipelines.embedding.augmentation import augmented
from pipelines.embedding.distributed import Compute, train_with
from pipelines.embedding.registry import keep_trained, known_encoder, load_weights, register_encoder, resolve_encoder
from pipelines.embedding.training import CUBES, Progress, Samples, Task, Trained, task_key
from pipelines.embedding.training_cubes import CubeReader, EpochOrder, TrainingRoi, training_rois

LOSS = "binary cross-entropy"
POOLING = "mean of the ROIs' embeddings, then one linear head"


@dataclass(frozen=True)
class TuningPatient:
    """A patient to tune on: outcome 0 or 1, and the ROIs that stand for them."""

    patient: str
    outcome: int
    rois: tuple[TrainingRoi, ...]


def finetune(
    store: FeatureStore,
    settings: FinetuneSettings,
    folder: Path,
    compute: Compute,
    cohort: Cohort,
    *,
    encoder: str,
    sequences: tuple[str, ...] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Tune ``encoder`` (an id, or an architecture's name) on subset A of the cohort and register it, ``fine_tuned``.

    ``cohort`` is frozen; only its training patients are looked at. ``left_out`` of the result is B's size.
    Raises NotFound, NotReady (no images), TooFewPatients where A or B lacks an outcome, UsageError for an encoder
    that has seen test patients of the cohort.
    """
    start_settings = resolve_encoder(store, encoder)
    register_encoder(store, start_settings)
    snapshot = store.snapshot()
    start = known_encoder(snapshot, start_settings.id)
    members = cohort.members.sort_values(["site", "patient_id"])
    names = members["site"] + "/" + members["patient_id"]
    training = members["partition"] == Partition.TRAINING
    if seen := len(start.patients_seen & set(names[~training])):
        raise UsageError(
            f"Encoder {start_settings.id} has seen {seen} test patients of this cohort.",
            action="Take one that has not; `asdeg encoders` lists them.",
        )
    rois = training_rois(snapshot, patients=set(names[training]), sequences=sequences, unions_only=True)
    by_patient: dict[str, list[TrainingRoi]] = {}
    for roi in rois:
        by_patient.setdefault(roi.patient, []).append(roi)
    if not by_patient:
        raise NotReady("No training patient has an image to tune on.", action="Ingest cases first.")
    outcome = dict(zip(names[training], members.loc[training, "outcome"].astype(int), strict=True))
    patients = [TuningPatient(p, outcome[p], tuple(by_patient[p])) for p in sorted(by_patient)]
    in_a = _part(patients, settings.subset, settings.seed)
    subset = [p for p, taken in zip(patients, in_a, strict=True) if taken or p.patient in start.tuned_on]
    apart = _part(subset, settings.held_out, settings.seed + 1)
    tuned = tuple(p for p, taken in zip(subset, apart, strict=True) if not taken)
    judged = tuple(p for p, taken in zip(subset, apart, strict=True) if taken)
    used = {p.patient for p in subset}
    _check("Subset A, less what is held out,", tuned, MIN_CLASS)
    _check("The held-out part of subset A", judged, 1)
    rest = [y for p, y in outcome.items() if p not in used]
    if rarer_class(np.array(rest)) < MIN_CLASS:
        raise TooFewPatients(
            f"Only {sum(rest)} patients with the outcome and {len(rest) - sum(rest)} without would be left to fit on.",
            action="Add training patients, or choose a smaller --subset.",
        )
    task = OutcomeTask(
        settings, store.uri, start_settings.architecture, start_settings.margin_mm, tuned, judged,
                       start.checkpoint_hash, settings.patience)  # fmt: skip
    state = train_with(task, folder, compute, progress)
    id_ = keep_trained(
        store,
        EncoderSettings(architecture=start_settings.architecture, margin_mm=start_settings.margin_mm),
        state,
        start,
        origin="fine_tuned",
        patients=used,
        outcomes_of=used,
        derived={
            "fine_tuned": settings.model_dump(mode="json"),
            "pooling": POOLING,
            "cohort": cohort.name,
            "version": cohort.version,
            "sequences": None if sequences is None else list(sequences),
        },
        loss_name=LOSS,
    )
    return Trained(id_, int(state["step"]), state["curve"], len(used), len(rest))


def _part(patients: list[TuningPatient], share: float, seed: int) -> np.ndarray:
    return stratified_part([f"{p.outcome}\n{p.patient.split('/')[0]}" for p in patients], share, seed)


def _check(what: str, patients: tuple[TuningPatient, ...], least: int) -> None:
    outcomes = np.array([p.outcome for p in patients])
    if rarer_class(outcomes) < least:
        events = int(outcomes.sum())
        raise TooFewPatients(
            f"{what} has {events} patients with the outcome and {len(outcomes) - events} without.",
            action=f"At least {least} of each are needed: add training patients, or choose other shares.",
        )


@dataclass(frozen=True)
class OutcomeTask(Task):
    """What an encoder with a head is tuned on; pickled to the workers."""

    settings: FinetuneSettings
    store_uri: str
    architecture: str
    margin_mm: float
    patients: tuple[TuningPatient, ...]
    judged: tuple[TuningPatient, ...]
    checkpoint_hash: str
    patience: int | None

    @property
    def key(self) -> str:
        return task_key(self.settings, self.checkpoint_hash, self.margin_mm, self.patients, self.judged)

    def open(self, folder: Path) -> Samples:
        return _Outcomes(self, folder)


class _Outcomes(Samples):
    """Patients in an order drawn anew for each epoch; of each, some ROIs drawn for each step."""

    def __init__(self, task: OutcomeTask, folder: Path) -> None:
        self._task, self._settings = task, task.settings
        self._blobs = FeatureStore.open(task.store_uri).blobs
        cut = EncoderSettings.model_validate({"architecture": task.architecture, "margin_mm": task.margin_mm})
        self._cubes = CubeReader(self._blobs, cut, folder / CUBES)
        self._order = EpochOrder(len(task.patients), task.settings.seed)
        self.held_out = len(task.judged)

    def net(self) -> nn.Module:
        prevalence = float(np.mean([p.outcome for p in self._task.patients]))
        return OutcomeNet(self._task.architecture, load_weights(self._blobs, self._task.checkpoint_hash), prevalence)

    def sample(self, step: int, position: int) -> Inputs:
        draw = np.random.default_rng([self._settings.seed, 2, step, position])
        patient = self._task.patients[self._order[step * self._settings.batch + position]]
        order = draw.permutation(len(patient.rois))
        cubes = self._readable([patient.rois[i] for i in order], self._settings.rois_a_step)
        return self._inputs([augmented(cube, self._settings.augmentation, draw) for cube in cubes], patient.outcome)

    def held_out_sample(self, number: int) -> Inputs:
        patient = self._task.judged[number]
        return self._inputs(self._readable(list(patient.rois), len(patient.rois)), patient.outcome)

    def together(self, samples: list[Inputs]) -> Inputs:
        cubes, pools, outcomes = zip(*samples, strict=True)
        return torch.cat(cubes), torch.block_diag(*pools), torch.cat(outcomes)  # type: ignore[no-untyped-call]

    def judged(self, found: list[tuple[float, float]]) -> dict[str, float]:
        y = np.array([p.outcome for p in self._task.judged])
        return {**super().judged(found), "held_out_auc": float(auc(y, np.array([score for _, score in found])))}

    def _readable(self, rois: list[TrainingRoi], most: int) -> list[np.ndarray]:
        """Cubes of the first ``most`` ROIs that can be cut. Raises what the last one raised where none can."""
        cubes: list[np.ndarray] = []
        error: AsdegError | None = None
        for roi in rois:
            try:
                cubes.append(self._cubes.read(roi))
            except AsdegError as raised:
                error = raised
            if len(cubes) == most:
                break
        if not cubes and error is not None:
            raise error
        return cubes

    @staticmethod
    def _inputs(cubes: list[np.ndarray], outcome: int) -> tuple[Tensor, ...]:
        n = len(cubes)
        return torch.from_numpy(np.stack(cubes))[:, None], torch.full((1, n), 1 / n), torch.tensor([float(outcome)])
