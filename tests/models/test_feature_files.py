"""CSVs as spreadsheets write them: another separator, decimal commas, no header, other letters, a name twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.errors import FeatureTableError
from models.feature_files import features_of, read_table


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame(rng.normal(size=(30, 4)) * 10.0 ** rng.integers(-9, 9, (30, 4)), columns=list("abcd"))
    numbers.insert(0, "patient_id", [f"{i:03d}" for i in range(30)])
    return numbers


@pytest.mark.parametrize(("separator", "decimal"), [(";", ","), (";", "."), ("\t", "."), ("\t", ","), (",", ".")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_spreadsheets_write_is_read_to_the_last_bit(
    table: pd.DataFrame, tmp_path: Path, separator: str, decimal: str, encoding: str
) -> None:
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False, sep=separator, decimal=decimal, encoding=encoding)
    features, notes = features_of(read_table(path), path.name)
    assert features.to_numpy().tobytes() == table[list("abcd")].to_numpy().tobytes()
    assert notes == []
    assert read_table(path)["patient_id"].tolist() == table["patient_id"].tolist()


def test_row_numbers_that_a_program_wrote_beside_the_table_are_no_feature(table: pd.DataFrame, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "t.csv")
    assert list(read_table(tmp_path / "t.csv").columns) == list(table.columns)


def test_commas_within_text_are_no_decimals(table: pd.DataFrame, tmp_path: Path) -> None:
    table.assign(levels="4,5").to_csv(tmp_path / "t.csv", index=False, sep=";")
    assert set(read_table(tmp_path / "t.csv")["levels"]) == {"4,5"}


def test_what_cannot_be_read_says_what_to_do(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False, decimal=",")
    with pytest.raises(FeatureTableError, match="4 have decimal commas"):
        features_of(read_table(path), path.name)
    table.rename(columns={"a": "größe"}).to_csv(path, index=False, encoding="latin-1")
    with pytest.raises(FeatureTableError, match="not UTF-8"):
        read_table(path)
    table.set_axis(["patient_id", "a", "a", "c", "d"], axis=1).to_csv(path, index=False)
    with pytest.raises(FeatureTableError, match="1 column names are there twice"):
        read_table(path)
