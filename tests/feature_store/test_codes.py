"""Rows have the same code exactly where they are equal, however many there are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store import codes as module
from feature_store.codes import coded, codes, positions

TEXT = st.one_of(st.none(), st.sampled_from(["", "a", "ab", "b", "bc", "a|b", "1:a"]))
ROWS = st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=30)
COLUMNS = ("x", "y", "z")


def table(rows: list[tuple[str | None, ...]]) -> pa.Table:
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(3)]
    chunked = [pa.chunked_array([c.slice(0, len(c) // 2), c.slice(len(c) // 2)], pa.string()) for c in columns]
    return pa.table(chunked, names=COLUMNS)


@pytest.mark.parametrize(("few", "largest"), [(200, 2**62), (0, 2**62), (0, 2)])
def test_codes_are_equal_where_rows_are(monkeypatch: pytest.MonkeyPatch, few: int, largest: int) -> None:
    """One by one, column by column, and with so many distinct values that codes have to be numbered anew."""
    monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(module, "LARGEST", largest)

    @given(ROWS, ROWS)
    def check(left: list[tuple[str | None, ...]], right: list[tuple[str | None, ...]]) -> None:
        found = codes([table(left), table(right)], COLUMNS)
        assert [len(part) for part in found] == [len(left), len(right)]
        number = dict(zip([*left, *right], np.concatenate(found).tolist(), strict=True))
        assert [number[row] for row in [*left, *right]] == np.concatenate(found).tolist()
        assert len(set(number.values())) == len(number)
        once = codes([coded(table(left), COLUMNS), coded(table(right), COLUMNS)], COLUMNS)
        assert np.concatenate(once).tolist() == np.concatenate(found).tolist()
        at = positions(table(left), table(right), COLUMNS)
        assert at.tolist() == [right.index(row) if row in right else -1 for row in left]

    check()
