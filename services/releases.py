"""Which signature is current: read from the table ``releases``, whose history is a pile per signature kind.

A release puts a signature on top; a rollback takes the top off; a recall takes a signature out wherever it lies
and never lets it back. Every row's ``signature`` says what is current after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.snapshot import Snapshot


@dataclass(frozen=True)
class Current:
    """The signature that answers for a kind now."""

    kind: str
    signature: str
    run_id: str
    release_id: str


def history(snapshot: Snapshot) -> list[dict[str, Any]]:
    """All rows of ``releases``, oldest first (in commit order; a clock decides nothing)."""
    rows: list[dict[str, Any]] = snapshot.revisions("releases").to_pylist()
    return sorted(rows, key=lambda row: (row["push_sequence"], row["release_id"]))


def piles(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Current]]:
    """Kind to its pile of signatures, the current one last."""
    found: dict[str, list[Current]] = {}
    recalled: set[str] = set()
    for row in rows:
        pile = found.setdefault(row["kind"], [])
        if row["action"] == "release" and row["signature"] not in recalled:
            pile.append(Current(row["kind"], row["signature"], row["run_id"] or "", row["release_id"]))
        elif row["action"] == "rollback" and pile:
            pile.pop()
        elif row["action"] == "recall" and row["recalled"]:
            recalled.add(row["recalled"])
            for kind, old in found.items():
                found[kind] = [entry for entry in old if entry.signature != row["recalled"]]
    return found


def current(snapshot: Snapshot) -> dict[str, Current]:
    """Kind to the signature that is current; kinds without one are absent."""
    return {kind: pile[-1] for kind, pile in piles(history(snapshot)).items() if pile}
