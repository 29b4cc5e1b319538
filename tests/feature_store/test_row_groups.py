"""What is read row group by row group is what Arrow's dataset reads of the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from feature_store import folder_log, row_groups
from feature_store.errors import StoreError
from feature_store.files import DataFiles
from feature_store.folder_log import ROW_GROUP
from feature_store.row_groups import RowGroups, ahead
from feature_store.store import FeatureStore
from tests.feature_store.examples import case, feature_set, radiomics

PATIENTS = ROW_GROUP * 2 + 5


@pytest.fixture
def files(folder_store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> DataFiles:
    """Two sites; one file of three row groups, one of one."""
    monkeypatch.setattr(folder_log, "ROW_GROUP_BYTES", 0)  # rows of three values would all fit into one
    folder_store.push({"feature_sets": [feature_set()]}, kind="feature_set", source="extraction")
    for site, count in (("b", 3), ("a", PATIENTS)):  # the first rows of a table are written by the library
        rows = [radiomics(f"p{i:04d}", [float(i), 1.0, 2.0], site=site) for i in range(count)]
        folder_store.push({"radiomics": rows}, kind="features", source="extraction")
    found = folder_store.log("radiomics").files()
    assert found is not None
    return found


def test_rows_are_those_of_the_dataset(files: DataFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [*files.schema.names]
    expected = files.dataset().to_table(columns=columns)
    stored = RowGroups(files.fragments(), files.schema)
    assert stored.rows == len(expected) == PATIENTS + 3
    assert stored.table(columns).equals(expected.cast(files.schema))
    monkeypatch.setattr(row_groups, "PART_GROUPS", 1)
    parts = stored.parts()
    assert [part.start for part in parts] == np.append(0, np.cumsum([part.rows for part in parts])[:-1]).tolist()
    assert len(parts) == 4
    together = [row for part in ahead(lambda part: stored.read(part, columns), parts) for row in part.to_pylist()]
    assert together == expected.to_pylist()
    for row in (0, ROW_GROUP, PATIENTS, PATIENTS + 2):
        part = stored.group(int(stored.group_of(np.array([row]))[0]))
        cell = stored.read(part, ["patient_id"])["patient_id"][row - part.start]
        assert cell == expected["patient_id"][row]


@pytest.mark.parametrize("far", [False, True])
def test_lists_are_those_of_the_dataset(files: DataFiles, monkeypatch: pytest.MonkeyPatch, far: bool) -> None:
    """Where they lie in a file, and as they come from object storage."""
    if far:
        monkeypatch.setattr(RowGroups, "_near", lambda self, file: None)
    stored = RowGroups(files.fragments(), files.schema)
    found = [cell for part in stored.parts() for cells in stored.lists(part, "values") for cell in cells.tolist()]
    assert found == files.dataset().to_table(columns=["values"])["values"].to_pylist()
    assert any(stored._mapped.values()) is not far


def test_only_row_groups_that_may_match_are_read(files: DataFiles) -> None:
    one = RowGroups(files.fragments({"site": "a", "patient_id": f"p{ROW_GROUP + 1:04d}"}), files.schema)
    assert one.rows == ROW_GROUP
    assert f"p{ROW_GROUP + 1:04d}" in one.table(["patient_id"])["patient_id"].to_pylist()
    none = RowGroups(files.fragments({"site": "c"}), files.schema)
    assert none.rows == 0
    assert none.table(["patient_id", "site"]).num_rows == 0
    assert none.parts() == []


def test_a_file_that_went_is_said_by_name(folder_store: FeatureStore) -> None:
    folder_store.push(case("p1"), kind="case", source="a")
    files = folder_store.log("clinical").files()
    assert files is not None
    for file in (Path(folder_store.uri) / "tables" / "clinical").glob("site=*/*.parquet"):
        file.unlink()
    with pytest.raises(StoreError, match="went while it was read"):
        RowGroups(files.fragments(), files.schema).table(["patient_id"])


def test_work_ahead_comes_in_order_and_fails_where_it_failed() -> None:
    assert list(ahead(lambda n: n * n, range(50))) == [n * n for n in range(50)]

    def odd(n: int) -> int:
        if n == 20:
            raise StoreError("No.")
        return n

    found = ahead(odd, range(1000))
    assert [next(found) for _ in range(20)] == [*range(20)]
    with pytest.raises(StoreError, match="No"):
        next(found)
