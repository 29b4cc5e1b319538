"""What the segmentation recipe learns: phantoms (judged on patients held out), and the real CT (memorised).

    python -m tests.benchmarks.segmentation [--parts ct t2_sag t2_ax real] [--out FOLDER] [--json]

Each phantom part trains one small U-Net on nine phantom patients of three sites and judges it on three others. The
real part trains on the one lumbar CT of the shared data folder and says how well it gives that very CT back, and
what it draws on the CT of another patient: one patient is too few to generalise, and no clinical claim follows. With
``--out`` the pictures of what was drawn are kept there. About a minute a part; a part that is
stopped goes on when it is started again with the same ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from feature_store.errors import LabelEmpty
from feature_store.store import FeatureStore
from feature_store.vocabulary import PHANTOM_NOTICE, PRIMARY_SEGMENTATION
from models.segmentation.metrics import agreement, summary
from models.segmentation.recipe import Recipe, default_recipe
from pipelines.cases.case import read_case
from pipelines.cases.case_quality import judge_mask
from pipelines.cases.overlay import DrawnMask, draw_overlay
from pipelines.cases.rois import find_rois
from pipelines.phantom import write_phantom_cohort
from pipelines.segmentation.drawn import DrawnCase, Levels, choose_classes, drawn_cases, store_of_readings
from pipelines.segmentation.registry import find_segmenter, load_segmenter
from pipelines.segmentation.segmenter import Segmenter
from pipelines.segmentation.training import TrainedSegmenter, train_segmenter
from tests.pipelines.real_cases import write_real_cases

PATIENTS, SITES, SEED = 12, 3, 11
SMALL: dict[str, Any] = {"base_filters": 8, "stages": 4, "learning_rate": 0.01, "held_out_share": 0.25}
PARTS: dict[str, dict[str, Any]] = {
    "ct": {"spacing_mm": [4.0, 4.0, 4.0], "patch": [24, 24, 56], "steps": 160},
    "t2_sag": {"spacing_mm": [4.4, 3.2, 3.2], "patch": [16, 32, 72], "steps": 160},
    "t2_ax": {"spacing_mm": [2.8, 2.8, 8.0], "patch": [48, 32, 12], "steps": 160},
    "real": {"spacing_mm": [5.0, 5.0, 5.0], "patch": [32, 32, 56], "steps": 200},
}
LEVELS: Levels = "all"
"""One class a structure. Levels apart need far more steps than there is time for here, so nothing is said of them."""


def phantom_part(sequence: str, folder: Path) -> dict[str, Any]:
    """Train on phantoms, judge on phantoms held out."""
    if not (folder / "cases").is_dir():
        cohort = write_phantom_cohort(folder / "cohort", patients=PATIENTS, sites=SITES, seed=SEED)
        store_of_readings((read_case(case.folder) for case in cohort.cases), folder / "cases")
    store = FeatureStore.open(folder / "cases")
    cases = drawn_cases(store, sequence)
    recipe = default_recipe(sequence, choose_classes(cases, LEVELS), **SMALL | PARTS[sequence])
    start = time.perf_counter()
    done = train_segmenter(store, recipe, cases, folder / sequence)
    seconds = time.perf_counter() - start
    segmenter = load_segmenter(store, find_segmenter(store, sequence, done.segmenter))
    held_out = next(case for case in cases if case.patient in done.patients_held_out)
    _picture(segmenter, held_out.read_image(store.blobs), folder / f"{sequence}.png", PHANTOM_NOTICE)
    return _figures(done, recipe, seconds)


def real_part(data: Path, folder: Path) -> dict[str, Any]:
    """Memorise the lumbar CT; look at another patient's."""
    names = ("ct_lumbar", "ct_single_vertebra")
    if not (folder / "real-cases").is_dir():
        folders = write_real_cases(data, folder / "real", names)
        store_of_readings((read_case(one) for one in folders), folder / "real-cases")
    store = FeatureStore.open(folder / "real-cases")
    by_name = {case.patient_id: case for case in drawn_cases(store, "ct")}
    learnt, other = by_name["ct-lumbar"], by_name["ct-single"]
    classes = choose_classes([learnt], LEVELS, ["vertebra"])
    recipe = default_recipe("ct", classes, **SMALL | PARTS["real"] | {"held_out_share": 0.0})
    start = time.perf_counter()
    done = train_segmenter(store, recipe, [learnt], folder / "real-work")
    seconds = time.perf_counter() - start
    segmenter = load_segmenter(store, find_segmenter(store, "ct", done.segmenter))
    figures = _figures(done, recipe, seconds)
    figures["memorised"] = _judge(segmenter, learnt, store, folder / "real.png")
    figures["another_patient"] = _judge(segmenter, other, store, folder / "real-another-patient.png")
    return figures


