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


def coded(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """``columns`` alone, dictionary-encoded: texts are then looked at once, however often rows are compared.

    Of a FEW rows as they are: those are compared one by one.
    """
    if len(table) <= FEW:
        return table.select(list(columns))
    return pa.table([_coded(table[name].chunks) for name in columns], names=list(columns))


def codes(tables: Sequence[pa.Table], columns: Sequence[str]) -> list[np.ndarray]:
    """Of each table one int64 a row; two rows, of the same table or not, have the same one where ``columns`` are equal.

    Columns are texts, dictionary-encoded or not, or equal as texts where they are equal. A null equals a null only.
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
        encoded = _coded([_coded(table[name].chunks) for table in tables])
        count = len(encoded.dictionary) + 1  # and null
        if count < 3 and not encoded.null_count:
            continue
        if span * count > LARGEST:
            found = np.unique(found, return_inverse=True)[1]
            span = len(found)
        found = found * count + pc.fill_null(encoded.indices, len(encoded.dictionary)).to_numpy()
        span *= count
    return np.split(found, np.cumsum(lengths)[:-1])


def positions(table: pa.Table, among: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """Of each row of ``table`` the number of the (first) row of ``among`` that equals it in ``columns``; else -1."""
    if not len(among):
        return np.full(len(table), -1)
    mine, theirs = codes([table, among], columns)
    at = pc.index_in(pa.array(mine), value_set=pa.array(theirs))
    return np.asarray(pc.fill_null(at, -1)).astype(np.int64)


def _coded(chunks: Sequence[pa.Array]) -> pa.DictionaryArray:
    """One column of one dictionary, of a column's pieces."""
    if not chunks:
        return pa.array([], pa.string()).dictionary_encode()
    if pa.types.is_dictionary(chunks[0].type):
        return chunks[0] if len(chunks) == 1 else pa.chunked_array(chunks).unify_dictionaries().combine_chunks()
    return pa.chunked_array(chunks).cast(pa.string()).combine_chunks().dictionary_encode()
