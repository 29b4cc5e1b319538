"""Measuring robustness: of ROIs in the store, on Ray where there are several series, or of two files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from feature_store.blobs import Blobs
from feature_store.errors import ExtractionError
from feature_store.store import FeatureStore
from pipelines.imaging.images import load_image, read_canonical
from pipelines.imaging.masks import align_mask, read_mask
from pipelines.radiomics.feature_set_choice import feature_set_for
from pipelines.radiomics.feature_sets import FeatureSet
from pipelines.radiomics.perturbation import PerturbationSettings
from pipelines.radiomics.table import there
from pipelines.ray_session import ray_session
from pipelines.robustness.plan import SeriesToVary
from pipelines.robustness.versions import RoiToVary, RoiValues, code, failed, vary_rois

IN_FLIGHT = 2
"""Series a core that wait in Ray: enough that no worker idles."""
RETRIES = 1
"""Of a series whose worker died."""


def vary_store(
    store_uri: str,
    plan: Sequence[SeriesToVary],
    settings: PerturbationSettings,
    cpus: int | None = None,
    ray_address: str | None = None,
) -> Iterator[RoiValues]:
    """Every ROI of the plan, as they are finished; several series are measured side by side on Ray.

    An ROI that cannot be measured comes with its error, one whose worker died twice as well. Numbers do not
    depend on how many workers there are. Raises ExtractionError where Ray itself stops; what came before stays
    with the caller.
    """
    if cpus == 1 or len(plan) < 2:
        for series in plan:
            yield from vary_series(store_uri, series, settings)
        return
    with ray_session(ray_address, cpus) as resources:
        yield from _on_ray(store_uri, plan, settings, resources.cpus)


def _on_ray(
    store_uri: str, plan: Sequence[SeriesToVary], settings: PerturbationSettings, cpus: int
) -> Iterator[RoiValues]:
    import ray

    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_task)
    waiting = iter(plan)
    running: dict[Any, SeriesToVary] = {}
    try:
        while True:
            while len(running) < IN_FLIGHT * cpus and (series := next(waiting, None)) is not None:
                running[task.remote(store_uri, _fresh(series), settings)] = series
            if not running:
                return
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            series = running.pop(done)
            try:
                yield from ray.get(done)
            except ray.exceptions.RayError:
                yield from (failed(roi, series.feature_set, settings, "ExtractionError") for roi in series.rois)
    except (ConnectionError, RuntimeError, ray.exceptions.RaySystemError) as error:
        raise ExtractionError(
            f"the run was stopped by {type(error).__name__}.", action="Run it again. Ray's log says more."
        ) from error


def _task(store_uri: str, series: SeriesToVary, settings: PerturbationSettings) -> list[RoiValues]:
    return list(vary_series(store_uri, series, settings))


def _fresh(series: SeriesToVary) -> SeriesToVary:
    """Without what its settings have cached (thousands of names), which need not travel."""
    settings = FeatureSet.model_validate(series.feature_set.model_dump())
    return SeriesToVary(series.image_hash, series.mask_hash, settings, series.rois)


def vary_series(store_uri: str, series: SeriesToVary, settings: PerturbationSettings) -> Iterator[RoiValues]:
    """The ROIs of one stored series; all of them with the error where it cannot be read."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    left = list(series.rois)
    try:
        blobs = _blobs(store_uri)
        image = read_canonical(blobs.local_path("images", series.image_hash), series.image_hash)
        mask = read_canonical(blobs.local_path("masks", series.mask_hash), series.mask_hash)
        for found in vary_rois(image, mask, series.rois, series.feature_set, settings):
            left.pop(0)
            yield found
    except Exception as error:
        yield from (failed(roi, series.feature_set, settings, code(error)) for roi in left)


@lru_cache(maxsize=4)
def _blobs(uri: str) -> Blobs:
    return FeatureStore.open(uri).blobs


def vary_files(
    image: Path,
    mask: Path,
    labels: Sequence[int] | None,
    feature_set: str | FeatureSet,
    settings: PerturbationSettings,
) -> tuple[list[int], Iterator[RoiValues]]:
    """The labels of a mask as subjects, and the versions of each; all labels there are when none are given.

    Raises as :func:`pipelines.radiomics.table.radiomics_table` for files and labels.
    """
    chosen = feature_set_for("", feature_set)
    loaded = load_image(image)
    series = loaded.image
    label_map = align_mask(read_mask(mask, None, loaded, labels), series, mask.name)
    present = [int(label) for label in np.unique(sitk.GetArrayViewFromImage(label_map)) if label]
    wanted = there(labels, present, mask.name)
    rois = [RoiToVary("", f"{label:05d}", (label,)) for label in wanted]
    return wanted, vary_rois(series, label_map, rois, chosen, settings)
