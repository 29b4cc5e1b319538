"""How often a cohort's held-out patients have been looked at: what is decided after a look was decided with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from feature_store.snapshot import Snapshot
from models.performance import HELD_OUT


@dataclass(frozen=True)
class Looks:
    """``n`` looks at any of them, and by partition; a partition that nobody has looked at is absent."""

    n: int
    by_partition: dict[str, int]

    def and_at(self, partitions: Iterable[str]) -> Looks:
        """These, and one more at the held-out ones among ``partitions``."""
        seen = set(partitions) & set(HELD_OUT)
        counts = Counter(self.by_partition) + Counter(seen)
        return Looks(self.n + bool(seen), {name: counts[name] for name in HELD_OUT if counts[name]})

    def __str__(self) -> str:
        parts = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in self.by_partition.items())
        return f"{self.n} ({parts})" if parts else str(self.n)


def looks_at(snapshot: Snapshot, cohort: str) -> Looks:
    """At the held-out patients of any version of a cohort: the training runs that finished with figures of them.

    Whoever began a run, its figures are there to be read when it has finished. A retraining's decision and a
    person's release go by the figures of such a run, and are no look of their own. ``locked_test`` is counted in
    ``locked_looks``.
    """
    wanted = {"cohort": cohort, "kind": "training", "state": "finished"}
    found = Looks(0, {})
    for row in snapshot.table("training_runs", ["metrics"], where=wanted).to_pylist():
        metrics = json.loads(row["metrics"] or "{}")
        signatures, references = metrics.get("signatures") or {}, metrics.get("baselines") or {}
        found = found.and_at(
            {name for made in signatures.values() for name in made["cohorts"]}.union(*references.values())
        )
    return found
