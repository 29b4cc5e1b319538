"""The latest visible revision of every key: found among the keys, then read with its values.

Values (hundreds of numbers a row) never pass through a window or a join: the keys say which rows
win, and the values of those rows are streamed in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.codes import coded, codes
from feature_store.files import DataFiles, Where, values_of
from feature_store.row_groups import Part, RowGroups, ahead


def visible(scanned: pa.Table, pushes: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Positions in ``scanned`` whose push is among ``pushes``, and the sequence of each."""
    at = pc.index_in(scanned["push_id"], value_set=pushes["push_id"])
    positions = np.flatnonzero(np.asarray(at.is_valid()))
    sequences = np.asarray(pushes["sequence"].take(at.take(pa.array(positions))))
    return positions, sequences


def latest(keys: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """Ascending positions of the highest sequence of every distinct key (:func:`feature_store.codes.codes`)."""
    order = np.lexsort((sequences, keys))
    last = np.append(keys[order][1:] != keys[order][:-1], True) if len(order) else np.zeros(0, bool)
    return np.sort(order[last])


def changes(keys: np.ndarray, sequences: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Positions of true revisions, by key and sequence: a row equal to the one before it is none.

    Two writers that race with the same row both commit it; readers see it once, as the first wrote it.
    """
    order = np.lexsort((sequences, keys))
    same = (keys[order][1:] == keys[order][:-1]) & (hashes[order][1:] == hashes[order][:-1])
    return order[np.append([True], ~same)] if len(order) else order


class Heads:
    """Latest rows of one table: ``keys`` (key columns, push_id, push_sequence) and their values.

    ``also`` names further columns to have among ``keys``; ``coded`` are their key columns alone, to be compared with
    others' (:func:`feature_store.codes.positions`). Keys whose latest revision is a withdrawal are not
    there; ``withdrawn`` holds them (key columns and push_sequence).
    """

    def __init__(
        self, files: DataFiles, where: Where, key: Sequence[str], pushes: pa.Table, also: Sequence[str] = ()
    ) -> None:
        self._stored = RowGroups(files.fragments(where), files.schema)
        scanned = self._stored.table([*key, "push_id", "withdrawn", *also])
        rows = np.arange(len(scanned))
        if where:
            rows = _matching(scanned, where)
            scanned = _taken(scanned, rows)
        shown, sequences = visible(scanned, pushes)
        rows, scanned = rows[shown], _taken(scanned, shown)
        numbered = coded(scanned, key)
        newest = latest(codes([numbered], key)[0], sequences)
        rows, scanned, sequences = rows[newest], _taken(scanned, newest), sequences[newest]
        found = scanned.append_column("push_sequence", pa.array(sequences))
        gone = np.asarray(pc.fill_null(found["withdrawn"], False))
        live = np.flatnonzero(~gone)
        self._rows = rows[live]
        self.keys: pa.Table = _taken(found, live).drop_columns(["withdrawn"])
        self.coded: pa.Table = _taken(numbered, newest[live])
        self.withdrawn: pa.Table = found.select([*key, "push_sequence"]).take(pa.array(np.flatnonzero(gone)))

    def newest(self) -> pa.Table:
        """Every key that ever was, with the sequence of its latest revision, be it a withdrawal or not."""
        return pa.concat_tables([self.keys.select(self.withdrawn.column_names), self.withdrawn])

    @property
    def schema(self) -> pa.Schema:
        """Of the stored rows."""
        return self._stored.schema

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Rows that belong to the rows of ``keys``."""
        wanted = pa.schema([self.schema.field(name) for name in columns])
        return pa.concat_tables([wanted.empty_table(), *self.batches(columns)])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Tables whose rows, one after another, belong to the rows of ``keys``."""
        return ahead(lambda part: self._of(part, columns), self._parts())

    def each(self, column: str, work: Callable[[np.ndarray, NDArray[Any] | pa.ListArray], None]) -> None:
        """Calls ``work`` with places in ``keys`` and their cells of a column of lists, until it has had all.

        Cells are as :meth:`RowGroups.lists` gives them. Several calls at once.
        """

        def of(part: Part) -> None:
            start = part.start
            for cells in self._stored.lists(part, column):
                first, end = np.searchsorted(self._rows, [start, start + len(cells)])
                rows = self._rows[first:end] - start
                if len(rows):
                    work(np.arange(first, end), cells if len(rows) == len(cells) else _cells(cells, rows))
                start += len(cells)

        for _ in ahead(of, self._parts()):
            pass

    def _parts(self) -> list[Part]:
        """Parts of the files in which there is a row of ``keys``."""
        found = self._stored.parts()
        bounds = np.searchsorted(self._rows, [part.start for part in found] + [self._stored.rows])
        return [part for part, some in zip(found, np.diff(bounds) > 0, strict=True) if some]

    def _of(self, part: Part, columns: Sequence[str]) -> pa.Table:
        first, end = np.searchsorted(self._rows, [part.start, part.start + part.rows])
        return _taken(self._stored.read(part, columns), self._rows[first:end] - part.start)

    def reader(self, column: str) -> CellReader:
        """For single cells of ``column`` by their place in ``keys``."""
        return CellReader(self._stored, column, self._rows)


def _matching(rows: pa.Table, where: Where) -> np.ndarray:
    """Positions of the rows that match."""
    found = np.ones(len(rows), bool)
    for column, value in where.items():
        wanted = pa.array(values_of(value), rows[column].type)
        found &= np.asarray(pc.is_in(rows[column], value_set=wanted))
    return np.flatnonzero(found)


def _taken(rows: pa.Table, positions: np.ndarray) -> pa.Table:
    """These rows, in ascending order; to take all of them copies nothing."""
    return rows if len(positions) == len(rows) else rows.take(pa.array(positions))


def _cells(cells: NDArray[Any] | pa.ListArray, rows: np.ndarray) -> NDArray[Any] | pa.ListArray:
    return cells[rows] if isinstance(cells, np.ndarray) else cells.take(pa.array(rows))


class CellReader:
    """Cells of one column of lists, from files that stay open. Thread-safe."""

    def __init__(self, stored: RowGroups, column: str, rows: np.ndarray) -> None:
        self._stored, self._column = stored, column
        self._rows, self._groups = rows, stored.group_of(rows)

    def cells(self, places: np.ndarray) -> list[np.ndarray | None]:
        """Of the rows ``places`` of ``keys``, in that order; None where the cell is null."""
        found: list[np.ndarray | None] = [None] * len(places)
        groups: dict[int, list[tuple[int, int]]] = {}
        for at, (row, group) in enumerate(zip(self._rows[places].tolist(), self._groups[places].tolist(), strict=True)):
            groups.setdefault(group, []).append((at, row))
        for number, rows in groups.items():
            part = self._stored.group(number)
            (cells,) = self._stored.lists(part, self._column)
            for at, row in rows:
                cell = cells[row - part.start]
                found[at] = cell if isinstance(cells, np.ndarray) else _numbers(cell)
        return found


def _numbers(cell: pa.ListScalar) -> np.ndarray | None:
    return cell.values.to_numpy(zero_copy_only=False) if cell.is_valid else None
