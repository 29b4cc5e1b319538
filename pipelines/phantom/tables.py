"""Phantom feature tables: what a study takes, without images, for tests of the statistics over many seeds.

Made to be as awkward as tables of real radiomics: blocks of columns that say almost the same, heavy tails,
scales from 1e-4 to 1e6, outliers, sites that are shifted against each other. With the effect a few blocks and
a few deep factors differ between the outcomes (:data:`BLOCK_SHIFT`, :data:`DEEP_SHIFT`), and the clinical
variables carry the risk of :mod:`pipelines.phantom.effect`; without it the same numbers stay and the outcome is
drawn by lot.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.vocabulary import PAPER_ROIS, PHANTOM_PREFIX, Partition, RoiName
from models.study_tables import StudyTables
from pipelines.phantom.effect import PREVALENCE, chance
from pipelines.phantom.patient import PhantomClinical, draw_clinical

Array = NDArray[np.float64]

TOLD_BY = (RoiName("t2_sag", "intervertebral_disc"), RoiName("t2_ax", "paraspinal_muscle"))
"""ROIs of which some blocks and deep factors know the outcome."""

BLOCK = 12
"""Columns that share one hidden factor (correlations of 0.7 to 0.99 within the block)."""

BLOCK_SHIFT = 1.0
"""SDs by which the first two blocks after the sizes differ in each ROI of TOLD_BY."""

DEEP_FACTORS = 12
DEEP_SHIFT = 0.8
"""SDs by which the first two of an ROI's DEEP_FACTORS differ in each ROI of TOLD_BY."""

SITE_SHIFT = 0.25
"""SD of a site's shift of a column, in SDs of the column."""

SIZES = ("original_shape_MeshVolume", "original_shape_Maximum3DDiameter")


def phantom_tables(
    n_training: int,
    n_external: int,
    n_radiomics: int,
    n_deep: int,
    seed: int = 0,
    effect: bool = True,
    n_internal: int = 0,
) -> StudyTables:
    """A study of ``n_training`` + ``n_internal`` patients of two sites and ``n_external`` of two others.

    ``n_radiomics`` and ``n_deep`` count columns over the study's eight ROIs; 0 leaves the table out. Each ROI with
    three radiomics columns or more has a volume (mm³) and a diameter (mm) that know nothing of the outcome.
    """
    n = n_training + n_internal + n_external
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(5)]
    clinical = [draw_clinical(streams[0]) for _ in range(n)]
    risk = np.array([chance(c.age, c.bmi, c.osteoporosis, c.surgical_segments) for c in clinical])
    degenerating = streams[1].random(n) < risk
    by_lot = streams[2].random(n) < PREVALENCE
    partition = (
        [Partition.TRAINING.value] * n_training
        + [Partition.INTERNAL_VALIDATION.value] * n_internal
        + [Partition.EXTERNAL_TEST.value] * n_external
    )
    inside = n_training + n_internal
    site = np.array([f"site_{'ab'[i % 2]}" if i < inside else f"site_{'cd'[i % 2]}" for i in range(n)])
    patients = pd.DataFrame(
        {
            "patient_id": [f"{PHANTOM_PREFIX}{number:04d}" for number in range(1, n + 1)],
            "site": site,
            "partition": partition,
            "outcome": (degenerating if effect else by_lot).astype(np.int64),
        }
    )
    return StudyTables(
        patients=patients,
        radiomics=_radiomics(n_radiomics, degenerating, site, streams[3]),
        deep=_deep(n_deep, degenerating, site, streams[4]),
        clinical=_clinical(clinical),
    )


def _clinical(drawn: list[PhantomClinical]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": [c.age for c in drawn],
            "sex": [c.sex for c in drawn],
            "bmi": [c.bmi for c in drawn],
            "surgical_segments": [c.surgical_segments for c in drawn],
            "osteoporosis": [int(c.osteoporosis) for c in drawn],
            "diagnosis": [c.diagnosis for c in drawn],
        }
    )


