"""Care of the files by one process at a time, whichever machine it is on."""

from __future__ import annotations

from feature_store.control import ControlDatabase
from feature_store.leases import Leases
from feature_store.optimize import OptimizedTable, OptimizeSettings, Progress
from feature_store.store import FeatureStore

LEASE, LEASE_S = "optimise", 60.0


def optimize_alone(
    store: FeatureStore,
    control: ControlDatabase,
    settings: OptimizeSettings | None = None,
    progress: Progress | None = None,
    lease_s: float = LEASE_S,
) -> list[OptimizedTable] | None:
    """Optimise under the store's lease; None where another process has it (``Leases.holder(LEASE)`` says which).

    The lease of one that was killed runs out after ``lease_s``. Raises LeaseLost where it ran out under this one: what
    it has done is whole, and the rest is the other's.
    """
    with Leases(control).keep(LEASE, lease_s) as lease:
        return store.optimize(settings, progress, lease.check) if lease else None
