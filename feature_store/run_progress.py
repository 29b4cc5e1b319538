"""How far runs are, and which of them somebody wants stopped: in the control database, for every process to see."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from feature_store.control import ControlDatabase
from feature_store.control_tables import RunProgressRow


@dataclass(frozen=True)
class Progressed:
    """``fraction`` of the ``step`` that is done, 0 to 1; ``cancel``: somebody asked for the run to stop."""

    step: str
    fraction: float
    changed_at: float
    cancel: bool


class RunProgress:
    """Written by the process that carries a run out, read by whoever follows it."""

    def __init__(self, control: ControlDatabase) -> None:
        self._control = control

    def say(self, run_id: str, step: str, fraction: float) -> None:
        """Note where the run is."""
        self._write(run_id, step=step[:200], fraction=fraction)

    def ask_to_stop(self, run_id: str) -> None:
        """The run sees it at its next step."""
        self._write(run_id, cancel=True)

    def of(self, run_id: str) -> Progressed | None:
        """None where the run has said nothing yet, or has ended."""
        row = RunProgressRow
        query = select(row.step, row.fraction, row.changed_at, row.cancel).where(row.run_id == run_id)
        with self._control.reading() as connection:
            found = connection.execute(query).first()
        return None if found is None else Progressed(*found)

    def forget(self, run_id: str) -> None:
        """The run has ended; its record says how."""
        with self._control.writing() as connection:
            connection.execute(delete(RunProgressRow).where(RunProgressRow.run_id == run_id))

    def _write(self, run_id: str, **values: object) -> None:
        changed = {**values, "changed_at": time.time()}
        with self._control.writing() as connection:
            of_run = update(RunProgressRow).where(RunProgressRow.run_id == run_id)
            if connection.execute(of_run.values(changed)).rowcount:
                return
        try:
            with self._control.writing() as connection:
                first = {"run_id": run_id, "step": "", "fraction": 0.0, "cancel": False}
                connection.execute(insert(RunProgressRow).values({**first, **changed}))
        except IntegrityError:  # another process wrote the first word in between
            self._write(run_id, **values)
