"""A phantom cohort's CTs with their masks, and a small U-Net trained on them once for all tests here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feature_store.store import FeatureStore
from models.segmentation.recipe import Recipe, default_recipe
from pipelines.cases.case import read_case
from pipelines.phantom import PhantomCohort, write_phantom_cohort
from pipelines.segmentation.drawn import DrawnCase, choose_classes, drawn_cases, store_of_readings
from pipelines.segmentation.training import TrainedSegmenter, train_segmenter

PATIENTS, SITES = 8, 3
SMALL = {
    "spacing_mm": [4.0, 4.0, 4.0],
    "patch": [24, 24, 40],
    "base_filters": 8,
    "stages": 3,
    "learning_rate": 0.01,
    "steps": 110,
    "held_out_share": 0.25,
    "overlap": 0.25,
    "augmentation": {"affine_share": 0.0, "intensity_share": 0.0},
}
"""Learns vertebral bodies of a phantom's CT in some 15 s on one core."""


@dataclass(frozen=True)
class Phantoms:
    """The cohort's folders, the store its images are in, and a U-Net trained on six of its eight patients."""

    cohort: PhantomCohort
    store: FeatureStore
    recipe: Recipe
    cases: list[DrawnCase]
    done: TrainedSegmenter
    work: Path


def make_phantoms(folder: Path) -> Phantoms:
    cohort = write_phantom_cohort(folder / "cohort", patients=PATIENTS, sites=SITES, seed=5)
    store = store_of_readings((read_case(case.folder) for case in cohort.cases), folder / "store")
    cases = drawn_cases(store, "ct")
    recipe = default_recipe("ct", choose_classes(cases, "all"), **SMALL)
    return Phantoms(
        cohort, store, recipe, cases, train_segmenter(store, recipe, cases, folder / "work"), folder / "work"
    )
