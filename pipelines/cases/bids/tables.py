"""JSON and TSV files of a BIDS data set, read strictly: errors name the file and the rule."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from feature_store.errors import BidsError

MAX_BYTES = 2**24


def read_json(path: Path, file: str) -> dict[str, Any]:
    """The object in a JSON file. Raises BidsError."""
    try:
        data = json.loads(_text(path, file))
    except (ValueError, RecursionError):
        raise BidsError("it is not valid JSON.", action="Check commas, quotes and brackets.", file=file) from None
    if not isinstance(data, dict):
        raise BidsError("it is not a JSON object.", action="Start it with {.", file=file)
    return data


def read_tsv(path: Path, needed: tuple[str, ...], file: str) -> list[dict[str, str]]:
    """Rows of a tab-separated file with a header. Raises BidsError: columns missing or twice, ragged rows."""
    try:
        lines = list(csv.reader(_text(path, file).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    except csv.Error:
        raise BidsError("it is not tab-separated text.", action="Save it as TSV.", file=file) from None
    header = [column.strip() for column in lines[0]] if lines else []
    missing = [column for column in needed if column not in header]
    if missing:
        raise BidsError(
            f"the column {' and '.join(missing)} is missing.", action="Separate columns by tabs.", file=file
        )
    if len(set(header)) != len(header):
        raise BidsError("a column stands twice.", action="Keep one of them.", file=file)
    rows = [line for line in lines[1:] if any(cell.strip() for cell in line)]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise BidsError(
                f"row {number} has {len(row)} cells and the header {len(header)}.",
                action="Write n/a where a value is missing.",
                file=file,
            )
    return [{column: cell.strip() for column, cell in zip(header, row, strict=True)} for row in rows]


def _text(path: Path, file: str) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BidsError(f"it is larger than {MAX_BYTES >> 20} MB.", action="Send a smaller file.", file=file)
        return path.read_bytes().decode("utf-8-sig")
    except OSError:
        raise BidsError("it cannot be read.", action="Check that it is there and readable.", file=file) from None
    except UnicodeDecodeError:
        raise BidsError("it is not UTF-8 text.", action="Save it as UTF-8.", file=file) from None
