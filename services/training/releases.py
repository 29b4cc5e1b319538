"""Releasing, rolling back, recalling: each appends one row that says which signature is current."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from feature_store.errors import Conflict, NotFound, NothingReleased, NotReady
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from feature_store.vocabulary import SignatureKind
from services.ids import new_id
from services.releases import history, piles
from services.runs import RunStatus, read_run
from services.training.messages import ReleaseEntry

log = structlog.get_logger(__name__)
TABLE = "releases"


class Releases:
    """Decides which signature answers. Two who decide at once: one of them gets a Conflict."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def release(self, run_id: str, *, by: str, reason: str | None = None) -> list[ReleaseEntry]:
        """Make every signature of a finished training run the current one of its kind.

        Raises NotFound, NotReady (not finished, or it made none), Conflict (a signature was recalled).
        """
        run = read_run(self._store, run_id)
        snapshot = self._store.snapshot()
        kinds = [kind.value for kind in SignatureKind if kind.value in run.artefacts]
        return self._append(snapshot, self.rows_for(run, kinds, by=by, reason=reason))

    def rows_for(self, run: RunStatus, kinds: Sequence[str], *, by: str, reason: str | None) -> list[dict[str, Any]]:
        """The rows that make a run's signatures of these kinds current, for whoever pushes them with others.

        Raises as :meth:`release` does.
        """
        signatures = {kind: run.artefacts[kind] for kind in kinds}
        if run.kind != "training" or run.state != "finished" or not signatures:
            raise NotReady("This run has no signatures to release.", action="Release a finished training run.")
        recalled = {row["recalled"] for row in history(self._store.snapshot())} - {None}
        if recalled & set(signatures.values()):
            raise Conflict("A signature of this run was recalled.", action="Train again, and release that run.")
        return [self._row(kind, name, run.run_id, "release", by, reason) for kind, name in signatures.items()]

    def rollback(self, kind: str | None, *, by: str, reason: str | None = None) -> list[ReleaseEntry]:
        """Go back to what was current before, for one kind or for all that have something before.

        Raises NothingReleased where there is nothing to go back to.
        """
        snapshot = self._store.snapshot()
        found = piles(history(snapshot))
        kinds = [kind] if kind is not None else [name for name, pile in found.items() if len(pile) > 1]
        if not kinds or any(len(found.get(name, [])) < 2 for name in kinds):
            raise NothingReleased("There is no earlier release to go back to.", action="See `asdeg releases`.")
        rows = [
            self._row(name, found[name][-2].signature, found[name][-2].run_id, "rollback", by, reason) for name in kinds
        ]
        return self._append(snapshot, rows)

    def recall(self, signature: str, *, by: str, reason: str | None = None) -> list[ReleaseEntry]:
        """Take a signature out for ever; what was current before it answers again, or nothing.

        ``signature`` may be the beginning of its hash, if only one begins so. Raises NotFound.
        """
        snapshot = self._store.snapshot()
        rows = history(snapshot)
        known = {(row["kind"], row["signature"]) for row in rows if row["action"] == "release"}
        matching = {(kind, name) for kind, name in known if name.startswith(signature)}
        if len({name for _, name in matching}) != 1 or len(signature) < 8:
            raise NotFound(
                "No one released signature begins so.", action="See `asdeg releases`; give 8 digits or more."
            )
        new = []
        for kind, name in sorted(matching):
            pile = [entry for entry in piles(rows).get(kind, []) if entry.signature != name]
            top = pile[-1] if pile else None
            left, run_id = (top.signature, top.run_id) if top else (None, None)
            row = self._row(kind, left, run_id, "recall", by, reason)
            new.append({**row, "recalled": name})
        return self._append(snapshot, new)

    def entries(self) -> list[ReleaseEntry]:
        """The whole history, oldest first; ``current`` marks what answers now."""
        rows = history(self._store.snapshot())
        now = {kind: pile[-1].release_id for kind, pile in piles(rows).items() if pile}
        return [ReleaseEntry(**_fields(row), current=now.get(row["kind"]) == row["release_id"]) for row in rows]

    def _append(self, snapshot: Snapshot, rows: list[dict[str, Any]]) -> list[ReleaseEntry]:
        self._store.push(
            {TABLE: rows}, kind="release", source="training", unless_changed=(TABLE,), since=snapshot.sequence
        )
        for row in rows:
            log.info(row["action"], kind=row["kind"], signature=row["signature"], run=row["run_id"])
        return [ReleaseEntry(**_fields(row), current=row["signature"] is not None) for row in rows]

    @staticmethod
    def _row(
        kind: str, signature: str | None, run_id: str | None, action: str, by: str, reason: str | None
    ) -> dict[str, Any]:
        return {
            "release_id": new_id("release"),
            "kind": kind,
            "signature": signature,
            "run_id": run_id,
            "action": action,
            "reason": reason,
            "released_by": by,
            "released_at": datetime.now(UTC),
        }


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in ReleaseEntry.model_fields if name != "current"}
