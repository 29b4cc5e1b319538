"""The order of pushes: one row each in ``pushes``, numbered 1, 2, … without gaps by whoever commits.

The number is a transaction of Delta Lake's own log, so of two writers that read the same state one is
refused and tries again with the next number. Rows are kept in memory once read: a committed push never
changes.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.delta import DeltaLog, TransactionTaken
from feature_store.errors import StoreError
from feature_store.row_groups import RowGroups
from feature_store.rows import row_hashes
from feature_store.schemas import PUSHES
from feature_store.software import software_version

TRANSACTION = "asdeg-pushes"
PATIENCE_S = 300.0  # a writer gives up its commit after so long
COMPACT_EVERY = 25  # pushes; keeps the number of one-row files small for whoever opens the store


class PushLog:
    """Reads and extends ``pushes``. Thread-safe."""

    def __init__(self, log: DeltaLog) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._rows = PUSHES.arrow().empty_table()

    def rows(self) -> pa.Table:
        """All committed pushes by sequence; reads only what is new since the last call."""
        with self._lock:
            files = self._log.files()
            if files is not None:
                last = len(self._rows)
                newer = RowGroups(files.fragments(above=("sequence", last)), files.schema)
                new = newer.table(files.schema.names)
                new = new.filter(pc.greater(new["sequence"], last)).sort_by("sequence")
                new = _once(new)
                if new["sequence"].to_pylist() != list(range(last + 1, last + len(new) + 1)):
                    raise StoreError(
                        "The sequence of pushes has a gap.", action="Restore the table pushes from a backup."
                    )
                if len(new):
                    self._rows = pa.concat_tables([self._rows, new.cast(self._rows.schema)]).combine_chunks()
            return self._rows

    def commit(self, push_id: str, kind: str, source: str, tables: Callable[[pa.Table], str]) -> int:
        """Make the push visible as the last one; returns its sequence.

        Before every attempt ``tables`` is called with all pushes committed so far; it may raise to give
        the push up, and returns the JSON of what the push wrote. Raises StoreError when the store
        refuses, when others keep getting in first, or when the push was given up for dead meanwhile.
        """

        def record(rows: pa.Table) -> dict[str, Any]:
            if push_id in given_up(rows):
                raise StoreError("This push was given up for dead before it was done.", action="Send it again.")
            return {"push_id": push_id, "kind": kind, "source": source, "tables": tables(rows)}

        return self._append(push_id, record)

    def give_up(self, push_id: str, dead: Sequence[str]) -> int:
        """Record that the pushes ``dead`` died uncommitted; returns the record's own sequence.

        From that record on none of them can be committed: whoever commits reads every record before its own,
        so a writer that was only asleep learns of it. Their rows may then be removed.
        """

        def record(rows: pa.Table) -> dict[str, Any]:
            committed = set(pc.filter(rows["push_id"], pc.is_in(rows["push_id"], pa.array(dead))).to_pylist())
            names = [name for name in dead if name not in committed]
            return {"push_id": push_id, "kind": "sweep", "source": "optimize", "tables": "{}", "given_up": names}

        return self._append(push_id, record)

    def take(self, rows: pa.Table) -> None:
        """Append another store's records, which follow this one's last; whatever they speak of is here already.

        Raises StoreError where somebody else has written here.
        """
        try:
            self._log.append_numbered(rows.cast(PUSHES.arrow()), TRANSACTION, int(rows["sequence"][-1].as_py()))
        except TransactionTaken as error:
            raise StoreError("Somebody else wrote to the copy.", action="Copy into a place of its own.") from error

    def _append(self, push_id: str, record: Callable[[pa.Table], dict[str, Any]]) -> int:
        """Commit ``record``, made anew from all rows before it, under the next number."""
        deadline = time.monotonic() + PATIENCE_S
        attempt = 0
        while time.monotonic() < deadline:
            rows = self.rows()
            number = len(rows) + 1
            row = {**record(rows), "sequence": number}
            try:
                self._log.append_numbered(_row(row, rows), TRANSACTION, number)
            except TransactionTaken:
                attempt += 1
                time.sleep(random.uniform(0, min(0.2, 0.005 * attempt)))
                continue
            except StoreError:
                # a lost answer is not a lost commit
                found = self._sequence_of(push_id)
                if found is None:
                    raise
                return found
            if number % COMPACT_EVERY == 0:
                self._log.tidy(1)
            return number
        raise StoreError("Other writers kept this push waiting too long.", action="Send the push again.")

    def _sequence_of(self, push_id: str) -> int | None:
        rows = self.rows()
        index = pc.index(rows["push_id"], push_id).as_py()
        return None if index < 0 else index + 1


def _once(rows: pa.Table) -> pa.Table:
    """Sorted rows without those that stand there twice: the library lets two compactions of the same files through."""
    numbers, names = np.asarray(rows["sequence"]), rows["push_id"].to_numpy()
    again = np.append([False], (numbers[1:] == numbers[:-1]) & (names[1:] == names[:-1]))[: len(rows)]
    return rows.filter(pa.array(~again)) if again.any() else rows


def given_up(rows: pa.Table) -> set[str]:
    """Ids of the pushes that died uncommitted, of the records ``rows``."""
    return set(pc.list_flatten(rows["given_up"].combine_chunks()).to_pylist())


def _row(record: dict[str, Any], before: pa.Table) -> pa.Table:
    now = datetime.now(UTC)
    if len(before):  # clocks of several machines differ; commit times never run backwards
        now = max(now, before["committed_at"][-1].as_py() + timedelta(microseconds=1))
    row = record | {"committed_at": now, "software_version": software_version()}
    names = [c.name for c in PUSHES.columns]
    # `pushes` is its own push_id: the store's two columns are the declared one and the hash
    declared = pa.table([pa.array([row.get(c.name)], c.type) for c in PUSHES.columns], names=names)
    return declared.append_column("row_hash", row_hashes(PUSHES, declared)).cast(PUSHES.arrow())