def _shares(columns: int) -> Iterator[tuple[RoiName, int]]:
    """The columns dealt out over the eight ROIs, the first ones getting what is left over."""
    each, more = divmod(columns, len(PAPER_ROIS))
    for index, roi in enumerate(PAPER_ROIS):
        yield roi, each + (index < more)


def _site_shift(site: NDArray[np.str_], columns: int, rng: np.random.Generator) -> Array:
    _, index = np.unique(site, return_inverse=True)
    shift: Array = rng.normal(0.0, SITE_SHIFT, (4, columns))[index]
    return shift


def _radiomics(
    columns: int, degenerating: NDArray[np.bool_], site: NDArray[np.str_], rng: np.random.Generator
) -> pd.DataFrame | None:
    if columns == 0:
        return None
    made: dict[str, Array] = {}
    n = len(degenerating)
    for roi, count in _shares(columns):
        volume = rng.normal(size=n)
        sizes = SIZES if count > len(SIZES) else ()
        for name, power in zip(sizes, (0.12, 0.04), strict=False):
            scale = 40_000.0 if name == SIZES[0] else 60.0
            made[roi.feature_name(name)] = scale * np.exp(power * (volume + 0.2 * rng.normal(size=n)))
        rest = count - len(sizes)
        z = _blocks(rest, volume, degenerating if roi in TOLD_BY else None, rng)
        z = z + _site_shift(site, rest, rng)
        for index in range(rest):
            made[roi.feature_name(f"phantom_texture_{index:04d}")] = _as_measured(z[:, index], rng)
    return pd.DataFrame(made)


def _blocks(columns: int, volume: Array, degenerating: NDArray[np.bool_] | None, rng: np.random.Generator) -> Array:
    """Standardised columns (n, columns): hidden factors, partly volume, with noise of a column's own."""
    n = len(volume)
    z = np.empty((n, columns))
    for block, start in enumerate(range(0, columns, BLOCK)):
        with_volume = 0.3 if block % 3 == 2 else 0.0
        factor = with_volume * volume + np.sqrt(1 - with_volume**2) * rng.normal(size=n)
        if degenerating is not None and block < 2:
            factor = factor + BLOCK_SHIFT * degenerating
        width = min(BLOCK, columns - start)
        loading = rng.uniform(0.85, 0.995, width) * rng.choice((-1.0, 1.0), width)
        z[:, start : start + width] = factor[:, None] * loading + rng.normal(size=(n, width)) * np.sqrt(1 - loading**2)
    return z


def _as_measured(z: Array, rng: np.random.Generator) -> Array:
    """One column in units of its own: bell-shaped, skewed, heavy-tailed, or nearly constant with outliers."""
    kind = rng.choice(("bell", "skewed", "heavy", "cubed", "rare"), p=(0.40, 0.32, 0.13, 0.10, 0.05))
    if kind == "skewed":
        z = np.exp(1.1 * z)
    elif kind == "heavy":
        z = z + 0.5 * rng.standard_t(2.0, len(z))
    elif kind == "cubed":
        z = z**3
    elif kind == "rare":
        z = np.where(z > 1.6, np.exp(3.0 * z), 0.01 * z)
    scale: float = 10.0 ** rng.uniform(-4.0, 6.0)
    return scale * (z + rng.normal(0.0, 3.0))


def _deep(
    columns: int, degenerating: NDArray[np.bool_], site: NDArray[np.str_], rng: np.random.Generator
) -> pd.DataFrame | None:
    """Embeddings: every column a mix of a few factors of its ROI, as a net's outputs are."""
    if columns == 0:
        return None
    made: dict[str, Array] = {}
    n = len(degenerating)
    for roi, count in _shares(columns):
        factors = rng.normal(size=(n, DEEP_FACTORS))
        if roi in TOLD_BY:
            factors[:, :2] += DEEP_SHIFT * degenerating[:, None]
        mixed = factors @ rng.normal(0.0, DEEP_FACTORS**-0.5, (DEEP_FACTORS, count))
        values = 0.1 * (mixed + 0.3 * rng.normal(size=(n, count)) + _site_shift(site, count, rng))
        for index in range(count):
            made[roi.feature_name(f"phantom-vit_{index:03d}")] = values[:, index]
    return pd.DataFrame(made)
