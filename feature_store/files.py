"""The Parquet files of one Delta table at one version, and which of them a filter can touch.

Delta keeps the partition value and the smallest and largest value of every column of every file. Files
are picked from that before anything is opened, which keeps a lookup's cost off the number of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

Where = Mapping[str, Any]
"""Column to a value or a list of values; a row matches when every column does."""


class DataFiles:
    """``actions``: one row a file, as Delta's ``get_add_actions(flatten=True)`` gives them."""

    def __init__(self, actions: pa.Table, schema: pa.Schema, filesystem: Any) -> None:
        self._actions = actions
        self._schema = schema
        self._filesystem = filesystem
        self._format = pads.ParquetFileFormat(
            default_fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=True)
        )

    def __len__(self) -> int:
        return len(self._actions)

    def by_site(self) -> dict[str | None, tuple[int, int]]:
        """Number and bytes of the files of each site; under None where the table is not split by site."""
        names = self._actions.column_names
        sites = self._actions["partition.site"].to_pylist() if "partition.site" in names else [None] * len(self)
        found: dict[str | None, tuple[int, int]] = {}
        for site, size in zip(sites, self._actions["size_bytes"].to_pylist(), strict=True):
            count, total = found.get(site, (0, 0))
            found[site] = (count + 1, total + size)
        return found

    def dataset(self, where: Where | None = None, above: tuple[str, int] | None = None) -> Any:
        """Dataset of the files that may hold a row matching ``where`` (and a column above a number).

        Rows still have to be filtered: a file is left out only where none of its rows can match.
        Columns declared after a file was written read as null.
        """
        keep = np.ones(len(self), bool)
        for column, value in (where or {}).items():
            keep &= self._may_hold(column, values_of(value))
        if above is not None:
            highest = self._statistic("max", above[0])
            keep &= np.array([high is None or high > above[1] for high in highest], bool)
        kept = self._actions.take(pa.array(np.flatnonzero(keep)))
        sites = kept["partition.site"].to_pylist() if "partition.site" in kept.column_names else [None] * len(kept)
        fragments = [
            self._format.make_fragment(
                unquote(path),  # Delta's log writes paths as URLs
                filesystem=self._filesystem,
                partition_expression=None if site is None else pads.field("site") == site,
            )
            for path, site in zip(kept["path"].to_pylist(), sites, strict=True)
        ]
        return pads.FileSystemDataset(fragments, self._schema, self._format, self._filesystem)

    def _may_hold(self, column: str, values: list[Any]) -> np.ndarray:
        name = f"partition.{column}"
        if name in self._actions.column_names:
            wanted = set(values)
            return np.array([value in wanted for value in self._actions[name].to_pylist()], bool)
        ordered = sorted(value for value in values if value is not None)
        low, high = self._statistic("min", column), self._statistic("max", column)
        known = np.array([a is not None and b is not None for a, b in zip(low, high, strict=True)], bool)
        may = np.ones(len(self), bool)
        if known.any() and len(ordered) == len(values):
            array = np.array(ordered, dtype=object)
            first = np.searchsorted(array, low[known], side="left")
            behind = np.searchsorted(array, high[known], side="right")
            may[known] = first < behind  # some wanted value lies within the file's bounds
        return may

    def _statistic(self, which: str, column: str) -> np.ndarray:
        name = f"{which}.{column}"
        if name not in self._actions.column_names:
            return np.full(len(self), None, dtype=object)
        return np.array(self._actions[name].to_pylist(), dtype=object)


def values_of(value: Any) -> list[Any]:
    """The wanted values of one column of a :data:`Where`."""
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def expression(where: Where | None) -> Any:
    """The Arrow filter of ``where``; None where everything matches."""
    found = None
    for column, value in (where or {}).items():
        values = values_of(value)
        known = [v for v in values if v is not None]  # a list of nothing, or of nulls, has no type to compare with
        one = pads.field(column).isin(known) if known else pads.scalar(False)
        if len(known) < len(values):
            one = one | pads.field(column).is_null()
        found = one if found is None else found & one
    return found
