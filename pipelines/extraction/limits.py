"""What one ROI may take in a worker: a time after which the kernel ends the process, and an amount of memory.

A hang cannot be caught from inside: native code may hold Python's interpreter lock for ever, so no
thread and no Python signal handler gets its turn. The kernel's own alarm does not ask Python: SIGALRM, left
at its default action, ends the process whatever it is doing, in a task or an actor, on any machine.
Whoever started the process sees that it was SIGALRM, and so that it was the time.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

GIB = 1024**3


class RoiLimits(BaseModel):
    """Of one step (read, radiomics, embedding) of one ROI."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = Field(default=900.0, gt=0)
    """Wall time. Vertebrae on a large CT take seconds; an ROI of two million voxels a minute or two."""
    memory_gib: float = Field(default=8.0, gt=0)
    """Beyond what the worker already had when the step began."""

    @contextmanager
    def held(self, rois: int = 1, *, memory: bool = True) -> Iterator[None]:
        """While the block runs: past the time the process dies of SIGALRM, past the memory MemoryError is raised.

        ``rois``: how many are computed together. Code that cannot take a refused allocation may abort the
        process instead. One block at a time in a process; do not yield out of it. ``memory=False`` on a GPU,
        whose driver maps far more than it uses.
        """
        if signal.getsignal(signal.SIGALRM) != signal.SIG_DFL:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        with self.memory_held(rois) if memory else nullcontext():
            signal.setitimer(signal.ITIMER_REAL, self.seconds * rois)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    @contextmanager
    def memory_held(self, rois: int = 1) -> Iterator[None]:
        """As :meth:`held`, without an end to the time: for a process that a person waits for."""
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = _private_bytes() + int(self.memory_gib * rois * GIB)
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _private_bytes() -> int:
    """Writable private memory of this process as the kernel counts it for RLIMIT_DATA."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
