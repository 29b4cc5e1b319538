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
    """One case at a time in this process. Several processes may have one: a case is with one of them at a time."""

    def __init__(self, intake: Intake, carry_out: Callable[[str], object] | None = None) -> None:
        """``carry_out(case_id)`` does it somewhere else (default: here) and returns when it is done."""
        self._intake, self._carry_out = intake, carry_out or intake.carry_out
        self._woken, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="carrier")
        self._resting: dict[str, float] = {}

    def start(self) -> None:
        self._intake.wake = self._woken.set
        self._thread.start()

    def stop(self) -> None:
        """After the case in hand; what is not carried out then, the next process does."""
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
            if self._stopped.is_set():
                return
            if self._resting.get(case_id, 0.0) > time.monotonic():
                continue
            try:
                self._carry_out(case_id)
                self._resting.pop(case_id, None)
            except Exception as error:  # its text may quote data
                log.error("intake", error=type(error).__name__)
                self._resting[case_id] = time.monotonic() + REST_S
