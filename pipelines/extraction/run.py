"""Extraction as one streaming plan on Ray Data: ROIs without features in, feature rows in the store out.

    series ─▶ read (CPU actors) ─▶ radiomics (CPU actors) ─▶ embedding (actors, a GPU each where there is one) ─▶ push

Rows are pushed in batches as they come. A run that is killed loses the batch in flight and no more; the
next run plans from what is stored, so it does the rest and nothing twice.

A worker that dies (an ROI past its time, a crash, a machine that went away) takes along the ROIs it held;
nothing is tried again within the stream. When the stream has ended, what is missing is computed once more, each
ROI in a process of its own (:mod:`pipelines.extraction.alone`), and what is lost there too is recorded as failed.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

from feature_store.errors import ExtractionError
from feature_store.store import FeatureStore
from pipelines.embedding.registry import register_encoder, resolve_encoder
from pipelines.extraction.alone import computed_alone
from pipelines.extraction.plan import ExtractionSettings, SeriesJob, by_series, plan_extraction
from pipelines.extraction.results import CaseStates, Collector, ExtractionReport, Progress
from pipelines.extraction.steps import EmbeddingStep, RadiomicsStep, ReadStep, WorkerConfig, lost_row, refused_row
from pipelines.ray_session import RayResources, quiet_ray_data, ray_session

READ_CPUS, RADIOMICS_CPUS, EMBEDDING_CPUS = 0.1, 0.5, 0.2
"""Shares of a core that Ray reserves a worker. They are small so that on two cores all three stages
run at once, beside the services' replicas; how many workers there are follows from the cores."""

BLOCK_BYTES = 16 * 1024**2
"""About two cubes: ROIs of one series then go to different workers as soon as they are cut."""

CPU_BATCH, GPU_BATCH = 4, 16
MOST_BLOCKS = 10_000
TASKS_IN_FLIGHT = 2
"""Blocks an actor has: one it computes, one that waits at its side. A dying actor loses both."""


def extract(
    store: FeatureStore,
    settings: ExtractionSettings | None = None,
    control: CaseStates | None = None,
    progress: Progress | None = None,
) -> ExtractionReport:
    """Compute and store what the ROIs in the store lack: radiomics, embeddings, or both.

    Feature sets and the encoder are registered first. Every ROI ends as a row: with its values, or without
    and with the reason (``Code: message``); that holds for an ROI that brings its worker process down as well.
    A case with at least one usable ROI becomes ``extracted`` in the
    control database, any other ``rejected``, both with the reasons of the ROIs that failed.

    Raises NotFound for an unknown feature set or encoder, ExtractionError where Ray itself stops.
    """
    settings = settings or ExtractionSettings()
    start = monotonic()
    encoder = resolve_encoder(store, settings.encoder) if settings.encoder is not None else None
    plan = plan_extraction(store.snapshot(), settings, encoder)
    collector = Collector(store, settings, plan, control, progress)
    collector.start()
    if plan.series or plan.refused:
        if plan.feature_sets:
            rows = [feature_set.row() for feature_set in plan.feature_sets.values()]
            store.push({"feature_sets": rows}, kind="feature_set", source="extraction")
        checkpoint_hash = register_encoder(store, encoder) if encoder is not None else ""
        collector.collect(refused_row(job, reason) for job, reason in plan.refused)
    if plan.series:
        # Settings are rebuilt, so that what they have cached (thousands of names) does not travel along.
        fresh = {id_: type(s).model_validate(s.model_dump()) for id_, s in plan.feature_sets.items()}
        config = WorkerConfig(store.uri, fresh, encoder, checkpoint_hash, limits=settings.limits)
        with (
            ray_session(settings.ray_address, settings.cpus, settings.gpus) as resources,
            quiet_ray_data(BLOCK_BYTES),
        ):
            config = replace(config, device="cuda" if resources.gpus else "cpu")
            try:
                collector.collect(_rows(_stream(plan.series, config, resources)))
            except ExtractionError as error:
                if not _machine_lost(error):
                    raise
                collector.collect(_rows(_stream(by_series(collector.missing), config, resources)))
            collector.alone = len(collector.missing)
            collector.collect(computed_alone(collector.missing, config, resources))
            collector.collect(lost_row(job) for job in collector.missing)
    return collector.report(monotonic() - start)


def _machine_lost(error: ExtractionError) -> bool:
    """Whether the stream ended because rows went with the machine that held them; the others can go on."""
    from ray.exceptions import ObjectLostError

    return isinstance(error.__cause__, ObjectLostError)


def _stream(series: list[SeriesJob], config: WorkerConfig, resources: RayResources) -> Any:
    """The plan as a lazy Ray dataset; nothing runs before it is iterated."""
    import ray.data

    rois = [job for one in series for job in one.rois]
    on_gpu = resources.gpus > 0
    pool = partial(ray.data.ActorPoolStrategy, max_tasks_in_flight_per_actor=TASKS_IN_FLIGHT)
    items = [{"series": pickle.dumps(one)} for one in series]
    data = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_BLOCKS)).flat_map(
        ReadStep,
        fn_constructor_args=(config,),
        compute=pool(size=min(resources.cpus, len(items))),
        num_cpus=READ_CPUS,
        max_task_retries=0,
    )
    if any(job.feature_set is not None for job in rois):
        data = data.map(
            RadiomicsStep,
            fn_constructor_args=(config,),
            compute=pool(size=min(resources.cpus, len(rois))),
            num_cpus=RADIOMICS_CPUS,
            max_task_retries=0,
        )
    if any(job.encoder is not None for job in rois):
        data = data.map_batches(
            EmbeddingStep,
            fn_constructor_args=(config,),
            batch_format="pyarrow",
            batch_size=GPU_BATCH if on_gpu else CPU_BATCH,
            compute=pool(min_size=1, max_size=min(resources.gpus or resources.cpus, len(rois))),
            num_cpus=EMBEDDING_CPUS,
            num_gpus=1 if on_gpu else 0,
            max_task_retries=0,
        )
    return data


def _rows(data: Any) -> Iterator[dict[str, Any]]:
    """Rows as their blocks come; what Ray raises becomes ours."""
    try:
        for block in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            yield from block.to_pylist()
    except Exception as error:
        raise ExtractionError(
            f"the run was stopped by {type(error).__name__}; what is stored stays.",
            action="Run it again: it goes on where it stopped. Ray's log says more.",
        ) from error
