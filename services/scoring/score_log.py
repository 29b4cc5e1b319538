"""Every answer is kept: at once in the control database's write-ahead log, in batches in the table ``scores``.

One Delta commit an answer would be a thousand small files an hour; the log costs a millisecond and survives a
crash. Flushing the same row twice is harmless: the store leaves out what it has.
"""

from __future__ import annotations

import threading
from typing import Any

import structlog

from feature_store.control import ControlDatabase
from feature_store.errors import AsdegError
from feature_store.store import FeatureStore

log = structlog.get_logger(__name__)
BATCH = 5_000


class ScoreLog:
    """Write-ahead log of answers, flushed by time, by count and when closed."""

    def __init__(
        self, store: FeatureStore, control: ControlDatabase, *, seconds: float = 5.0, count: int = 200
    ) -> None:
        self._store, self._control = store, control
        self._seconds, self._count = seconds, count
        self._waiting = 0
        self._wake, self._closed = threading.Event(), False
        self._flushing = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, row: dict[str, Any]) -> None:
        """Log one row of ``scores``; it is safe when this returns."""
        self._control.log_score(row)
        self._waiting += 1
        if self._waiting >= self._count:
            self._wake.set()

    def flush(self) -> int:
        """Move what is logged (by any process) to the table; the number of rows moved."""
        moved = 0
        with self._flushing:
            self._waiting = 0
            while rows := self._control.unflushed_scores(BATCH):
                self._store.push({"scores": rows}, kind="scores", source="scoring")
                self._control.mark_flushed([row["score_id"] for row in rows])
                moved += len(rows)
        return moved

    def start(self) -> None:
        """Flush in the background until :meth:`close`."""
        self._thread = threading.Thread(target=self._run, name="score-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the background thread and flush what is left."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
        self._flush_quietly()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self._seconds)
            self._wake.clear()
            self._flush_quietly()

    def _flush_quietly(self) -> None:
        # The rows stay in the log, so the next round tries again.
        try:
            self.flush()
        except AsdegError as error:
            log.error("scores not flushed", error=error.code, action=error.action)
        except Exception as error:
            log.error("scores not flushed", error=type(error).__name__)
