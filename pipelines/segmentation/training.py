"""Training a segmenter: cases with drawn masks in, a registered U-Net with held-out figures out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from feature_store.blobs import Blobs
from feature_store.errors import Conflict, InputError, TooFewPatients
from feature_store.store import FeatureStore
from models.segmentation.recipe import Recipe
from pipelines.segmentation.drawn import DrawnCase, usable_for
from pipelines.segmentation.grid import RecipeGrid, labels_on, net_input
from pipelines.segmentation.registry import register_segmenter
from pipelines.segmentation.segmenter import segment_with

if TYPE_CHECKING:
    from torch import nn

RUN = "run.json"
PREPARED = "prepared"
CURVE = "curve.json"
JUDGED_ON_THE_WAY = 4
"""Held-out images that the learning curve's Dice is of; the figures at the end are of all of them."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class TrainedSegmenter:
    """What became of a training. ``left_out`` counts cases by why they were not used."""

    segmenter: str
    patients_seen: list[str]
    patients_held_out: list[str]
    metrics: dict[str, Any] | None
    curve: list[dict[str, Any]]
    left_out: dict[str, int]


def train_segmenter(
    store: FeatureStore,
    recipe: Recipe,
    cases: Sequence[DrawnCase],
    work: Path,
    *,
    source: FeatureStore | None = None,
    device: str | None = None,
    checkpoint_seconds: float = 60.0,
    progress: Progress | None = None,
) -> TrainedSegmenter:
    """Train, judge on the patients held out, register in ``store``. The same call goes on where it was stopped.

    ``work`` keeps prepared images, checkpoint and learning curve; ``source`` is where the cases' images and masks
    lie (default: ``store``). Patients are split by the recipe's seed. Raises TooFewPatients without a usable case,
    Conflict where ``work`` belongs to another training.
    """
    from models.segmentation.examples import open_example
    from models.segmentation.fitting import fit
    from models.segmentation.metrics import agreement, mean_dice, summary
    from models.segmentation.unet import best_device, load_net

    say = progress or (lambda _what, _share: None)
    device = device or best_device()
    blobs = (source or store).blobs
    usable = [case for case in cases if usable_for(case, recipe.classes)]
    left_out = {"not every structure is drawn": len(cases) - len(usable)}
    _claim(work, recipe, usable)
    folders, judged_on = _gather(usable, blobs, recipe, work / PREPARED, left_out, say)
    if not folders:
        raise TooFewPatients(
            f"none of {len(cases)} cases can be learnt from ({_reasons(left_out)}).",
            action="Ingest cases with masks of every structure, or name fewer --structures.",
        )
    watched = judged_on[:JUDGED_ON_THE_WAY]

    def judge(net: nn.Module) -> float:
        pairs = [_found_and_drawn(net, case, blobs, recipe, device)[:2] for case in watched]
        return float(np.nanmean([mean_dice(found, drawn, len(recipe.classes)) for found, drawn in pairs]))

    done = fit(
        recipe,
        [open_example(folder) for folder in folders.values()],
        work,
        judge=judge if watched else None,
        device=device,
        checkpoint_seconds=checkpoint_seconds,
        progress=lambda step, loss: say(
            f"step {step} of {recipe.steps}, loss {loss:.3f}", 0.05 + 0.9 * step / recipe.steps
        ),
    )
    curve = [vars(point) for point in done.curve]
    (work / CURVE).write_text(json.dumps(curve, indent=1), encoding="utf-8")
    metrics = None
    if judged_on:
        say(f"judge on {len(judged_on)} held out", 0.95)
        net = load_net(recipe, done.weights, device)
        names = [str(one) for one in recipe.classes]
        metrics = summary(
            [agreement(*_found_and_drawn(net, case, blobs, recipe, device), len(names)) for case in judged_on], names
        )
    segmenter = register_segmenter(
        store,
        recipe,
        done.weights,
        patients_seen=sorted(folders),
        patients_held_out=sorted({case.patient for case in judged_on}),
        metrics=metrics,
    )
    shutil.rmtree(work / PREPARED, ignore_errors=True)
    say("done", 1.0)
    return TrainedSegmenter(
        segmenter,
        sorted(folders),
        sorted({case.patient for case in judged_on}),
        metrics,
        curve,
        {reason: count for reason, count in left_out.items() if count},
    )


