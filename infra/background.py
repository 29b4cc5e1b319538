"""Long work of a service, carried out as a Ray task: not in the process that answers requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast

import structlog

from feature_store.schedules import Schedule
from infra.bootstrap import House
from infra.settings import Settings

if TYPE_CHECKING:
    from services.training.messages import RetrainAnswer
    from services.training.scheduler import CarryOut

log = structlog.get_logger(__name__)

BEHIND_THE_DOOR_CPUS = 0.1
"""Of reading a pushed case, and of the run that watches over an extraction: on two cores both must find room."""


def in_ray(settings: Settings, service: Literal["selection", "training"]) -> Callable[[str], None]:
    """A function that has the run of that id carried out by a Ray task, and records its death if the task dies."""

    def submit(run_id: str) -> None:
        import ray

        task = ray.remote(num_cpus=_of_a_run(settings), max_retries=0)(_execute)
        reference = task.remote(settings.model_dump(), service, run_id)
        threading.Thread(target=_watch, args=(settings, service, run_id, reference), daemon=True).start()

    return submit


def _of_a_run(settings: Settings) -> int:
    """CPUs that a run's own process reserves: none on a cluster, where its fits are tasks that take one each."""
    return 0 if settings.ray_address else 1


def retrain_in_ray(settings: Settings) -> CarryOut:
    """Carries a schedule out in a Ray task and waits for it."""

    def carry_out(schedule: Schedule) -> RetrainAnswer:
        import ray

        task = ray.remote(num_cpus=_of_a_run(settings), max_retries=0)(_retrain)
        try:
            return cast("RetrainAnswer", ray.get(task.remote(settings.model_dump(), schedule)))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    return carry_out


def carry_out_in_ray(settings: Settings) -> Callable[[str], bool]:
    """Has what was accepted of a case carried out by a Ray task on this machine, where the inbox is; waits for it.

    An image that hangs its reader or brings it down takes along that process, and not the one that answers requests.
    """

    def carry_out(case_id: str) -> bool:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        task = ray.remote(num_cpus=BEHIND_THE_DOOR_CPUS, max_retries=0, scheduling_strategy=here)(_carry_out)
        return bool(ray.get(task.remote(settings.model_dump(), case_id)))

    return carry_out


def _carry_out(settings: dict[str, Any], case_id: str) -> bool:
    from pipelines.extraction.limits import RoiLimits

    house = House.in_worker(settings)
    chosen = house.settings
    with RoiLimits(seconds=chosen.case_time_limit, memory_gib=chosen.case_memory_gb).held():
        return house.intake.carry_out(case_id)


def _retrain(settings: dict[str, Any], schedule: Schedule) -> RetrainAnswer:
    from services.training.scheduler import retrain_here

    return retrain_here(House.in_worker(settings).retraining)(schedule)


def _execute(settings: dict[str, Any], service: str, run_id: str) -> None:
    house = House.in_worker(settings)
    (house.training if service == "training" else house.selection).execute(run_id)


def _watch(settings: Settings, service: str, run_id: str, reference: Any) -> None:
    import ray

    try:
        ray.get(reference)
    except Exception as error:  # the task's process died, or it raised and recorded that itself
        log.error("run failed", run=run_id, error=type(error).__name__)
        house = House.open(settings)
        (house.training if service == "training" else house.selection).abandon(run_id, error)
