"""Extraction that starts by itself: what was validated gets its features, one run at a time for the whole store.

Every ingest replica has a worker; a lease decides which one's run goes on. The run is a Ray task, so it takes its
share beside the services; one that was killed is begun again where it stopped, by whoever takes the lease next.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import structlog

from feature_store.control import ControlDatabase
from feature_store.leases import KeptLease, Leases
from infra.background import BEHIND_THE_DOOR_CPUS
from infra.bootstrap import House
from infra.settings import Settings

log = structlog.get_logger(__name__)

LEASE = "extraction"
LEASE_S, LOOK_S, REST_S = 30.0, 1.0, 30.0


class ExtractionWorker:
    """Looks for validated cases, and has them extracted while it holds the lease."""

    def __init__(self, settings: Settings, control: ControlDatabase) -> None:
        self._settings, self._control = settings, control
        self._leases = Leases(control)
        self._tried: set[tuple[str, float]] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="extraction")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The run under way is given up; what it has stored stays."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_S):
            try:
                self._look()
            except Exception as error:  # the run broke off, or the control database is away
                log.error("extraction", error=type(error).__name__)
                self._stopped.wait(REST_S)

    def _look(self) -> None:
        """A case that a run left validated has no region yet; it is tried again when it has changed."""
        cases = self._control.cases(state="validated")
        found = {(case.case_id, case.changed_at) for case in cases}
        if not found - self._tried:
            return
        sites = sorted({case.site for case in cases if (case.case_id, case.changed_at) not in self._tried})
        with self._leases.keep(LEASE, LEASE_S) as lease:
            if lease and self._extract(sites, lease):
                self._tried = found

    def _extract(self, sites: Sequence[str], lease: KeptLease) -> bool:
        """Whether a run went to its end; it is given up where the lease is lost or the worker stops."""
        import ray

        task = ray.remote(num_cpus=BEHIND_THE_DOOR_CPUS, max_retries=0)(_extract)
        reference = task.remote(self._settings.model_dump(), list(sites))
        while not ray.wait([reference], timeout=0.5)[0]:
            if self._stopped.is_set() or lease.lost:
                ray.cancel(reference, force=True)
                return False
        ray.get(reference)
        return True


def _extract(settings: dict[str, Any], sites: list[str]) -> None:
    from pipelines.extraction.limits import RoiLimits
    from pipelines.extraction.plan import ExtractionSettings
    from pipelines.extraction.run import extract
    from pipelines.segmentation.missing import segment_missing

    house = House.in_worker(settings)
    chosen = house.settings
    segment_missing(house.store, sites=sites)
    encoder = chosen.auto_extract_encoder
    extract(
        house.store,
        ExtractionSettings(
            encoder=None if encoder == "none" else encoder,
            sites=tuple(sites),
            cpus=max(1, (chosen.num_cpus or len(os.sched_getaffinity(0))) - 1),  # one is left to the services
            gpus=chosen.num_gpus,
            limits=RoiLimits(seconds=chosen.roi_time_limit, memory_gib=chosen.roi_memory_gb),
        ),
        house.control,
    )
