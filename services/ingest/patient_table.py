"""Tables that a site keeps of its patients, a row each or several, read whole and checked row by row."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from feature_store.errors import InputError, UsageError
from feature_store.snapshot import Snapshot
from pipelines.cases.broken_rules import key_path
from services.ingest.messages import Finding

MOST_ROWS = 200_000
"""A table of more is a mistake, or belongs cut by years."""

Row = TypeVar("Row", bound=BaseModel)

Pseudonym = Callable[[str, str], str]
"""What the store knows a site's patient by, from the site and the id that the site writes."""


@dataclass
class UsableRows:
    """Rows that keep the rules, each with its site and patient and where it stands, and a finding for every other."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def read_table(
    path: Path, columns: Sequence[str], needed: Collection[str], error: type[InputError]
) -> list[dict[str, object]]:
    """Rows of a CSV or Parquet file with those ``columns``. Raises ``error``: unreadable, too long, other columns."""
    read = _parquet_rows if path.suffix == ".parquet" else _csv_rows
    try:
        found, rows = read(path)
        if len(found) == 1 and re.search(r"[;\t|]", found[0]):
            raise error("Its fields are not separated by commas.", action="Save it as CSV with commas.", file=path.name)
        kept = list(rows)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError):  # pyarrow's errors are ValueErrors or OSErrors
        raise error("The file cannot be read.", action="Give a CSV or Parquet file.", file=path.name) from None
    if len(kept) > MOST_ROWS:
        raise error(f"The table has more than {MOST_ROWS} rows.", action="Send it in parts.", file=path.name)
    unknown, missing = sorted({*found} - {*columns}), sorted({*needed} - {*found})
    if unknown or missing:
        shown = ", ".join(key_path((name,)) for name in unknown)
        what = f"unknown columns: {shown}" if unknown else f"missing columns: {', '.join(missing)}"
        raise error(f"{what}.", action=f"Columns are {', '.join(columns)}.", file=path.name)
    return kept


def _csv_rows(path: Path) -> tuple[list[str], Iterable[dict[str, object]]]:
    def rows() -> Iterator[dict[str, object]]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file)):
                if number > MOST_ROWS:
                    return
                if None in row:
                    raise csv.Error("a row is longer than the header")
                yield dict(row)

    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file).fieldnames or []), rows()


def _parquet_rows(path: Path) -> tuple[list[str], Iterable[dict[str, object]]]:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    if file.metadata.num_rows > MOST_ROWS:
        return file.schema_arrow.names, ({} for _ in range(MOST_ROWS + 1))
    return file.schema_arrow.names, file.read().to_pylist()


def usable_rows(
    rows: Iterable[Mapping[str, object]],
    site: str,
    snapshot: Snapshot,
    parse: Callable[[dict[str, object], str], Mapping[str, Any]],
    pseudonym: Pseudonym,
    error: type[InputError],
    once: Sequence[str] = (),
) -> UsableRows:
    """What ``parse(row without site and patient_id, which row)`` gives, of patients who have a case at the site.

    ``once``: columns in which two rows of a patient must differ; the first one counts.
    """
    found = UsableRows()
    seen: set[tuple[Any, ...]] = set()
    known = set(snapshot.table("cases", ["patient_id"], where={"site": site})["patient_id"].to_pylist())
    for number, row in enumerate(rows, start=1):
        try:
            usable = _usable(dict(row), site, known, f"row {number}", parse, pseudonym, error)
            key = tuple(usable[name] for name in ("patient_id", *once))
            if once and key in seen:
                raise error(
                    f"It has the {', '.join(once)} of an earlier row of the patient.",
                    action="Send each once.",
                    file=f"row {number}",
                )
            seen.add(key)
            found.rows.append(usable)
            found.places.append(f"row {number}")
        except (InputError, UsageError) as refused:  # UsageError: what stands there is no patient id
            found.findings.append(
                Finding(code=refused.code, file=refused.file, message=refused.message, action=refused.action)
            )
    return found


def _usable(
    row: dict[str, object],
    site: str,
    known: Collection[str],
    where: str,
    parse: Callable[[dict[str, object], str], Mapping[str, Any]],
    pseudonym: Pseudonym,
    error: type[InputError],
) -> dict[str, Any]:
    named = row.pop("site", site)
    if named not in (site, "", None):
        raise error("It names another site.", action=f"Send it as that site; this is {site}.", file=where)
    written = str(row.pop("patient_id", "") or "")
    patient_id = pseudonym(site, written) if written else ""
    if patient_id not in known:
        raise error("There is no case of this patient.", action="Ingest the case first.", file=where)
    return {"site": site, "patient_id": patient_id, **parse(row, where)}


def parse_row(model: type[Row], row: Mapping[str, object], where: str, error: type[InputError]) -> Row:
    """A row of text or JSON as its wire type. Raises ``error`` naming column and rule, never the value."""
    try:
        return model.model_validate({k: None if v == "" else v for k, v in row.items()}, strict=False)
    except ValidationError as thrown:
        found = thrown.errors(include_input=False, include_url=False, include_context=False)
        rules = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in found)
        raise error(f"{rules}.", action=f"Columns are {', '.join(model.model_fields)}.", file=where) from None
