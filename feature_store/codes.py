"""Rows of tables compared by several columns at once: as one integer a row.

Texts are looked at once a column; what follows (the newest of equal keys, where a row's key stands in another table)
is done with integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LARGEST = 2**62
FEW = 200
"""Rows: so many are numbered sooner one by one than column by column."""


def codes(tables: Sequence[pa.Table], columns: Sequence[str]) -> list[np.ndarray]:
    """Of each table one int64 a row; two rows, of the same table or not, have the same one where ``columns`` are equal.

    Columns are texts, or equal as texts where they are equal. A null equals a null only.
    """
    lengths = [len(table) for table in tables]
    if sum(lengths) <= FEW:
        rows = [row for table in tables for row in zip(*(table[name].to_pylist() for name in columns), strict=True)]
        number: dict[tuple[Any, ...], int] = {}
        few = np.array([number.setdefault(row, len(number)) for row in rows], np.int64)
        return np.split(few, np.cumsum(lengths)[:-1])
    found = np.zeros(sum(lengths), np.int64)
    span = 1
    for name in columns:
        chunks = [chunk for table in tables for chunk in table[name].cast(pa.string()).chunks]
        cells = pa.chunked_array(chunks, pa.string()).combine_chunks()
        encoded = cells.dictionary_encode(null_encoding="encode")
        count = len(encoded.dictionary)
        if count < 2:
            continue
        if span * count > LARGEST:
            found = np.unique(found, return_inverse=True)[1]
            span = len(found)
        found = found * count + encoded.indices.to_numpy()
        span *= count
    return np.split(found, np.cumsum(lengths)[:-1])


def positions(table: pa.Table, among: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """Of each row of ``table`` the number of the (first) row of ``among`` that equals it in ``columns``; else -1."""
    mine, theirs = codes([table, among], columns)
    at = pc.index_in(pa.array(mine), value_set=pa.array(theirs))
    return np.asarray(pc.fill_null(at, -1)).astype(np.int64)
