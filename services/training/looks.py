"""How often a cohort's held-out patients have been looked at: what is decided after a look was decided with them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from feature_store.snapshot import Snapshot
from models.performance import HELD_OUT


@dataclass(frozen=True)
class Looks:
    """``n`` looks at any of them, and by partition; a partition that nobody has looked at is absent."""

    n: int
    by_partition: dict[str, int]

    def __str__(self) -> str:
        parts = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in self.by_partition.items())
        many = f"{self.n} ({parts})" if parts else str(self.n)
        return f"Runs that have shown figures of this cohort's held-out patients by now: {many}."


def looks_at(snapshot: Snapshot, cohort: str) -> Looks:
    """At the held-out patients of any version of a cohort: the training runs that finished with figures of them.

    Whoever began a run, its figures are there to be read when it has finished. A retraining's decision and a
    person's release go by the figures of such a run, and are no look of their own. ``locked_test`` is counted in
    ``locked_looks``.
    """
    wanted = {"cohort": cohort, "kind": "training", "state": "finished"}
    looks, counts = 0, Counter[str]()
    for row in snapshot.table("training_runs", ["metrics"], where=wanted).to_pylist():
        metrics = json.loads(row["metrics"] or "{}")
        of_signatures = (made["cohorts"] for made in metrics.get("signatures", {}).values())
        shown = set[str]().union(*of_signatures, *metrics.get("baselines", {}).values())
        seen = shown.intersection(HELD_OUT)
        looks += bool(seen)
        counts.update(seen)
    return Looks(looks, {name: counts[name] for name in HELD_OUT if counts[name]})
