"""Calls retraining by the clock, for as long as the training service runs.

Schedules are kept in the control database and looked at again every half minute, so a change reaches every
scheduler. That two schedulers, or a run longer than its period, never retrain at once is not left to the clock:
retraining holds a lease, and whoever comes second does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from feature_store.errors import AsdegError
from feature_store.schedules import Schedule, Schedules
from services.runs import Progress
from services.training.cron import trigger
from services.training.messages import RetrainAnswer, RetrainRequest
from services.training.retraining import Retraining

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 30.0
LATE_S = 6 * 3600
"""A call that was missed (the service was down) is made up for within so long, once."""
SYNC = "asdeg-schedules"

CarryOut = Callable[[Schedule], RetrainAnswer]


class Scheduler:
    """``carry_out`` does the retraining, here or elsewhere, and returns when it is done."""

    def __init__(self, schedules: Schedules, carry_out: CarryOut, look_every_s: float = LOOK_EVERY_S) -> None:
        self._schedules, self._carry_out, self._look_every_s = schedules, carry_out, look_every_s
        self._clock = BackgroundScheduler(timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1})
        self._cron: dict[str, str] = {}

    def start(self) -> None:
        """Begin to call; returns at once."""
        self.look()
        self._clock.add_job(self.look, "interval", seconds=self._look_every_s, id=SYNC)
        self._clock.start()

    def stop(self) -> None:
        """Call no more; what runs already goes on."""
        self._clock.shutdown(wait=False)

    def next_calls(self) -> dict[str, datetime]:
        """When each schedule is called next."""
        jobs = [job for job in self._clock.get_jobs() if job.id != SYNC]
        return {job.id: job.next_run_time for job in jobs}

    def call_now(self, name: str) -> None:
        """Have a schedule called at once, by the clock's own thread."""
        self._clock.modify_job(name, next_run_time=datetime.now(UTC))

    def look(self) -> None:
        """Take over what was added, changed or removed."""
        try:
            wanted = {schedule.name: schedule.cron for schedule in self._schedules.all()}
        except AsdegError as error:  # looked at again soon
            log.warning("schedules cannot be read", error=error.code)
            return
        for name in set(self._cron) - set(wanted):
            self._clock.remove_job(name)
        for name, cron in wanted.items():
            if self._cron.get(name) != cron:
                when = trigger(cron)
                self._clock.add_job(
                    self._call, when, args=[name], id=name, replace_existing=True, misfire_grace_time=LATE_S
                )
        self._cron = wanted

    def _call(self, name: str) -> None:
        try:
            run_schedule(self._schedules, name, self._carry_out)
        except AsdegError as error:
            log.error("scheduled retraining failed", schedule=name, error=error.line())
        except Exception as error:
            log.error("scheduled retraining failed", schedule=name, error=type(error).__name__)


def run_schedule(schedules: Schedules, name: str, carry_out: CarryOut) -> RetrainAnswer:
    """Call a schedule now and note what came of it. Raises NotFound, and what retraining raises."""
    schedule = schedules.get(name)
    try:
        answer = carry_out(schedule)
    except AsdegError as error:
        schedules.done(name, "failed", error.line(), None)
        raise
    except Exception as error:
        schedules.done(name, "failed", f"Unexpected: {type(error).__name__}", None)
        raise
    if answer.decision != "busy":  # whoever was busy notes it
        schedules.done(name, answer.decision, answer.reason, answer.run_id)
    return answer


def retrain_here(retraining: Retraining, progress: Progress | None = None) -> CarryOut:
    """Carries schedules out in this process."""
    return lambda schedule: retraining.retrain(
        RetrainRequest.model_validate(schedule.request), by=f"schedule {schedule.name}", progress=progress
    )