def _figures(done: TrainedSegmenter, recipe: Recipe, seconds: float) -> dict[str, Any]:
    found = {
        "trained_on": len(done.patients_seen),
        "steps": recipe.steps,
        "seconds": round(seconds, 1),
        "first_loss": done.curve[0]["loss"],
        "last_loss": done.curve[-1]["loss"],
    }
    return found | ({"held_out": done.metrics} if done.metrics else {})


def _judge(segmenter: Segmenter, case: DrawnCase, store: FeatureStore, picture: Path) -> dict[str, Any]:
    """Dice and distances on one image; 0 where nothing was found."""
    image = case.read_image(store.blobs)
    classes = segmenter.recipe.classes
    drawn = sitk.GetArrayFromImage(case.read_labels(store.blobs, classes))
    try:
        found = sitk.GetArrayFromImage(segmenter.segment(image))
        _picture(segmenter, image, picture, "")
    except LabelEmpty:
        found = np.zeros_like(drawn)
    one = agreement(found, drawn, image.GetSpacing()[::-1], len(classes))
    return summary([one], [str(name) for name in classes])


def _picture(segmenter: Segmenter, image: sitk.Image, out: Path, notice: str) -> None:
    mask = sitk.Cast(segmenter.segment(image), sitk.sitkUInt16)
    there = {int(n) for n in np.unique(sitk.GetArrayViewFromImage(mask))}
    labels = {n: name for n, name in segmenter.labels.items() if n in there}
    sequence = segmenter.recipe.sequence
    rois = find_rois(mask, labels, sequence).rois
    whole, judged = judge_mask(image, mask, rois, sequence)
    out.write_bytes(draw_overlay(image, [DrawnMask(mask, rois, judged)], sequence, PRIMARY_SEGMENTATION, whole, notice))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, help="folder for pictures, checkpoints and curves")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    data = Path(os.environ.get("ASDEG_SHARED_DATA", shared))
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = {
            part: real_part(data, folder) if part == "real" else phantom_part(part, folder) for part in arguments.parts
        }
    if arguments.json:
        print(json.dumps(found))
        return
    for part, figures in found.items():
        print(f"{part}: {figures['steps']} steps on {figures['trained_on']} patients, {figures['seconds']} s, ", end="")
        print(f"loss {figures['first_loss']:.2f} -> {figures['last_loss']:.2f}")
        for kind in ("held_out", "memorised", "another_patient"):
            if kind in figures:
                _print_summary(kind, figures[kind])


def _print_summary(kind: str, figures: dict[str, Any]) -> None:
    rows = {f"{kind} ({figures['images']} images)": figures, **figures["classes"]}
    for name, row in rows.items():
        values = [("–" if row[key] is None else f"{row[key]:.3f}") for key in ("dice", "surface_mm", "hausdorff95_mm")]
        counts = "".join(f", {row[key]} {key}" for key in ("missed", "unexpected") if row.get(key))
        print(f"  {name:42s} Dice {values[0]}, mean distance {values[1]} mm, Hausdorff 95 {values[2]} mm{counts}")


if __name__ == "__main__":
    main()
