"""Routes of schedules: who may have a retraining called by the clock."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends

from feature_store.schedules import Schedule, Schedules
from services import http_errors
from services.access import SCIENTIST, Credential, KeyBook, allow
from services.training.cron import trigger
from services.training.messages import ScheduleEntry, ScheduleRequest


def schedule_router(schedules: Schedules, book: KeyBook) -> APIRouter:
    """POST and GET /v1/schedules, DELETE of one. The training service looks at them every half minute."""
    router = APIRouter(prefix="/v1/schedules", tags=["schedules"], responses=http_errors.RESPONSES)
    scientist = allow(book, SCIENTIST)

    @router.post("", status_code=201)
    def add(request: ScheduleRequest, caller: Annotated[Credential, Depends(scientist)]) -> ScheduleEntry:
        """Have a retraining called by the clock. A name is given once."""
        trigger(request.cron)
        return _entry(
            schedules.add(request.name, request.cron, request.retrain.model_dump(mode="json"), by=caller.name)
        )

    @router.get("")
    def everything(caller: Annotated[Credential, Depends(scientist)]) -> list[ScheduleEntry]:
        """By name: when each is called next, and what its last call did."""
        return [_entry(schedule) for schedule in schedules.all()]

    @router.delete("/{name}", status_code=204)
    def remove(name: str, caller: Annotated[Credential, Depends(scientist)]) -> None:
        """Call it no more; a retraining that runs already goes on."""
        schedules.remove(name)

    return router


def _entry(schedule: Schedule) -> ScheduleEntry:
    return ScheduleEntry(
        name=schedule.name,
        cron=schedule.cron,
        retrain=schedule.request,
        added_by=schedule.added_by,
        added_at=datetime.fromtimestamp(schedule.added_at, UTC),
        next_at=trigger(schedule.cron).get_next_fire_time(None, datetime.now(UTC)),
        last_at=None if schedule.last_at is None else datetime.fromtimestamp(schedule.last_at, UTC),
        last_decision=schedule.last_decision,
        last_reason=schedule.last_reason,
        last_run=schedule.last_run,
    )
