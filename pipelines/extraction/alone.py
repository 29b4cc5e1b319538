"""ROIs that were lost with their worker, computed once more: one at a time, in a process kept for that.

A Ray task watches over that process and survives it. The process hands back each output when it is done, so
what ends it early costs the one output it was at; how it ended says why (after how many seconds, or by which
signal), and a new process does the rest. Most of what is lost was only near the ROI that did the harm.
"""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from feature_store.errors import ExtractionError

if TYPE_CHECKING:
    from pipelines.extraction.plan import RoiJob
    from pipelines.extraction.steps import Row, WorkerConfig
    from pipelines.ray_session import RayResources

CPUS = 0.5
ROIS_A_WATCHER = 16
START_S = 300.0
"""What starting Python and loading weights may take beyond the steps' own limits."""
PR_SET_PDEATHSIG = 1


def computed_alone(jobs: Sequence[RoiJob], config: WorkerConfig, resources: RayResources) -> Iterator[Row]:
    """Rows as they come, of jobs that can be computed or condemned; a job whose watcher was lost has none."""
    import ray

    watch = ray.remote(num_cpus=min(CPUS, resources.cpus), num_gpus=1 if config.device == "cuda" else 0, max_retries=1)(
        watched
    )
    each = max(1, min(ROIS_A_WATCHER, -(-len(jobs) // resources.cpus)))
    waiting = [list(jobs[start : start + each]) for start in range(0, len(jobs), each)]
    running: list[Any] = []
    while waiting or running:
        while waiting and len(running) < resources.cpus:
            running.append(watch.remote(waiting.pop(), config))
        (first,), running = ray.wait(running, num_returns=1)
        try:
            yield from ray.get(first)
        except ray.exceptions.RayError:
            continue


def watched(jobs: Sequence[RoiJob], config: WorkerConfig) -> list[Row]:
    """The jobs' rows, computed in another process: each output with its values, or with why there are none."""
    from pipelines.extraction.steps import blank_row

    rows = [blank_row(job) for job in jobs]
    left: list[tuple[Row, str, RoiJob]] = []
    for row, job in zip(rows, jobs, strict=True):
        if job.encoder is not None:
            left.append((row, "embedding", replace(job, feature_set=None)))
        if job.feature_set is not None:
            left.append((row, "radiomics", replace(job, encoder=None)))
    while left:
        found, ending = _run([part for _, _, part in left], config)
        for (row, output, _), part in zip(left, found, strict=False):
            row |= {name: part[name] for name in _COLUMNS[output]}
            row["read_s"] += part["read_s"]
        left = left[len(found) :]
        if left:
            row, output, _ = left.pop(0)
            row[f"{output}_error"] = ending
    return rows


_COLUMNS = {
    "radiomics": ("values", "radiomics_error", "radiomics_s"),
    "embedding": ("embedding", "embedding_error", "embedding_s"),
}


def _run(jobs: list[RoiJob], config: WorkerConfig) -> tuple[list[Row], str]:
    """Rows of the jobs that a new process finished, in order, and how it ended where they are not all."""
    from pipelines.extraction.steps import why

    command = [sys.executable, "-m", __name__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        said, _ = process.communicate(
            pickle.dumps((jobs, config)), timeout=START_S + 2 * len(jobs) * config.limits.seconds
        )
        ended_by = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        ended_by = -signal.SIGALRM
    if ended_by == -signal.SIGALRM:
        ending = ExtractionError(f"took longer than {config.limits.seconds:g} s.")
    else:
        ending = ExtractionError(f"its worker process died ({_name(ended_by)}).")
    return list(_whole(said)), why(ending)


def _whole(said: bytes) -> Iterator[Row]:
    """The rows that were written to the end."""
    stream = io.BytesIO(said)
    while True:
        try:
            yield pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):
            return


def _name(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


def main() -> None:
    """In the new process: pickled (jobs, config) on stdin, a pickled row a job on stdout."""
    # Should the watcher be killed, this process has no one left to report to.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answer = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not end up in the answer
    jobs, config = pickle.load(sys.stdin.buffer)
    from pipelines.extraction.steps import AllSteps

    steps = AllSteps(config)
    with os.fdopen(answer, "wb") as out:
        for job in jobs:
            out.write(pickle.dumps(steps(job)))
            out.flush()


if __name__ == "__main__":
    main()
