"""Ray for the length of a job: the connection this process has, a cluster by address, or one of its own."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from feature_store.errors import UsageError

LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 1024**3
"""Of a Ray of our own. Crops and cubes in flight live there; what does not fit waits (back-pressure)."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray's native code writes to our stderr; what matters of it comes back as an exception.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # A worker or node that died is reported on stdout, where a caller's JSON goes; it is recorded per ROI instead.
    "RAY_DEDUP_LOGS_SKIP_REGEX": r"A worker died or was killed|retries remaining|marked dead|lagging heartbeats",
}
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray replaces 127.0.0.1 by an address others can reach, and listens on every interface, unless it is told
that there is no cluster; this switch (not only of those systems) is how."""


@dataclass(frozen=True)
class RayResources:
    """What the cluster has, after the caller's limit."""

    cpus: int
    gpus: int


def prepare_environment(*, local: bool) -> None:
    """Set what Ray reads when it is imported, so call this before; what the user has set stays."""
    for name, value in {**QUIET, **(LOOPBACK_ONLY if local else {})}.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(address: str | None = None, cpus: int | None = None, gpus: int | None = None) -> Iterator[RayResources]:
    """Use Ray as the process is connected; else connect to ``address``; else start one on this machine.

    One started here listens on the loopback only, has no dashboard, and ends with the block. Workers of a
    cluster need this software installed, and the store at the same URI. Raises UsageError where no cluster answers.
    """
    prepare_environment(local=address is None)
    import ray

    ours = not ray.is_initialized()
    if ours:
        if address is not None:
            connect(address)
        else:
            with _native_stderr_closed():
                ray.init(
                    num_cpus=cpus or len(os.sched_getaffinity(0)),
                    num_gpus=gpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _node_ip_address=LOOPBACK,
                )
    try:
        found = ray.cluster_resources()
        have = max(1, int(found.get("CPU", 1)))
        have_gpus = int(found.get("GPU", 0))
        yield RayResources(cpus=min(have, cpus or have), gpus=have_gpus if gpus is None else min(have_gpus, gpus))
    finally:
        if ours:
            ray.shutdown()


def connect(address: str) -> None:
    """Have this process use that cluster until it ends, unless it is connected already. UsageError: none answers."""
    prepare_environment(local=False)
    import ray

    if ray.is_initialized():
        return
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit() and "//" not in address:
            # Ray itself would try for a minute before it says so
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            "no Ray cluster answers at that address.", action="Check it, or leave it out to run on this machine."
        ) from error


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """While Ray starts, its native code greets on file descriptor 2, past every logger."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def quiet_ray_data(block_bytes: int) -> Iterator[None]:
    """Ray Data without its own progress bars and console chatter, with blocks of about ``block_bytes``.

    Blocks whose worker died are left out and the others go on: the caller looks for what is missing. Ray
    Data's log file keeps everything. What was set before holds again afterwards.
    """
    from ray.data import DataContext
    from ray.util.annotations import RayDeprecationWarning

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.enable_rich_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    context.target_max_block_size = block_bytes
    context.execution_options.verbose_progress = False
    logger = logging.getLogger("ray.data")
    consoles = [handler for handler in logger.handlers if type(handler).__name__ == "PlainRayHandler"]
    levels = [handler.level for handler in consoles]
    for handler in consoles:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        with DataContext.current(context), warnings.catch_warnings():
            # How often a dead worker's task is retried can be said only in a way Ray 2.60 calls deprecated.
            warnings.filterwarnings("ignore", message=".*ray_remote_args", category=RayDeprecationWarning)
            # A few ROIs leave an actor idle; that is no fault.
            warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
            yield
    finally:
        for handler, level in zip(consoles, levels, strict=True):
            handler.setLevel(level)
