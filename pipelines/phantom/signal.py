"""What a sequence makes of the tissues: signal, texture, and the markers of a patient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtri

from feature_store.vocabulary import LUMBAR_DISCS
from pipelines.phantom.anatomy import PARTS, Anatomy, Tissue
from pipelines.phantom.grid import FloatArray, Grid
from pipelines.phantom.patient import PhantomPatient

# Shares of CSF's T2 signal for the MR sequences, Hounsfield units for CT.
SIGNAL: dict[str, dict[Tissue, float]] = {
    "ct": {
        Tissue.AIR: -1000, Tissue.FAT: -95, Tissue.ABDOMEN: 35, Tissue.VESSEL: 45, Tissue.MUSCLE: 55, Tissue.CSF: 12,
        Tissue.NERVE: 30, Tissue.MARROW: 165, Tissue.CORTEX: 430, Tissue.ANNULUS: 95, Tissue.NUCLEUS: 75,
    },
    "t1": {
        Tissue.AIR: 0.0, Tissue.FAT: 0.95, Tissue.ABDOMEN: 0.35, Tissue.VESSEL: 0.08, Tissue.MUSCLE: 0.30,
        Tissue.CSF: 0.16, Tissue.NERVE: 0.28, Tissue.MARROW: 0.55, Tissue.CORTEX: 0.30, Tissue.ANNULUS: 0.24,
        Tissue.NUCLEUS: 0.29,
    },
    "t2": {
        Tissue.AIR: 0.0, Tissue.FAT: 0.72, Tissue.ABDOMEN: 0.34, Tissue.VESSEL: 0.05, Tissue.MUSCLE: 0.17,
        Tissue.CSF: 1.0, Tissue.NERVE: 0.55, Tissue.MARROW: 0.42, Tissue.CORTEX: 0.22, Tissue.ANNULUS: 0.20,
        Tissue.NUCLEUS: 0.55,
    },
}  # fmt: skip

OSTEOPOROSIS_HU = -55.0
"""Osteoporotic marrow on CT; it hangs on the clinical variable, not on the outcome."""

STREAK = 0.55
"""How far a fat streak goes from muscle's to fat's signal: it shares its voxels with muscle."""

OTHER_MUSCLE_FAT = 0.10
"""Share of fat in psoas and quadratus lumborum: the same for everybody but for chance."""


def signal(
    patient: PhantomPatient, sequence: str, anatomy: Anatomy, grid: Grid, rng: np.random.Generator
) -> FloatArray:
    """The noise-free picture (k, j, i): Hounsfield units for CT, shares of CSF's T2 signal for MR."""
    contrast = "ct" if sequence == "ct" else sequence.split("_")[0]
    table = np.array([SIGNAL[contrast][tissue] for tissue in Tissue], dtype=np.float32)
    picture: FloatArray = table[anatomy.tissue]
    _bone(picture, contrast, patient, anatomy, grid, rng)
    _abdomen(picture, contrast, anatomy, grid, rng)
    _discs(picture, contrast, patient.markers, anatomy, grid, rng)
    _muscles(picture, contrast, patient.markers, anatomy, grid, rng)
    return picture


def _bone(
    picture: FloatArray, contrast: str, patient: PhantomPatient, anatomy: Anatomy, grid: Grid, rng: np.random.Generator
) -> None:
    """Marrow density of the patient, and trabeculae as correlated texture."""
    marrow = anatomy.tissue == Tissue.MARROW
    level = float(rng.normal(0.0, 1.0))
    texture = grid.noise(3.0, rng)[marrow]
    if contrast == "ct":
        shift = OSTEOPOROSIS_HU if patient.clinical.osteoporosis else 0.0
        picture[marrow] += shift + 22.0 * level + 30.0 * texture
    else:
        picture[marrow] += 0.04 * level + 0.04 * texture


def _abdomen(picture: FloatArray, contrast: str, anatomy: Anatomy, grid: Grid, rng: np.random.Generator) -> None:
    """Bowel: coarse patches, the same kind for everybody."""
    here = anatomy.tissue == Tissue.ABDOMEN
    picture[here] += (35.0 if contrast == "ct" else 0.12) * grid.noise(7.0, rng)[here]


def _discs(
    picture: FloatArray,
    contrast: str,
    markers: Mapping[str, float],
    anatomy: Anatomy,
    grid: Grid,
    rng: np.random.Generator,
) -> None:
    """On T2 the nucleus has the patient's own signal and roughness; other contrasts know nothing of them."""
    disc = anatomy.where("intervertebral_disc")
    texture = grid.noise(2.2, rng)[disc]
    by_level = rng.normal(0.0, 0.04, len(LUMBAR_DISCS))
    if contrast != "t2":
        picture[disc] += (12.0 if contrast == "ct" else 0.03) * texture
        return
    for number, part in enumerate(PARTS, start=1):
        if part.level in LUMBAR_DISCS:
            here = (anatomy.part == number) & (anatomy.tissue == Tissue.NUCLEUS)
            picture[here] = max(0.1, markers["nucleus_signal"] + by_level[LUMBAR_DISCS.index(part.level)])
    picture[disc] += markers["disc_roughness"] * texture


def _muscles(
    picture: FloatArray,
    contrast: str,
    markers: Mapping[str, float],
    anatomy: Anatomy,
    grid: Grid,
    rng: np.random.Generator,
) -> None:
    """Fat streaks fill the patient's share of the paraspinal muscles; T2 alone shows that share."""
    field = grid.noise(3.0, rng)
    others = float(np.clip(rng.normal(OTHER_MUSCLE_FAT, 0.03), 0.02, 0.25))
    paraspinal = markers["paraspinal_fat"] if contrast == "t2" else OTHER_MUSCLE_FAT
    muscle, fat = SIGNAL[contrast][Tissue.MUSCLE], SIGNAL[contrast][Tissue.FAT]
    back = anatomy.where("paraspinal_muscle")
    for here, share in ((back, paraspinal), ((anatomy.tissue == Tissue.MUSCLE) & ~back, others)):
        streak = 1.0 / (1.0 + np.exp(-(field[here] - ndtri(1.0 - share)) / 0.25))
        picture[here] += STREAK * (fat - muscle) * streak
