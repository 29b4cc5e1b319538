"""The latest visible revision of every key: found among the keys, then read with its values.

Values (hundreds of numbers a row) never pass through a window or a join: the keys say which rows
win, and the values of those rows are streamed in the same order.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.errors import StoreError
from feature_store.files import DataFiles, Where, expression, reading
from feature_store.rows import composite

FEW_FILES = 4  # are read sooner than threads are woken
ROW = "_row"
BATCH_ROWS = 4096  # 28 MB of 851 float64 values a row


def visible(scanned: pa.Table, pushes: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Positions in ``scanned`` whose push is among ``pushes``, and the sequence of each."""
    at = pc.index_in(scanned["push_id"], value_set=pushes["push_id"])
    positions = np.flatnonzero(np.asarray(at.is_valid()))
    sequences = np.asarray(pushes["sequence"].take(at.take(pa.array(positions))))
    return positions, sequences


def latest(keys: pa.Array, sequences: np.ndarray) -> np.ndarray:
    """Positions of the highest sequence of every distinct key, in ascending order."""
    codes = np.asarray(keys.dictionary_encode().indices)
    order = np.lexsort((sequences, codes))
    last = np.append(codes[order][1:] != codes[order][:-1], True) if len(order) else np.zeros(0, bool)
    return np.sort(order[last])


def changes(keys: pa.Array, sequences: np.ndarray, hashes: pa.Array) -> np.ndarray:
    """Positions of true revisions, by key and sequence: a row equal to the one before it is none.

    Two writers that race with the same row both commit it; readers see it once, as the first wrote it.
    """
    codes = np.asarray(keys.dictionary_encode().indices)
    values = np.asarray(hashes.dictionary_encode().indices)
    order = np.lexsort((sequences, codes))
    same = (codes[order][1:] == codes[order][:-1]) & (values[order][1:] == values[order][:-1])
    return order[np.append([True], ~same)] if len(order) else order


class Heads:
    """Latest rows of one table: ``keys`` (key columns, push_id, row_hash, push_sequence) and their values.

    ``also`` names further columns to have among ``keys``. Keys whose latest revision is a withdrawal are not
    there; ``withdrawn`` holds them (key columns and push_sequence).
    """

    def __init__(
        self, files: DataFiles, where: Where, key: Sequence[str], pushes: pa.Table, also: Sequence[str] = ()
    ) -> None:
        with reading():
            self._dataset = files.row_groups(where)
        self._whole = not where
        columns = [*key, "push_id", "row_hash", "withdrawn", *also]
        scanned = self._scan(columns)
        self._scanned = len(scanned)
        scanned = scanned.append_column(ROW, pa.array(np.arange(len(scanned))))
        if where:
            scanned = scanned.filter(expression(where))
        positions, sequences = visible(scanned, pushes)
        shown = scanned.take(pa.array(positions))
        winners = latest(composite(shown, key), sequences)
        newest = shown.take(pa.array(winners)).append_column("push_sequence", pa.array(sequences[winners]))
        gone = pc.fill_null(newest["withdrawn"], False)
        live = np.flatnonzero(~np.asarray(gone))
        self._positions = np.asarray(newest[ROW])[live]
        self.keys: pa.Table = newest.take(pa.array(live)).drop_columns(["withdrawn", ROW])
        self.withdrawn: pa.Table = newest.filter(gone).select([*key, "push_sequence"])

    def _scan(self, columns: list[str]) -> pa.Table:
        if not self._dataset.files:  # a scan of no file still costs a millisecond
            return pa.schema([self._dataset.schema.field(name) for name in columns]).empty_table()
        many = len(self._dataset.files) > FEW_FILES or self._dataset.count_rows() > BATCH_ROWS
        with reading():
            return self._dataset.to_table(columns=columns, use_threads=many)

    def newest(self) -> pa.Table:
        """Every key that ever was, with the sequence of its latest revision, be it a withdrawal or not."""
        return pa.concat_tables([self.keys.select(self.withdrawn.column_names), self.withdrawn])

    @property
    def schema(self) -> pa.Schema:
        """Of the stored rows."""
        return self._dataset.schema

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Batches whose rows, one after another, belong to the rows of ``keys``."""
        wanted = list(dict.fromkeys([*columns, "push_id"]))
        scanner = self._dataset.scanner(
            columns=wanted,
            batch_size=BATCH_ROWS,
            batch_readahead=4,
            fragment_readahead=4,
            use_threads=len(self._dataset.files) > FEW_FILES or self._scanned > BATCH_ROWS,
        )
        start = taken = 0
        pushes = []
        with reading():
            for batch in scanner.to_batches():
                until = np.searchsorted(self._positions, start + len(batch))
                rows = self._positions[taken:until] - start
                if len(rows):
                    found = batch if len(rows) == len(batch) else batch.take(pa.array(rows))
                    pushes.append(found.column("push_id"))
                    yield found.select(list(columns))
                start, taken = start + len(batch), int(until)
        # once at the end: a row group at a time, it takes as long as the reading
        read = pa.chunked_array(pushes, pa.string()) if pushes else pa.chunked_array([], pa.string())
        if start != self._scanned or not read.equals(self.keys["push_id"].cast(pa.string())):
            raise StoreError("A table changed while it was read.", action="Read again.")

    def reader(self, column: str) -> CellReader:
        """For single cells of ``column`` by their place in ``keys``; only of heads that nothing was filtered from."""
        assert self._whole
        return CellReader(self._dataset, column, self._positions)


class CellReader:
    """Cells of one column of lists, read row group by row group from files that stay open. Thread-safe."""

    def __init__(self, dataset: Any, column: str, positions: np.ndarray) -> None:
        self._column, self._fragments = column, list(dataset.get_fragments())
        ends = np.cumsum([fragment.count_rows() for fragment in self._fragments], dtype=np.int64)
        self._file = np.searchsorted(ends, positions, side="right")
        self._row = positions - np.append(0, ends)[self._file]
        self._opened: dict[int, tuple[pq.ParquetFile, np.ndarray, threading.Lock]] = {}
        self._lock = threading.Lock()

    def cells(self, places: np.ndarray) -> list[np.ndarray | None]:
        """Of the rows ``places`` of ``keys``, in that order; None where the cell is null."""
        found: list[np.ndarray | None] = [None] * len(places)
        groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for at, place in enumerate(places.tolist()):
            number, row = int(self._file[place]), int(self._row[place])
            starts = self._file_of(number)[1]
            group = int(np.searchsorted(starts, row, side="right")) - 1
            groups.setdefault((number, group), []).append((at, row - int(starts[group])))
        for (number, group), rows in groups.items():
            file, _, lock = self._opened[number]
            with lock:
                read = file.read_row_group(group, columns=[self._column], use_threads=False)
            cells = read.column(0).combine_chunks()
            flat, offsets = cells.values.to_numpy(zero_copy_only=False), cells.offsets.to_numpy()
            valid = cells.is_valid().to_numpy(zero_copy_only=False)
            for at, row in rows:
                if valid[row]:
                    found[at] = flat[offsets[row] : offsets[row + 1]]
        return found

    def _file_of(self, number: int) -> tuple[pq.ParquetFile, np.ndarray, threading.Lock]:
        with self._lock:
            if number not in self._opened:
                fragment = self._fragments[number]
                file = pq.ParquetFile(fragment.filesystem.open_input_file(fragment.path))
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
                self._opened[number] = (file, np.append(0, np.cumsum(sizes)), threading.Lock())
            return self._opened[number]
