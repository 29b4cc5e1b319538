"""Rows at the door: checked against their declaration, hashed, and turned into Arrow.

A row that breaks a rule is set aside with column, rule and message; the others go on. Messages never
carry a value. What is not a row of the table at all (an unknown column, a required column nobody
sent) is a SchemaError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import SchemaError
from feature_store.schemas import Column, TableSchema

Rows: TypeAlias = Sequence[Mapping[str, Any]] | pa.Table


@dataclass(frozen=True)
class RejectedRow:
    """``row`` counts from 0 in what was pushed; ``rule`` is a stable word programs can match on."""

    table: str
    row: int
    column: str
    rule: str
    message: str


class Rule(NamedTuple):
    """What the other rows of the store ask of a row; ``broken`` marks those that break it."""

    column: str
    name: str
    message: str
    broken: Callable[[pa.Table], np.ndarray]


def check_rows(schema: TableSchema, rows: Rows, further: Sequence[Rule] = ()) -> tuple[pa.Table, list[RejectedRow]]:
    """Split ``rows`` into those that keep every rule (declared columns, declared types) and the rejected.

    A column that is absent is null; rules are ``type``, ``required``, ``not_empty``, ``finite``, ``range``,
    ``allowed`` and ``unique`` (two rows of one push cannot be revisions of one key; the first one stays), and
    the names of the ``further`` ones.
    Raises SchemaError for a column the table does not have, or a required one that no row has.
    """
    _check_columns(schema, rows)
    table, positions, rejected = _typed(schema, rows)
    for column in schema.columns:
        for rule, message, broken in _broken(schema, column, table[column.name]):
            rejected += _reject(schema, positions, column.name, rule, message, broken)
    table, positions = _without(table, positions, rejected)
    for asked in further:
        rejected += _reject(schema, positions, asked.column, asked.name, asked.message, asked.broken(table))
        table, positions = _without(table, positions, rejected)
    repeated = _repeated(table, schema.key)
    rejected += _reject(schema, positions, "+".join(schema.key), "unique", "repeats a key of this push", repeated)
    table, _ = _without(table, positions, rejected)
    return table, sorted(rejected, key=lambda r: (r.row, r.column))


def count_broken(schema: TableSchema, table: pa.Table) -> dict[str, int]:
    """How many cells of stored rows break each rule of their columns (a rule that none breaks is left out)."""
    counts: dict[str, int] = {}
    for column in schema.columns:
        for rule, _, broken in _broken(schema, column, table[column.name]):
            if broken.any():
                counts[rule] = counts.get(rule, 0) + int(broken.sum())
    return counts


def row_hashes(schema: TableSchema, table: pa.Table) -> pa.Array:
    """Hash of every row over the declared columns, 32 hex digits.

    Null columns do not enter it, so a nullable column added later leaves old rows' hashes as they are.
    """
    digests = [hashlib.sha256() for _ in range(table.num_rows)]
    for column in schema.columns:
        tag = column.name.encode() + b"\0"
        for digest, cell in zip(digests, _cells(table[column.name], column.type), strict=True):
            if cell is not None:
                digest.update(tag + len(cell).to_bytes(8, "little"))
                digest.update(cell)
    return pa.array([digest.hexdigest()[:32] for digest in digests], pa.string())


def withdrawal_hashes(schema: TableSchema, table: pa.Table) -> pa.Array:
    """The ``row_hash`` of revisions that say their key holds nothing: of the key alone, and unlike any row's."""
    names = composite(table, schema.key).to_pylist()
    digests = [hashlib.sha256(b"withdrawn\0" + name.encode()).hexdigest()[:32] for name in names]
    return pa.array(digests, pa.string())


def composite(table: pa.Table, names: Sequence[str]) -> pa.Array:
    """One string a row from several columns, equal only where all of them are equal."""
    parts = [pc.cast(table[name], pa.string()) for name in names]
    # lengths make ("a", "bc") differ from ("ab", "c") whatever the ids contain
    parts = [pc.binary_join_element_wise(pc.cast(pc.utf8_length(p), pa.string()), p, ":") for p in parts]
    joined = pc.binary_join_element_wise(*parts, "|") if len(parts) > 1 else parts[0]
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _check_columns(schema: TableSchema, rows: Rows) -> None:
    names = set(rows.column_names) if isinstance(rows, pa.Table) else {name for row in rows for name in row}
    known = set(schema.column_names)
    if unknown := sorted(names - known):
        raise SchemaError(
            f"Table {schema.name} has no column {', '.join(map(str, unknown))}.",
            action=f"Its columns are {', '.join(schema.column_names)}.",
        )
    required = {column.name for column in schema.columns if not column.nullable}
    if len(rows) and (missing := sorted(required - names)):
        raise SchemaError(f"Rows for {schema.name} lack {', '.join(missing)}.", action="Send every required column.")


# --- types -------------------------------------------------------------------------------------
def _typed(schema: TableSchema, rows: Rows) -> tuple[pa.Table, list[int], list[RejectedRow]]:
    """Rows as an Arrow table of the declared types, their positions, and those of a wrong type."""
    if isinstance(rows, pa.Table):
        try:
            columns = [
                rows[c.name].cast(c.type) if c.name in rows.column_names else pa.nulls(len(rows), c.type)
                for c in schema.columns
            ]
            return pa.table(columns, names=list(schema.column_names)), list(range(len(rows))), []
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            rows = rows.to_pylist()  # slow, but finds the rows that do not fit
    rejected = [
        RejectedRow(schema.name, i, column.name, "type", f"{column.name} is not of type {column.type}")
        for column in schema.columns
        for i, row in enumerate(rows)
        if not _fits(column.type, row.get(column.name))
    ]
    bad = {r.row for r in rejected}
    positions = [i for i in range(len(rows)) if i not in bad]
    columns = [pa.array([rows[i].get(c.name) for i in positions], c.type) for c in schema.columns]
    return pa.table(columns, names=list(schema.column_names)), positions, rejected


