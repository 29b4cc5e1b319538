"""The Parquet files of one Delta table at one version, and which of them a filter can touch.

Delta keeps the partition value of every file, and the smallest and largest value of its columns. Files are
picked from that before anything is opened, which keeps a lookup's cost off the number of files.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from feature_store.errors import StoreError
from feature_store.schemas import TableSchema

FRAGMENTS_KEPT = 2000

Where = Mapping[str, Any]
"""Column to a value or a list of values; a row matches when every column does."""


def tracked(schema: TableSchema) -> Mapping[str, pa.DataType]:
    """Columns by whose bounds files are picked: those of the key, the push, and the number of a push."""
    names = {*schema.key, "push_id", *({"sequence"} & set(schema.column_names))} - {"site" if schema.by_site else ""}
    return {field.name: field.type for field in schema.arrow() if field.name in names}


def listing_schema(schema: TableSchema) -> pa.Schema:
    """Of the table that lists a Delta table's files: path, size, rows, site, and the bounds of tracked columns."""
    bounds = [(f"{which}.{name}", kind) for which in ("min", "max") for name, kind in tracked(schema).items()]
    fixed = [("path", pa.string()), ("size_bytes", pa.int64()), ("num_records", pa.int64())]
    return pa.schema([*fixed, ("partition.site", pa.string()), *bounds])


def listed(actions: pa.Table, schema: TableSchema) -> pa.Table:
    """The listing from what the library's ``get_add_actions(flatten=True)`` gives."""
    paths = pa.array([unquote(path) for path in actions["path"].to_pylist()], pa.string())  # the log has URLs
    known = {name: actions[name] for name in actions.column_names} | {"path": paths}
    wanted = listing_schema(schema)
    columns = [
        known[field.name].cast(field.type) if field.name in known else pa.nulls(len(actions), field.type)
        for field in wanted
    ]
    return pa.table(columns, schema=wanted)


@contextmanager
def reading() -> Iterator[None]:
    """Around a scan: Arrow's own error, where a file went meanwhile, as the store's."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"A file of the store went while it was read ({type(error).__name__}).",
            action="Read again: a patient was erased, or the view was older than the files that are kept.",
        ) from error


class Fragments:
    """The files of a table that have been opened; a file's footer is read once a process."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem
        options = pads.ParquetFragmentScanOptions(pre_buffer=True)
        self._format = pads.ParquetFileFormat(default_fragment_scan_options=options)
        self._opened: dict[str, Any] = {}

    def of(self, listing: pa.Table) -> list[Any]:
        """The listed files."""
        found = []
        for path, site in zip(listing["path"].to_pylist(), listing["partition.site"].to_pylist(), strict=True):
            if path not in self._opened:
                if len(self._opened) >= FRAGMENTS_KEPT:
                    self._opened.clear()
                of = None if site is None else pads.field("site") == site
                self._opened[path] = self._format.make_fragment(
                    path, filesystem=self._filesystem, partition_expression=of
                )
            found.append(self._opened[path])
        return found

    def dataset(self, listing: pa.Table, schema: pa.Schema) -> Any:
        """Dataset of the listed files."""
        return pads.FileSystemDataset(self.of(listing), schema, self._format, self._filesystem)


class DataFiles:
    """``listing``: one row a file, as :func:`listing_schema` says."""

    def __init__(self, listing: pa.Table, schema: pa.Schema, fragments: Fragments) -> None:
        self.listing = listing
        self._schema = schema
        self._fragments = fragments

    def __len__(self) -> int:
        return len(self.listing)

    def by_site(self) -> dict[str | None, tuple[int, int]]:
        """Number and bytes of the files of each site; under None where the table is not split by site."""
        found: dict[str | None, tuple[int, int]] = {}
        sizes = self.listing["size_bytes"].to_pylist()
        for site, size in zip(self.listing["partition.site"].to_pylist(), sizes, strict=True):
            count, total = found.get(site, (0, 0))
            found[site] = (count + 1, total + size)
        return found

    def dataset(self, where: Where | None = None) -> Any:
        """Dataset of the files that may hold a row matching ``where``.

        Rows still have to be filtered: a file is left out only where none of its rows can match.
        Columns declared after a file was written read as null.
        """
        return self._fragments.dataset(self.picked(where), self._schema)

    def fragments(
        self, where: Where | None = None, above: tuple[str, int] | None = None
    ) -> list[tuple[Any, str | None]]:
        """Files with their sites, cut down to the row groups that may hold a row matching ``where``.

        With ``above`` only files that may hold a row whose column of that name is above that number.
        """
        kept = self.picked(where)
        if above is not None:
            kept = kept.filter(pc.fill_null(pc.greater(kept[f"max.{above[0]}"], above[1]), True))
        found = self._fragments.of(kept)
        sites = kept["partition.site"].to_pylist()
        matching = expression({c: v for c, v in (where or {}).items() if c in self._bounded})
        if matching is not None:
            with reading():
                found = [f if f.num_row_groups == 1 else f.subset(matching, schema=self._schema) for f in found]
        return list(zip(found, sites, strict=True))

    @property
    def schema(self) -> pa.Schema:
        """Of the rows."""
        return self._schema

    def picked(self, where: Where | None) -> pa.Table:
        """The listing of the files that may hold a row matching ``where``."""
        kept = self.listing
        for column, value in (where or {}).items():
            values = values_of(value)
            if column == "site" and column not in self._bounded:
                kept = kept.filter(pc.is_in(kept["partition.site"], value_set=pa.array(values, pa.string())))
            elif column in self._bounded and None not in values:  # nothing is known of nulls
                kept = _overlapping(kept, column, sorted(values))
        return kept

    @cached_property
    def _bounded(self) -> frozenset[str]:
        return frozenset(name[4:] for name in self.listing.column_names if name.startswith("min."))


def _overlapping(listing: pa.Table, column: str, values: list[Any]) -> pa.Table:
    """Rows of ``listing`` in whose bounds one of the sorted ``values`` lies, or whose bounds are not known."""
    bounds = zip(listing[f"min.{column}"].to_pylist(), listing[f"max.{column}"].to_pylist(), strict=True)
    kept = [a is None or b is None or bisect_left(values, a) < bisect_right(values, b) for a, b in bounds]
    return listing if all(kept) else listing.filter(pa.array(kept, pa.bool_()))


def values_of(value: Any) -> list[Any]:
    """The wanted values of one column of a :data:`Where`."""
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def expression(where: Where | None) -> Any:
    """The Arrow filter of ``where``; None where everything matches."""
    found = None
    for column, value in (where or {}).items():
        values = values_of(value)
        known = [v for v in values if v is not None]  # a list of nothing, or of nulls, has no type to compare with
        here = pads.field(column)
        # an equation is settled by a row group's bounds ten times as fast as a list of one
        one = here == known[0] if len(known) == 1 else here.isin(known) if known else pads.scalar(False)
        if len(known) < len(values):
            one = one | pads.field(column).is_null()
        found = one if found is None else found & one
    return found
