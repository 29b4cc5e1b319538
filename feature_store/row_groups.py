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
from numpy.typing import NDArray

from feature_store.files import reading
from feature_store.plain_values import PlainFile

Item = TypeVar("Item")
Result = TypeVar("Result")

PART_GROUPS = 8  # of 128 rows of 851 float64: 7 MB
AHEAD = 2  # parts read ahead, for each thread


@dataclass(frozen=True)
class Part:
    """Some row groups of file number ``file``; its first row is row ``start`` of all, its first group ``first``."""

    file: int
    groups: tuple[int, ...]
    start: int
    rows: int
    first: int = 0


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
        self._sizes, self._ends = sizes, np.cumsum(sizes, dtype=np.int64)
        self._mapped: dict[int, PlainFile | None] = {}
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
        return Part(file, tuple(self._id_of[first:end]), start, int(self._ends[end - 1]) - start, first)

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

    def lists(self, part: Part, column: str) -> list[NDArray[Any] | pa.ListArray]:
        """Cells of a column of lists of numbers, a group at a time: (rows, length), not to be written to, where it can.

        Else, where some cells are null or lists differ in length, as Arrow has them.
        """
        plain = self._plain(part.file)
        found: list[NDArray[Any] | pa.ListArray] = []
        for at, group in enumerate(part.groups):
            rows = None if plain is None else plain.rows(group, column)
            if rows is None:
                one = Part(part.file, (group,), 0, self._sizes[part.first + at])
                rows = regular(self.read(one, [column]).column(0).combine_chunks())
            found.append(rows)
        return found

    def _plain(self, file: int) -> PlainFile | None:
        """The file's values where they lie; None where it is not in a folder."""
        if file not in self._mapped:
            fragment = self._files[file]
            near = self._near(file)
            with reading():
                self._mapped[file] = PlainFile(near, fragment.metadata) if near else None
        return self._mapped[file]

    def _near(self, file: int) -> str | None:
        """The file's path on this machine."""
        fragment = self._files[file]
        files = fragment.filesystem
        if isinstance(files, pafs.SubTreeFileSystem) and isinstance(files.base_fs, pafs.LocalFileSystem):
            return f"{files.base_path}{fragment.path}"
        return None

    def open(self, file: int) -> pq.ParquetFile:
        """A file of the table; for one thread at a time."""
        fragment = self._files[file]
        source = fragment.filesystem.open_input_file(fragment.path)
        far = self._near(file) is None  # a file near by is read without threads
        return pq.ParquetFile(source, metadata=fragment.metadata, pre_buffer=far)


def regular(cells: pa.ListArray) -> NDArray[Any] | pa.ListArray:
    """Lists as (rows, length) where none is null and all are as long."""
    offsets = cells.offsets.to_numpy()
    lengths = np.diff(offsets)
    if not len(cells) or cells.null_count or (lengths != lengths[0]).any() or not lengths[0]:
        return cells
    numbers = cells.flatten()
    return cells if numbers.null_count else numbers.to_numpy().reshape(len(cells), -1)


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
