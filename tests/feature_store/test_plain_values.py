"""Numbers looked at where they lie in a file are those that Arrow decodes, or are left to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.plain_values import PlainFile

FLOAT64 = pa.float64()
PLAIN = {"compression": "none", "use_dictionary": False, "data_page_size": 2**26}


def written(path: Path, cells: pa.Array, group: int = 64, **options: Any) -> tuple[PlainFile, pq.ParquetFile]:
    table = pa.table({"patient_id": pa.array([f"p{i}" for i in range(len(cells))]), "values": cells})
    path.unlink(missing_ok=True)
    pq.write_table(table, path, row_group_size=group, **(PLAIN | options))
    file = pq.ParquetFile(path)
    return PlainFile(str(path), file.metadata), file


def lists(rows: int, length: int, kind: pa.DataType = FLOAT64) -> pa.Array:
    numbers = np.random.default_rng(rows * length).normal(size=(rows, length))
    numbers[0, 0] = np.nan
    return pa.array(numbers.tolist(), pa.list_(kind))


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 1), (64, 851), (130, 7), (64, 384), (200, 8)])
def test_regular_lists_are_taken_as_they_lie(tmp_path: Path, kind: pa.DataType, rows: int, length: int) -> None:
    cells = lists(rows, length, kind)
    plain, file = written(tmp_path / "a.parquet", cells)
    found = [plain.rows(group, "values") for group in range(file.num_row_groups)]
    assert all(part is not None for part in found)
    together: np.ndarray = np.concatenate(found)  # type: ignore[arg-type]
    assert together.dtype == kind.to_pandas_dtype()
    expected = file.read(["values"])["values"].combine_chunks().flatten().to_numpy().reshape(rows, length)
    assert together.tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        found[0][0, 0] = 1.0  # type: ignore[index]


CELL = st.one_of(st.none(), st.lists(st.one_of(st.none(), st.floats(allow_nan=False)), max_size=4))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CELL, min_size=1, max_size=40), st.integers(1, 20))
def test_whatever_is_not_regular_is_left_to_arrow(tmp_path: Path, cells: list[Any], group: int) -> None:
    plain, file = written(tmp_path / "a.parquet", pa.array(cells, pa.list_(pa.float64())), group)
    for number in range(file.num_row_groups):
        expected = file.read_row_group(number, columns=["values"])["values"].to_pylist()
        found = plain.rows(number, "values")
        lengths = {None if cell is None or None in cell else len(cell) for cell in expected}
        if found is None:
            assert lengths == {0} or None in lengths or len(lengths) > 1
        else:
            assert found.tolist() == expected


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy"},
        {"use_dictionary": True},
        {"data_page_size": 1000, "write_batch_size": 10},
        {"data_page_version": "2.0"},
        {"column_encoding": {"values.list.element": "BYTE_STREAM_SPLIT"}},
    ],
)
def test_other_writers_files_are_left_to_arrow(tmp_path: Path, options: dict[str, Any]) -> None:
    plain, _ = written(tmp_path / "a.parquet", lists(64, 90), **options)
    assert plain.rows(0, "values") is None
    assert plain.rows(0, "patient_id") is None


def test_a_file_that_is_cut_short_is_left_to_arrow(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    _, file = written(path, lists(64, 90))
    path.write_bytes(path.read_bytes()[:20_000])
    assert PlainFile(str(path), file.metadata).rows(0, "values") is None
