"""A net small enough to train in a test, and a store with images to train it on; also run as a program.

    python -m tests.pipelines.embedding.tiny STORE FOLDER STEPS

pretrains on the store and prints the encoder's id, so that a test can kill it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

from feature_store.store import FeatureStore
from models import encoders, vit
from models.learning.learner import Inputs
from models.learning.settings import PretrainSettings
from pipelines.embedding.distributed import Compute
from pipelines.embedding.pretraining import ReconstructionTask, pretrain
from pipelines.embedding.training import Samples
from tests.pipelines.extraction.extraction_store import add_series

TINY = vit.Architecture(hidden=48, layers=2, mlp=96, heads=2)


def shrink() -> None:
    """From now on, in this process, ``vit_small`` is tiny."""
    vit.ARCHITECTURES["vit_small"] = TINY
    encoders.ARCHITECTURE_DIMENSIONS["vit_small"] = TINY.hidden


def image_store(folder: Path, patients: int = 6) -> FeatureStore:
    store = FeatureStore.open(folder, create=True)
    for number in range(patients):
        add_series(store, f"p{number}", seed=number)
    return store


def settings(**changed: object) -> PretrainSettings:
    given = {"steps": 8, "batch": 2, "evaluate_every": 2, "decoder_width": 24, "decoder_heads": 2, "held_out_cubes": 2}
    return PretrainSettings.model_validate({**given, "decoder_layers": 1, "learning_rate": 1e-3, **changed})


class TinyTask(ReconstructionTask):
    """Shrinks the net in whichever process trains."""

    def open(self, folder: Path) -> Samples:
        shrink()
        return super().open(folder)


class DeadlyTask(TinyTask):
    """The worker that prepares the second sample of the second step dies, the first time it does."""

    def open(self, folder: Path) -> Samples:
        samples = super().open(folder)
        prepare = samples.sample

        def sample(step: int, position: int) -> Inputs:
            died = folder / "died"
            if (step, position) == (1, 1) and not died.exists():
                while not (folder / "state.pt").exists():  # the first step is kept before it happens
                    time.sleep(0.05)
                died.touch()
                os._exit(1)
            return prepare(step, position)

        samples.sample = sample  # type: ignore[method-assign]
        return samples


COMPUTE = Compute(threads=1, readers=1)


if __name__ == "__main__":
    shrink()
    torch.set_num_threads(1)
    trained = pretrain(FeatureStore.open(sys.argv[1]), settings(steps=int(sys.argv[3])), Path(sys.argv[2]), COMPUTE)
    print(trained.encoder)
