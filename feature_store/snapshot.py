"""A consistent view: whole pushes up to one sequence, whatever is written meanwhile.

Which pushes are visible is fixed when the snapshot is made; data tables are opened after that, so every
row of a visible push is there, and rows of later or unfinished pushes are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from feature_store.codes import codes
from feature_store.delta import DeltaLog
from feature_store.errors import UsageError
from feature_store.files import DataFiles, Where, expression, reading
from feature_store.heads import Heads, changes, visible
from feature_store.schemas import TABLES, TableSchema

WIDE = "values"
"""Column of hundreds of numbers a row."""


class Snapshot:
    """What the store held after push ``sequence``."""

    def __init__(
        self, logs: Mapping[str, DeltaLog], pushes: pa.Table, opened: dict[str, DataFiles] | None = None
    ) -> None:
        self.pushes = pushes
        self.sequence: int = len(pushes)
        self._logs = logs
        self._opened: dict[str, DataFiles] = {} if opened is None else opened

    def at(self, sequence: int) -> Snapshot:
        """The same store at an earlier push. Raises UsageError where ``sequence`` is not reached yet."""
        if not 0 <= sequence <= self.sequence:
            raise UsageError(
                f"There is no push {sequence}: the view ends at {self.sequence}.", action="Ask for an earlier one."
            )
        return self if sequence == self.sequence else Snapshot(self._logs, self.pushes.slice(0, sequence), self._opened)

    def anew(self) -> Snapshot:
        """The same view over the files there are now: those of then are deleted some days after they were tidied."""
        return Snapshot(self._logs, self.pushes)

    def table(self, name: str, columns: Sequence[str] | None = None, where: Where | None = None) -> pa.Table:
        """Latest revision of every key: ``columns`` (default: the declared ones and push_id)."""
        schema = table_schema(name)
        wanted = list(columns or (*schema.column_names, "push_id"))
        wanted = list(dict.fromkeys(wanted))
        where = where or {}
        if name == "pushes":
            return _matching(self.pushes, schema, where, wanted)
        later = {column: value for column, value in where.items() if column not in schema.key}
        read = list(dict.fromkeys([*wanted, *later]))
        arrow = pa.schema([schema.arrow().field(column) for column in _known(schema, read)])
        # values are read of the newest rows only; all else at once with the keys
        also = [] if WIDE in read else [column for column in read if column not in (*schema.key, "push_id")]
        heads = self.heads(name, {c: v for c, v in where.items() if c in schema.key}, also)
        if heads is None:
            found = arrow.empty_table()
        elif WIDE in read:
            found = heads.table(read).cast(arrow)
        else:
            found = heads.keys.select(read).cast(arrow)
        return _matching(found, schema, later, wanted)

    def heads(self, name: str, where: Where | None = None, also: Sequence[str] = ()) -> Heads | None:
        """Latest keys and their values to stream; None where the table has never been written.

        ``where`` may name key columns only: an older revision must not come up because the latest
        one does not match.
        """
        schema = table_schema(name)
        where = where or {}
        if not set(where) <= set(schema.key):
            raise UsageError("Latest rows can be asked for by key columns only.", action="Filter what comes back.")
        files = self.files(name)
        return None if files is None else Heads(files, where, schema.key, self.pushes, also)

    def revisions(self, name: str, columns: Sequence[str] | None = None, where: Where | None = None) -> pa.Table:
        """Every visible revision by key and time, with ``push_sequence`` and ``committed_at``.

        A row equal to the revision before it (two writers raced) is no revision. In a revision that is
        ``withdrawn`` the key held nothing from then on; its other columns are those of the row before.
        """
        schema = table_schema(name)
        wanted = list(columns or (*schema.column_names, "push_id", "withdrawn"))
        arrow = pa.schema([schema.arrow().field(column) for column in _known(schema, wanted)])
        files = self.files(name)
        empty = np.zeros(0, np.int64)
        if files is None:
            found, positions, sequences = schema.arrow().empty_table(), empty, empty
        else:
            read = list(dict.fromkeys([*wanted, *schema.key, "push_id", "row_hash"]))
            keyed = {c: v for c, v in (where or {}).items() if c in schema.key}
            with reading():
                found = files.dataset(keyed).to_table(columns=read, filter=expression(keyed))
            positions, sequences = visible(found, self.pushes)
            found = found.take(pa.array(positions))
            keys, hashes = codes([found], schema.key)[0], codes([found], ["row_hash"])[0]
            kept = changes(keys, sequences, hashes)
            found, sequences = found.take(pa.array(kept)), sequences[kept]
        times = self.pushes["committed_at"].take(pa.array(sequences - 1))
        later = {c: v for c, v in (where or {}).items() if c not in schema.key}
        rows = found.select(list(arrow.names)).cast(arrow)
        rows = rows.append_column("push_sequence", pa.array(sequences, pa.int64())).append_column("committed_at", times)
        return rows.filter(expression(later)) if later else rows

    def files(self, name: str) -> DataFiles | None:
        """The table's files, listed once: later commits add only rows of pushes this view leaves out."""
        if name not in self._opened:
            found = self._logs[name].files()
            if found is None:
                return None
            self._opened[name] = found
        return self._opened[name]


def table_schema(name: str) -> TableSchema:
    """Raises UsageError where no table has that name."""
    if name not in TABLES:
        raise UsageError(f"There is no table {name}.", action=f"Tables: {', '.join(TABLES)}.")
    return TABLES[name]


def _known(schema: TableSchema, columns: Iterable[str]) -> list[str]:
    known = {*schema.arrow().names}
    if unknown := [column for column in columns if column not in known]:
        raise UsageError(
            f"Table {schema.name} has no column {', '.join(unknown)}.",
            action=f"Its columns are {', '.join(schema.column_names)}.",
        )
    return list(columns)


def _matching(found: pa.Table, schema: TableSchema, where: Where, columns: Sequence[str]) -> pa.Table:
    _known(schema, [*where, *columns])
    return (found.filter(expression(where)) if where else found).select(list(columns))