def split(cases: Sequence[DrawnCase], recipe: Recipe) -> tuple[list[DrawnCase], list[DrawnCase]]:
    """Cases to train on and cases held out, by patient: who is held out follows from the seed and the patient."""
    patients = sorted({case.patient for case in cases}, key=lambda patient: _draw(recipe.seed, patient))
    wanted = round(recipe.held_out_share * len(patients))
    if recipe.held_out_share > 0 and len(patients) > 1:
        wanted = max(wanted, 1)
    held_out = set(patients[:wanted])
    return [c for c in cases if c.patient not in held_out], [c for c in cases if c.patient in held_out]


def _draw(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}\n{patient}".encode()).hexdigest()


def _claim(work: Path, recipe: Recipe, cases: Sequence[DrawnCase]) -> None:
    """Make the folder this training's own, or see that it is."""
    sources = json.dumps([recipe.canonical(), sorted(case.sources for case in cases)])
    run = json.dumps({"training": hashlib.sha256(sources.encode()).hexdigest()})
    work.mkdir(parents=True, exist_ok=True)
    if not (work / RUN).is_file():
        (work / RUN).write_text(run, encoding="utf-8")
    elif (work / RUN).read_text(encoding="utf-8") != run:
        raise Conflict(
            "the work folder belongs to a training with another recipe or other cases.",
            action="Name another --work, or delete the folder.",
        )


def _gather(
    usable: Sequence[DrawnCase], blobs: Blobs, recipe: Recipe, prepared: Path, left_out: dict[str, int], say: Progress
) -> tuple[dict[str, Path], list[DrawnCase]]:
    """Prepared images of the patients to learn from, and the cases to judge on; others are counted in ``left_out``."""
    training, held_out = split(usable, recipe)
    folders: dict[str, Path] = {}
    judged_on: list[DrawnCase] = []
    for number, case in enumerate([*training, *held_out]):
        say(f"prepare {number + 1} of {len(usable)}", 0.05 * number / len(usable))
        try:
            if number < len(training):
                folders[case.patient] = _prepared(case, blobs, recipe, prepared)
            else:
                case.read_labels(blobs, recipe.classes)  # what cannot be read must not stop a training at its end
                judged_on.append(case)
        except InputError as error:
            left_out[error.message] = left_out.get(error.message, 0) + 1
    return folders, judged_on


def _folder(case: DrawnCase, recipe: Recipe, prepared: Path) -> Path:
    text = json.dumps([recipe.canonical(), case.sources])
    return prepared / hashlib.sha256(text.encode()).hexdigest()[:16]


def _prepared(case: DrawnCase, blobs: Blobs, recipe: Recipe, prepared: Path) -> Path:
    from models.segmentation.examples import write_example

    folder = _folder(case, recipe, prepared)
    if not folder.is_dir():
        image = case.read_image(blobs)
        labels = case.read_labels(blobs, recipe.classes)
        grid = RecipeGrid.of(image, recipe)
        write_example(folder, net_input(image, grid, recipe), labels_on(grid, labels), recipe.seed)
    return folder


def _found_and_drawn(
    net: nn.Module, case: DrawnCase, blobs: Blobs, recipe: Recipe, device: str
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Label maps (z, y, x) on the image's own voxels, as the net and as people drew them, and spacing z, y, x."""
    image = case.read_image(blobs)
    drawn = sitk.GetArrayFromImage(case.read_labels(blobs, recipe.classes))
    return segment_with(net, image, recipe, device), drawn, image.GetSpacing()[::-1]


def _reasons(left_out: dict[str, int]) -> str:
    return "; ".join(f"{count}: {reason.rstrip('.')}" for reason, count in left_out.items() if count) or "there is none"
