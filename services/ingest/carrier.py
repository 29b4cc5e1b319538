"""Carries out what was accepted: a thread beside the door, woken by each upload, that looks by itself as well."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from services.ingest.intake import Intake

log = structlog.get_logger(__name__)

LOOK_S = 1.0
TIDY_S = 60.0
REST_S = 5.0
"""After a failure that was nobody's fault, the case is tried again no sooner."""


class Carrier:
    """A few cases at a time. Several processes may have one: a case is with one of them at a time."""

    def __init__(self, intake: Intake, carry_out: Callable[[str], bool] | None = None, at_once: int = 2) -> None:
        """``carry_out(case_id)`` does it somewhere else (default: here), as :meth:`Intake.carry_out` does.

        With several ``at_once`` a case that takes its time does not hold up every other.
        """
        self._intake, self._carry_out, self._at_once = intake, carry_out or intake.carry_out, at_once
        self._woken, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="carrier")
        self._resting: dict[str, float] = {}
        self._in_hand: set[str] = set()

    def start(self) -> None:
        self._intake.wake = self._woken.set
        self._thread.start()

    def stop(self) -> None:
        """Begin no further case; what is not carried out, the next process does."""
        self._stopped.set()
        self._woken.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        tidied = 0.0
        while not self._stopped.is_set():
            try:
                if time.monotonic() - tidied > TIDY_S:
                    tidied = time.monotonic()
                    self._intake.tidy()
                self._look()
            except Exception as error:  # the control database or the inbox is away: it may come back
                log.error("intake", error=type(error).__name__)
            self._woken.wait(LOOK_S)
            self._woken.clear()

    def _look(self) -> None:
        for case_id in self._intake.waiting():
            if self._stopped.is_set() or len(self._in_hand) >= self._at_once:
                return
            if case_id not in self._in_hand and self._resting.get(case_id, 0.0) <= time.monotonic():
                self._in_hand.add(case_id)
                threading.Thread(target=self._carry, args=(case_id,), daemon=True).start()

    def _carry(self, case_id: str) -> None:
        try:
            if self._carry_out(case_id):
                self._resting.pop(case_id, None)
            else:  # another process is at it
                self._resting[case_id] = time.monotonic() + LOOK_S
        except Exception as error:  # its text may quote data
            log.error("intake", error=type(error).__name__)
            self._resting[case_id] = time.monotonic() + REST_S
        finally:
            self._in_hand.discard(case_id)
            self._woken.set()
