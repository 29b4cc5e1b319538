"""Row groups of a table's Parquet files, read as they stand.

Arrow's datasets plan every scan, which for narrow columns in row groups of a hundred rows takes three times as long
as the reading; Arrow's Parquet reader, asked for the row groups themselves, is near the memory's speed. What a dataset
adds is added here: the site, which is not in the files, and columns that were declared after a file was written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from feature_store.files import reading

Item = TypeVar("Item")
Result = TypeVar("Result")

PART_GROUPS = 16  # of 128 rows of 851 float64: 14 MB
AHEAD = 2  # parts read ahead, for each thread


@dataclass(frozen=True)
class Part:
    """Some row groups of file number ``file``; its first row is row ``start`` of all."""

    file: int
    groups: tuple[int, ...]
    start: int
    rows: int


class RowGroups:
    """Row groups of ``fragments`` (``pyarrow.dataset.ParquetFileFragment``, each with its site), one after another.

    Rows are numbered through; one has the same number in every column. Thread-safe.
    """

    def __init__(self, fragments: Sequence[tuple[Any, str | None]], schema: pa.Schema) -> None:
        self.schema = schema
        self._files = [fragment for fragment, _ in fragments]
        self._sites = [site for _, site in fragments]
        with reading():
            groups = [[(g.id, g.num_rows) for g in fragment.row_groups] for fragment in self._files]
        sizes = [rows for of in groups for _, rows in of]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._file_of = np.repeat(np.arange(len(groups)), [len(of) for of in groups])
        self._id_of = [number for of in groups for number, _ in of]
        self._first = np.append(0, np.cumsum([len(of) for of in groups], dtype=np.int64))
        self.rows = int(self._ends[-1]) if sizes else 0

    def table(self, columns: Sequence[str]) -> pa.Table:
        """These columns of all rows."""
        wanted = pa.schema([self.schema.field(name) for name in columns])
        parts = self.parts(whole_files=True)
        tables = ahead(lambda part: self.read(part, columns), parts)
        return pa.concat_tables(tables) if parts else wanted.empty_table()

    def parts(self, whole_files: bool = False) -> list[Part]:
        """All rows in pieces of PART_GROUPS row groups of a file, or of whole files."""
        found = []
        for file, (first, end) in enumerate(pairwise(self._first.tolist())):
            step = max(end - first, 1) if whole_files else PART_GROUPS
            found += [self._part(file, at, min(at + step, end)) for at in range(first, end, step)]
        return found

    def group_of(self, rows: np.ndarray) -> np.ndarray:
        """Number of the row group of each row, for :meth:`group`."""
        return np.searchsorted(self._ends, rows, side="right")

    def group(self, number: int) -> Part:
        """One row group."""
        return self._part(int(self._file_of[number]), number, number + 1)

    def _part(self, file: int, first: int, end: int) -> Part:
        start = int(self._ends[first - 1]) if first else 0
        return Part(file, tuple(self._id_of[first:end]), start, int(self._ends[end - 1]) - start)

    def read(self, part: Part, columns: Sequence[str], opened: pq.ParquetFile | None = None) -> pa.Table:
        """These columns of a part. ``opened`` is its file (:meth:`open`), where that is kept."""
        with reading():
            file = self.open(part.file) if opened is None else opened
            here = set(file.schema_arrow.names)
            stored = file.read_row_groups(list(part.groups), [c for c in columns if c in here], use_threads=False)
        arrays: list[Any] = []
        for name in columns:
            kind = self.schema.field(name).type
            if name in here:
                arrays.append(stored[name] if stored[name].type == kind else stored[name].cast(kind))
            elif name == "site":
                arrays.append(pa.repeat(pa.scalar(self._sites[part.file], kind), part.rows))
            else:
                arrays.append(pa.nulls(part.rows, kind))
        return pa.table(arrays, schema=pa.schema([self.schema.field(name) for name in columns]))

    def open(self, file: int) -> pq.ParquetFile:
        """A file of the table; for one thread at a time."""
        fragment = self._files[file]
        source = fragment.filesystem.open_input_file(fragment.path)
        near = isinstance(getattr(fragment.filesystem, "base_fs", None), pafs.LocalFileSystem)
        return pq.ParquetFile(source, metadata=fragment.metadata, pre_buffer=not near)  # a file is read without threads


def ahead(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """``work`` of each item in order, done by as many threads as Arrow has, a few items ahead of who asks."""
    if len(items) < 2:
        yield from map(work, items)
        return
    threads = pa.cpu_count()
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
