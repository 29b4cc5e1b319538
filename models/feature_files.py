"""Tables from files, CSV or Parquet by suffix, with patient ids as text and numbers read to the last bit."""

from __future__ import annotations

import csv
import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from feature_store.errors import FeatureTableError

KEYS = ("patient_id", "site")
NOT_FEATURES = ("outcome", "cohort", "partition", "case_id")
"""Columns that are no predictors whatever table they stand in: left out and said so."""
DIAGNOSTICS = "diagnostics_"
"""PyRadiomics' provenance columns begin so; they describe the extraction and not the patient."""
NO_HEADER = re.compile(r"Unnamed: \d+")
"""What a column without a header is called once read: most often the row numbers that a program wrote beside it."""
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
DECIMAL_POINT = re.compile(r"[-+]?\d+\.\d+([eE][-+]?\d+)?")


def read_table(path: Path) -> pd.DataFrame:
    """The file's rows, ``patient_id`` and ``site`` as text. FeatureTableError names the file and what it lacks."""
    if not path.is_file():
        raise FeatureTableError("There is no such file.", action="Check the path.", file=path.name)
    try:
        table = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _csv(path)
    except UnicodeDecodeError as error:
        raise FeatureTableError(
            "Its letters are not UTF-8.", action='Save it as "CSV UTF-8", or as Parquet.', file=path.name
        ) from error
    except (ValueError, OSError) as error:
        raise FeatureTableError(
            f"It cannot be read as a table ({type(error).__name__}).",
            action="Give a CSV with a header, or Parquet.",
            file=path.name,
        ) from error
    table.columns = pd.Index([str(column).strip() for column in table.columns])
    table = table[[column for column in table.columns if not NO_HEADER.fullmatch(column)]]
    if "patient_id" not in table.columns:
        raise FeatureTableError(
            f"It has {len(table.columns)} columns and none is patient_id.",
            action="Add a patient_id column, the same ids as in the outcome file.",
            file=path.name,
        )
    if not table.columns.is_unique:
        raise FeatureTableError(
            f"{int(table.columns.duplicated().sum())} column names are there twice.",
            action="Give every column a name of its own.",
            file=path.name,
        )
    for key in KEYS:
        if key in table.columns:
            table[key] = [_text(value) for value in table[key]]
    if (table["patient_id"] == "").any():
        raise FeatureTableError(
            f"{int((table['patient_id'] == '').sum())} rows have no patient_id.",
            action="Give every row a patient_id.",
            file=path.name,
        )
    return table


def features_of(table: pd.DataFrame, file: str) -> tuple[pd.DataFrame, list[str]]:
    """Feature columns as float64, text in them as missing, and a sentence on columns that were left out.

    FeatureTableError where no column has a number.
    """
    ignored = [c for c in table.columns if c in NOT_FEATURES]
    candidates = [c for c in table.columns if c not in (*KEYS, *ignored) and not c.startswith(DIAGNOSTICS)]
    numbers = {c: as_floats(table[c]) for c in candidates}
    kept = {c: values for c, values in numbers.items() if np.isfinite(values).any()}
    commas = sum(c not in kept and bool(_decimal_commas(table[c])) for c in candidates)
    if not kept:
        raise FeatureTableError(
            f"None of its {len(candidates)} columns holds a number"
            f"{f' ({commas} have decimal commas)' if commas else ''}.",
            action="Write decimal points, or semicolons between columns."
            if commas
            else "Give one column a feature, with numbers; text and empty columns are no features.",
            file=file,
        )
    left_out = len(table.columns) - len(kept) - sum(key in table.columns for key in KEYS)
    notes = [f"{left_out} columns of {file} are no features (text, empty, provenance or outcome)."] if left_out else []
    if commas:
        notes.append(f"{commas} of them have decimal commas, which were not read: write decimal points.")
    return pd.DataFrame(kept, index=table.index), notes


def as_floats(column: pd.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A column as float64, NaN where a cell is no number.

    Cells that came as text are converted one by one, correctly rounded: a column's numbers must not depend on
    whether another row of it holds a word.
    """
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.array([_float(value) for value in column], dtype=np.float64)


def _csv(path: Path) -> pd.DataFrame:
    """A CSV with commas, or as other languages' spreadsheets write it: semicolons (and decimal commas), or tabs."""
    separator, decimal, header = _dialect(path)
    twice = len(header) - len(set(header))
    if twice:  # read as a table, the second one would get another name
        raise FeatureTableError(
            f"{twice} column names are there twice.", action="Give every column a name of its own.", file=path.name
        )
    return pd.read_csv(
        path,
        sep=separator,
        decimal=decimal,
        dtype={key: str for key in KEYS},
        keep_default_na=True,
        float_precision="round_trip",
        low_memory=False,
        encoding="utf-8-sig",
    )


def _dialect(path: Path, looked_at: int = 200) -> tuple[str, str, list[str]]:
    """Separator, decimal sign and header of a CSV, by its header and first rows.

    Where commas separate, or any number has a decimal point, a comma between digits is no decimal sign but text.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        separator = max((",", ";", "\t"), key=first.count)
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
        rows = list(itertools.islice(csv.reader(file, delimiter=separator), looked_at))
    cells = [cell.strip() for row in rows for cell in row]
    comma, point = (any(map(sign.fullmatch, cells)) for sign in (DECIMAL_COMMA, DECIMAL_POINT))
    return separator, "," if separator != "," and comma and not point else ".", [name for name in header if name]


def _parquet(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path)
    # A table written by pandas may have its ids in the index.
    return table.reset_index() if "patient_id" in table.index.names else table


def _text(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _decimal_commas(column: pd.Series) -> bool:
    """Whether most of a column's texts are numbers with a decimal comma."""
    texts = [value.strip() for value in column.head(200) if isinstance(value, str)]
    return bool(texts) and 2 * sum(bool(DECIMAL_COMMA.fullmatch(text)) for text in texts) > len(texts)


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
