"""Long work of a service, carried out as a Ray task: not in the process that answers requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import structlog

from infra.settings import Settings

log = structlog.get_logger(__name__)


def in_ray(settings: Settings, service: Literal["selection", "training"]) -> Callable[[str], None]:
    """A function that has the run of that id carried out by a Ray task, and records its death if the task dies."""

    def submit(run_id: str) -> None:
        import ray

        task = ray.remote(num_cpus=1, max_retries=0)(_execute)
        reference = task.remote(settings.model_dump(), service, run_id)
        threading.Thread(target=_watch, args=(settings, service, run_id, reference), daemon=True).start()

    return submit


def _execute(settings: dict[str, Any], service: str, run_id: str) -> None:
    from infra.bootstrap import House
    from infra.logging import start

    chosen = Settings(**settings)
    start(chosen.log_format, chosen.log_level)
    house = House.open(chosen)
    (house.training if service == "training" else house.selection).execute(run_id)


def _watch(settings: Settings, service: str, run_id: str, reference: Any) -> None:
    import ray

    from infra.bootstrap import House

    try:
        ray.get(reference)
    except Exception as error:  # the task's process died, or it raised and recorded that itself
        log.error("run failed", run=run_id, error=type(error).__name__)
        house = House.open(settings)
        (house.training if service == "training" else house.selection).abandon(run_id, error)