def _fits(kind: pa.DataType, value: Any) -> bool:
    # Arrow itself would cut 1.5 to 1 and take "abc" for a list of three strings.
    if value is None:
        return True
    if pa.types.is_list(kind):
        if isinstance(value, np.ndarray):
            wanted = {"string": "UO", "int64": "iu"}.get(str(kind.value_type), "fiu")
            return value.ndim == 1 and value.dtype.kind in wanted
        return isinstance(value, (list, tuple)) and all(v is not None and _fits(kind.value_type, v) for v in value)
    return _SCALARS[str(kind)](value)


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair is no text
        return False
    return True


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63


def _is_float(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) or _is_int(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_time(value: Any) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None


_SCALARS: dict[str, Callable[[Any], bool]] = {
    "string": _is_text,
    "int64": _is_int,
    "double": _is_float,
    "float": _is_float,
    "bool": _is_bool,
    "timestamp[us, tz=UTC]": _is_time,
}


# --- rules -------------------------------------------------------------------------------------
def _broken(schema: TableSchema, column: Column, values: pa.ChunkedArray) -> Iterable[tuple[str, str, np.ndarray]]:
    """Rules of one column: (rule, message, mask of the rows that break it)."""
    name = column.name
    if not column.nullable:
        yield "required", f"{name} is missing", _mask(values.is_null())
    if name in schema.key and pa.types.is_string(column.type):
        yield "not_empty", f"{name} is empty", _mask(pc.equal(values, ""))
    if pa.types.is_floating(column.type):
        yield "finite", f"{name} is not a finite number", _mask(pc.invert(pc.is_finite(values)))
    unit = f" {column.unit}" if column.unit else ""
    if column.low is not None:
        yield "range", f"{name} is below {column.low:g}{unit}", _mask(pc.less(values, column.low))
    if column.high is not None:
        yield "range", f"{name} is above {column.high:g}{unit}", _mask(pc.greater(values, column.high))
    if pa.types.is_list(column.type):
        yield "type", f"{name} holds a null", _holds_null(values)
    if column.values:
        known = pc.or_(pc.is_in(values, value_set=pa.array(column.values)), values.is_null())
        shown = ", ".join(column.values[:8]) + (", …" if len(column.values) > 8 else "")
        yield "allowed", f"{name} is none of {shown}", _mask(pc.invert(known))


def _mask(broken: Any) -> np.ndarray:
    return np.asarray(pc.fill_null(broken, False))


def _holds_null(values: pa.ChunkedArray) -> np.ndarray:
    broken = np.zeros(len(values), bool)
    cells = values.combine_chunks()
    inner = pc.list_flatten(cells)
    if inner.null_count:
        broken[np.asarray(pc.list_parent_indices(cells))[_mask(inner.is_null())]] = True
    return broken


def _repeated(table: pa.Table, key: Sequence[str]) -> np.ndarray:
    seen: set[str] = set()
    repeated = np.zeros(table.num_rows, bool)
    for i, name in enumerate(composite(table, key).to_pylist()):
        repeated[i] = name in seen
        seen.add(name)
    return repeated


def _reject(
    schema: TableSchema, positions: Sequence[int], column: str, rule: str, message: str, broken: np.ndarray
) -> list[RejectedRow]:
    return [RejectedRow(schema.name, positions[i], column, rule, message) for i in np.flatnonzero(broken).tolist()]


def _without(table: pa.Table, positions: list[int], rejected: Sequence[RejectedRow]) -> tuple[pa.Table, list[int]]:
    bad = {r.row for r in rejected}
    keep = [i for i, position in enumerate(positions) if position not in bad]
    if len(keep) == len(positions):
        return table, positions
    return table.take(pa.array(keep, pa.int64())), [positions[i] for i in keep]


# --- hashing -----------------------------------------------------------------------------------
def _cells(values: pa.ChunkedArray, kind: pa.DataType) -> Iterable[bytes | None]:
    """Bytes of every cell, the same for equal values wherever they come from."""
    if pa.types.is_list(kind) and not pa.types.is_string(kind.value_type):
        for chunk in values.chunks:
            yield from _number_lists(chunk)
    elif pa.types.is_list(kind):
        for cell in values.to_pylist():
            yield None if cell is None else b"\0".join(v.encode() for v in cell) + str(len(cell)).encode()
    elif pa.types.is_floating(kind):
        for cell in values.to_pylist():
            yield None if cell is None else np.float64(cell).tobytes()
    else:
        texts = values.cast(pa.int64()) if pa.types.is_timestamp(kind) else values
        for cell in texts.to_pylist():
            yield None if cell is None else str(cell).encode()


def _number_lists(chunk: pa.ListArray) -> Iterable[bytes | None]:
    flat = chunk.values.to_numpy(zero_copy_only=False)
    if flat.dtype.kind == "f" and np.isnan(flat).any():
        flat = np.where(np.isnan(flat), np.array(np.nan, flat.dtype), flat)  # one bit pattern for every NaN
    ends = chunk.offsets.to_numpy()
    valid = chunk.is_valid().to_numpy(zero_copy_only=False)
    for i in range(len(chunk)):
        yield flat[ends[i] : ends[i + 1]].tobytes() if valid[i] else None
