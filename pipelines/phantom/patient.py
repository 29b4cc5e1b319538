"""A phantom patient before any image exists: clinical variables, image markers, outcome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_store.vocabulary import LUMBAR_DISCS, PHANTOM_PREFIX
from pipelines.phantom.effect import MARKERS, PREVALENCE, chance

DIAGNOSES = ("lumbar_stenosis", "lumbar_disc_herniation", "lumbar_spondylolisthesis")
OPEN_WINDOW_EVERY = 40
"""One patient in so many has no visit at six months or later, hence no label: numbers 17, 57, 97, …"""


@dataclass(frozen=True)
class PhantomClinical:
    """Baseline variables in the units of the ``clinical`` table (years, kg/m²)."""

    age: float
    sex: str
    bmi: float
    surgical_segments: int
    fused_levels: tuple[str, ...]
    osteoporosis: bool
    diagnosis: str


@dataclass(frozen=True)
class PhantomPatient:
    """Patient ``number`` (1, 2, …) of a cohort; ``outcome`` is what the label rule must find."""

    number: int
    clinical: PhantomClinical
    degenerating: bool
    markers: dict[str, float]
    outcome: int
    open_window: bool
    seeds: dict[str, np.random.SeedSequence]

    @property
    def patient_id(self) -> str:
        return f"{PHANTOM_PREFIX}{self.number:04d}"

    def rng(self, purpose: str) -> np.random.Generator:
        """A fresh generator for one purpose, so that no part's draws shift another's."""
        return np.random.default_rng(self.seeds[purpose])


PURPOSES = ("clinical", "state", "lot", "anatomy", "position", "follow_up", "ct", "t1_sag", "t2_sag", "t2_ax")


def draw_clinical(rng: np.random.Generator) -> PhantomClinical:
    """Baseline variables of one patient."""
    age = float(np.round(np.clip(rng.normal(60.0, 9.5), 32.0, 86.0), 1))
    osteoporosis = bool(rng.random() < 1.0 / (1.0 + np.exp(1.25 - 0.06 * (age - 60.0))))
    segments = int(rng.choice((1, 2, 3), p=(0.50, 0.33, 0.17)))
    lowest = int(rng.choice((2, 3, 4), p=(0.10, 0.60, 0.30)))
    return PhantomClinical(
        age=age,
        sex=str(rng.choice(("female", "male"), p=(0.55, 0.45))),
        bmi=float(np.round(np.clip(rng.normal(25.5, 3.6), 17.0, 42.0), 1)),
        surgical_segments=segments,
        fused_levels=LUMBAR_DISCS[lowest - segments + 1 : lowest + 1],
        osteoporosis=osteoporosis,
        diagnosis=str(rng.choice(DIAGNOSES)),
    )


def draw_patient(seed: int, number: int, effect: bool = True) -> PhantomPatient:
    """Patient ``number`` of the cohort ``seed``; the same whatever the size of the cohort.

    ``effect`` changes the outcome only: clinical variables and markers stay the same patient's.
    """
    children = np.random.SeedSequence(entropy=seed, spawn_key=(number,)).spawn(len(PURPOSES))
    seeds = dict(zip(PURPOSES, children, strict=True))
    clinical = draw_clinical(np.random.default_rng(seeds["clinical"]))
    state = np.random.default_rng(seeds["state"])
    risk = chance(clinical.age, clinical.bmi, clinical.osteoporosis, clinical.surgical_segments)
    degenerating = bool(state.random() < risk)
    by_lot = bool(np.random.default_rng(seeds["lot"]).random() < PREVALENCE)
    return PhantomPatient(
        number=number,
        clinical=clinical,
        degenerating=degenerating,
        markers={name: marker.draw(degenerating, state) for name, marker in MARKERS.items()},
        outcome=int(degenerating if effect else by_lot),
        open_window=number % OPEN_WINDOW_EVERY == 17,
        seeds=seeds,
    )
