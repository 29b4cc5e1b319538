"""Masked autoencoder on phantom images: does its loss fall, and does its embedding tell more than a random one?

    python tests/benchmarks/pretraining.py [--patients 60] [--steps 120] [--sequence t2_sag] [--json]

Phantom patients of one site, one MR sequence (a CT would do as well). Half of the patients, without their outcomes,
are pretrained on; all are embedded by the encoder before and after. What is planted in the images ("degenerating")
is then predicted from each embedding by ridge logistic regression on the other half's patients, ten times five-fold
cross-validated; printed are the mean AUC and its spread over the ten shuffles. ROIs: the union of the discs.
Nothing is picked: one seed, one setting, whichever comes out better. Phantoms: no clinical meaning.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import infra.cli
from feature_store.store import FeatureStore
from models.checkpoints import random_weights
from models.encoders import EncoderSettings
from models.learning.masked_autoencoder import starting_weights
from models.learning.settings import PretrainSettings
from pipelines.embedding.distributed import Compute, train_with
from pipelines.embedding.embedder import Embedder
from pipelines.embedding.pretraining import ReconstructionTask, spread
from pipelines.embedding.training_cubes import CubeReader, TrainingRoi, training_rois
from pipelines.phantom import write_phantom_cohort

SEED = 0


def store_of_phantoms(folder: Path, patients: int) -> FeatureStore:
    cohort = write_phantom_cohort(folder / "phantoms", patients, 1, SEED)
    site = cohort.sites[0]
    where = ("--store", str(folder / "store"))
    with redirect_stdout(io.StringIO()):
        infra.cli.main([*where, "ingest", str(folder / "phantoms" / site), "--site", site, "--json"])
        infra.cli.main([*where, "outcomes", str(cohort.outcome_files[site]), "--site", site, "--json"])
    return FeatureStore.open(folder / "store")


def outcomes(store: FeatureStore) -> dict[str, int]:
    rows = store.snapshot().table("labels", ["site", "patient_id", "outcome"]).to_pylist()
    return {f"{r['site']}/{r['patient_id']}": r["outcome"] for r in rows if r["outcome"] is not None}


def cross_validated_auc(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    model = make_pipeline(
        StandardScaler(), PCA(n_components=8, random_state=0), LogisticRegression(C=0.1, max_iter=2000)
    )
    aucs = []
    for repeat in range(10):
        folds = StratifiedKFold(5, shuffle=True, random_state=repeat)
        aucs.append(roc_auc_score(y, cross_val_predict(model, x, y, cv=folds, method="predict_proba")[:, 1]))
    return float(np.mean(aucs)), float(np.std(aucs, ddof=1))


def embed(cubes: CubeReader, rois: list[TrainingRoi], weights: Any, cut: EncoderSettings) -> np.ndarray:
    embedder = Embedder(cut, weights)
    return np.concatenate(
        [embedder.embed(np.stack([cubes.read(r) for r in rois[i : i + 2]])) for i in range(0, len(rois), 2)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", default="t2_sag")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    settings = PretrainSettings(
        steps=options.steps, batch=options.batch, evaluate_every=max(options.steps // 8, 1), held_out_cubes=8, seed=SEED
    )
    with tempfile.TemporaryDirectory(prefix="asdeg-pretraining-") as text:
        folder = Path(text)
        store = store_of_phantoms(folder, options.patients)
        y = outcomes(store)
        rois = training_rois(store.snapshot(), sequences={options.sequence})
        patients = sorted({roi.patient for roi in rois})
        learned_from = set(patients[::2])
        apart = set(sorted(learned_from)[:3])
        task = ReconstructionTask(
            settings,
            store.uri,
            tuple(r for r in rois if r.patient in learned_from - apart),
            tuple(spread([r for r in rois if r.patient in apart], settings.held_out_cubes)),
            None,
        )
        start = time.monotonic()
        state = train_with(task, folder / "run", Compute())
        seconds = time.monotonic() - start
        cut = EncoderSettings(architecture=settings.architecture)
        cubes = CubeReader(store.blobs, cut, folder / "cubes")
        discs = [
            r
            for r in training_rois(store.snapshot(), sequences={options.sequence}, unions_only=True)
            if r.structure == "intervertebral_disc" and r.patient not in learned_from and r.patient in y
        ]
        outcome = np.array([y[r.patient] for r in discs])
        before = random_weights(settings.architecture, SEED)
        aucs = {
            "random": cross_validated_auc(embed(cubes, discs, before, cut), outcome),
            "random_sincos_positions": cross_validated_auc(embed(cubes, discs, starting_weights(before), cut), outcome),
            "pretrained": cross_validated_auc(embed(cubes, discs, state["weights"], cut), outcome),
        }
    print(
        json.dumps(
            {
                "phantom": True,
                "sequence": options.sequence,
                "pretrained_on": {"patients": len(learned_from - apart), "rois": len(task.rois)},
                "steps": options.steps,
                "batch": options.batch,
                "seconds_per_step": seconds / options.steps,
                "curve": state["curve"],
                "judged_on": {"patients": len(outcome), "events": int(outcome.sum())},
                "auc_mean_and_sd_over_shuffles": aucs,
            },
            indent=None if options.json else 2,
        )
    )


if __name__ == "__main__":
    main()
