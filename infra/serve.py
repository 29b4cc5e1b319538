"""Ray Serve: an application for each service behind one port.

Each service is an application of its own, so that a gigabyte coming in never delays a score going out. Serve
gives a request to the application with the longest matching prefix:

    /v1/cases            ingest
    /dicom-web           STOW-RS, where sites have pseudonym keys
    /v1/selection-runs   selection
    /v1/training-runs    training
    /                    scoring: /v1/scores, /v1/releases, /v1/schedules, /healthz, /readyz, /docs

HAProxy stands at the door by default (infra/decisions): it streams uploads, where Ray's own proxy keeps a whole
one in memory.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_store.errors import AsdegError, Conflict, NotReady
from infra.dicom import takes_dicom
from infra.settings import Settings
from pipelines.ray_session import prepare_environment

REPLICA_CPUS = 0.05
"""What a replica reserves. It mostly waits, and on two cores extraction must find its share beside it."""
OBJECT_STORE_BYTES = 1024**3
"""Of a Ray started here: what extraction has in flight; what does not fit waits."""


@dataclass(frozen=True)
class Place:
    """Where an application is mounted and how much it takes at once (per replica) before it says 503."""

    prefix: str
    ongoing: int
    queued: int


PLACES = {
    "ingest": Place("/v1/cases", ongoing=8, queued=64),
    "dicom": Place("/dicom-web", ongoing=16, queued=64),  # more than one site's ASDEG_DICOM_REQUESTS_AT_ONCE
    "selection": Place("/v1/selection-runs", ongoing=8, queued=32),
    "training": Place("/v1/training-runs", ongoing=8, queued=32),
    "scoring": Place("/", ongoing=32, queued=256),
}


@dataclass(frozen=True)
class Door:
    """Services that are up."""

    url: str
    started_ray: bool
    folder: Path | None = None
    """HAProxy's files, removed when the services stop."""


def start(settings: Settings) -> Door:
    """Start Ray if it is not running, and every service; returns when all of them answer.

    Raises Conflict where the port is taken, NotReady where the services do not come up.
    """
    _check_port(settings)
    folder = _set_proxy_flags(settings)
    started_ray = start_ray(settings)

    from ray import serve

    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    door = Door(f"http://{shown}:{settings.port}", started_ray, folder)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.start(
            http_options={"host": settings.host, "port": settings.port},
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )
        open_places = _places(settings)
        serve.run_many(
            [
                serve.RunTarget(_application(name, place, settings), name, place.prefix)
                for name, place in open_places.items()
            ]
        )
        _wait(door.url, open_places)
    except BaseException as error:
        stop(door)
        if not isinstance(error, Exception) or isinstance(error, AsdegError):
            raise
        raise NotReady(
            f"The services did not start ({type(error).__name__}).",
            action=f"Check that port {settings.port} is free; Ray's logs are in /tmp/ray/session_latest/logs/serve.",
        ) from error
    return door


def stop(door: Door) -> None:
    """Stop the services, and Ray where :func:`start` started it."""
    import ray
    from ray import serve

    # Ray tells of its own ending on stdout, where a command's result belongs.
    with contextlib.redirect_stdout(io.StringIO()):
        serve.shutdown()
        if door.started_ray:
            ray.shutdown()
    if door.folder is not None:
        shutil.rmtree(door.folder, ignore_errors=True)


def start_ray(settings: Settings) -> bool:
    """Connect to the cluster of the settings, or start Ray in-process; False where Ray runs in this process already."""
    prepare_environment(local=not settings.ray_address)

    import ray

    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": settings.debug, "configure_logging": False}
    if settings.ray_address:
        ray.init(address=settings.ray_address, **quiet)
        return True
    ray.init(
        num_cpus=settings.num_cpus or len(os.sched_getaffinity(0)),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        **quiet,
    )
    return True


def _application(name: str, place: Place, settings: Settings) -> Any:
    from ray import serve

    from infra.replica import Replica

    replicas = {
        "scoring": settings.scoring_replicas,
        "ingest": settings.ingest_replicas,
        "dicom": settings.ingest_replicas,
    }
    deployment = serve.deployment(
        name=name,
        num_replicas=replicas.get(name, 1),
        ray_actor_options={"num_cpus": REPLICA_CPUS},
        max_ongoing_requests=place.ongoing,
        max_queued_requests=place.queued,
        health_check_period_s=10,
        graceful_shutdown_timeout_s=5,
    )
    return deployment(serve.ingress()(Replica)).bind(name, settings.model_dump())


def _set_proxy_flags(settings: Settings) -> Path | None:
    """What HAProxy needs to know, read by Ray when it starts; the folder made for its files, if any.

    Two clusters on one machine would otherwise share HAProxy's files and ports. A cluster that runs already
    has flags of its own.
    """
    if settings.ray_address:
        return None
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = str(int(settings.proxy == "haproxy"))
    if settings.proxy != "haproxy":
        return None
    folder = Path(tempfile.mkdtemp(prefix="asdeg-door-"))
    os.environ.update(
        RAY_SERVE_THROUGHPUT_OPTIMIZED="1",
        RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S="1",
        RAY_SERVE_HAPROXY_CONFIG_FILE_LOC=str(folder / "haproxy.cfg"),
        RAY_SERVE_HAPROXY_SOCKET_PATH=str(folder / "admin.sock"),
        RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH=str(folder / "metrics.sock"),
        RAY_SERVE_HAPROXY_SERVER_STATE_BASE=str(folder),
        RAY_SERVE_HAPROXY_SERVER_STATE_FILE=str(folder / "server-state"),
        RAY_SERVE_HAPROXY_METRICS_PORT=str(_free_port()),
        RAY_SERVE_HAPROXY_STATS_PORT=str(_free_port()),
        RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S="3600",
    )
    return folder


def _check_port(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            raise Conflict(
                f"Port {settings.port} of {settings.host} is taken.", action="Choose another one with --port."
            ) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _places(settings: Settings) -> dict[str, Place]:
    return {name: place for name, place in PLACES.items() if name != "dicom" or takes_dicom(settings)}


def _wait(url: str, places: Mapping[str, Place]) -> None:
    """Until every application answers through the door: HAProxy learns of them one by one."""
    import httpx

    for path in ("/healthz", *(place.prefix for place in places.values() if place.prefix != "/")):
        for _ in range(240):
            try:
                # without a key: any answer but the door's own 404, 502 and 503 comes from the service
                if httpx.get(url + path, timeout=5).status_code in (200, 401):
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.25)
        else:
            raise NotReady(
                f"{path} does not answer.", action="Look at Ray's logs in /tmp/ray/session_latest/logs/serve."
            )
