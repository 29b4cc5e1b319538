"""The process that listens for C-STORE and makes the cases of what either DICOM door took.

STOW-RS is an application of its own beside the other services. C-STORE and the assembly of cases run in one further
process: an image that brings its reader down takes along that process, which is started again.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from typing import Any

from infra.bootstrap import House
from infra.settings import Settings

DEFAULT_PORT = 11112
AGAIN_S = 10.0


def listen(house: House, host: str, port: int | None, stopped: threading.Event) -> None:
    """Listen for C-STORE (unless ``port`` is None) and make the cases of what either door took, until ``stopped``."""
    listener = None if port is None else house.dicom.listener(host, port)
    if listener is not None:
        listener.start()
    try:
        house.dicom.assembler.run(stopped)
    finally:
        if listener is not None:
            listener.stop()


class DicomProcess:
    """:func:`listen` in a process of its own, as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: Any = None
        self._started = -AGAIN_S

    def keep_alive(self) -> None:
        """Start it, or start it again where it died, though not at once each time."""
        alive = self._process is not None and self._process.is_alive()
        if not alive and time.monotonic() - self._started > AGAIN_S:
            self._started = time.monotonic()
            context = multiprocessing.get_context("spawn")
            self._process = context.Process(target=_listen, args=(self._settings.model_dump(),), daemon=True)
            self._process.start()

    def stop(self) -> None:
        """End it; what it was assembling is assembled when it starts again."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(20)
            if self._process.is_alive():
                self._process.kill()


def _listen(settings: dict[str, Any]) -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    house = House.in_worker(settings)
    listen(house, house.settings.host, house.settings.dicom_port, stopped)
