"""Schedules of retraining in the control database: when, what for, and what the last call did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from feature_store.control import ControlDatabase
from feature_store.control_tables import ScheduleRow
from feature_store.errors import Conflict, NotFound


@dataclass(frozen=True)
class Schedule:
    """``cron``: five fields, in UTC. ``request``: what is retrained, as JSON. ``last_*``: of the last call."""

    name: str
    cron: str
    request: dict[str, Any]
    added_by: str
    added_at: float
    last_at: float | None = None
    last_decision: str | None = None
    last_reason: str | None = None
    last_run: str | None = None


class Schedules:
    """All schedules of a store; safe to change from several processes."""

    def __init__(self, control: ControlDatabase) -> None:
        self._control = control

    def add(self, name: str, cron: str, request: Mapping[str, Any], *, by: str) -> Schedule:
        """Keep a new one. Raises Conflict where the name is taken."""
        row = {"name": name, "cron": cron, "request": dict(request), "added_by": by, "added_at": time.time()}
        try:
            with self._control.writing() as connection:
                connection.execute(insert(ScheduleRow).values(row))
        except IntegrityError as error:
            raise Conflict(
                "A schedule of that name exists.", action="Remove it first, or take another name."
            ) from error
        return Schedule(**row)  # type: ignore[arg-type]

    def get(self, name: str) -> Schedule:
        """Raises NotFound."""
        found = [schedule for schedule in self.all() if schedule.name == name]
        if not found:
            raise NotFound("There is no such schedule.", action="`asdeg schedule list` shows them.")
        return found[0]

    def all(self) -> list[Schedule]:
        """By name."""
        with self._control.reading() as connection:
            rows = connection.execute(select(ScheduleRow.__table__).order_by(ScheduleRow.name)).mappings().all()
        return [Schedule(**row) for row in rows]

    def remove(self, name: str) -> None:
        """Raises NotFound. What runs already goes on."""
        with self._control.writing() as connection:
            removed = connection.execute(delete(ScheduleRow).where(ScheduleRow.name == name)).rowcount
        if not removed:
            raise NotFound("There is no such schedule.", action="`asdeg schedule list` shows them.")

    def done(self, name: str, decision: str, reason: str, run_id: str | None) -> None:
        """Note what a call did; a schedule removed meanwhile is no error."""
        last = {"last_at": time.time(), "last_decision": decision, "last_reason": reason, "last_run": run_id}
        with self._control.writing() as connection:
            connection.execute(update(ScheduleRow).where(ScheduleRow.name == name).values(last))
