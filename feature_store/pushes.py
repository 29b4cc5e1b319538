"""A push: rows for several tables that become visible together, or not at all.

Rows are checked, those that say nothing new are left out, the data tables are appended to (in
parallel), and one row in ``pushes`` is committed last. Whatever stops a push before that leaves rows
that no reader sees.

A push means "these keys have these values from now on", or, of keys that it withdraws, "these keys hold
nothing from now on". When others commit between reading and
committing, rows left out as unchanged are looked at again, so that the meaning holds in commit order.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import time_ns
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.declared import DECLARATIONS, DeclaredLengths
from feature_store.delta import DeltaLog
from feature_store.erasures import KIND, Erased, erased, recorded, refused
from feature_store.errors import Conflict, UsageError
from feature_store.files import Where
from feature_store.push_log import PushLog
from feature_store.rows import RejectedRow, Rows, Rule, check_rows, composite, row_hashes, withdrawal_hashes
from feature_store.schemas import TableSchema
from feature_store.snapshot import Snapshot, table_schema

PARALLEL_APPENDS = 4
PATIENTS_BY_NAME = 2000  # a push of more is compared with all of its sites' rows


FIXED = {
    "feature_sets": ("settings", "feature_names"),
    "encoders": ("settings", "checkpoint_hash", "dimension"),
}
"""Columns that say what a key stands for: values are stored under it, so they never change."""

Guard: TypeAlias = Collection[str] | Mapping[str, Where | None]
"""Tables (or of each, the keys that matter) that must not have changed for a push to go through."""


@dataclass(frozen=True)
class PushReceipt:
    """What became of a push; ``sequence`` is None when nothing was new and so nothing was written."""

    push_id: str
    sequence: int | None
    written: dict[str, int]
    unchanged: dict[str, int]
    rejected: list[RejectedRow]
    withdrawn: dict[str, int] = field(default_factory=dict)
    """Keys that held something and hold nothing any more; counted in ``written`` as well."""


@dataclass
class _Part:
    """One table of a push: checked rows with their hash, and which of them have been written.

    ``withdrawn`` marks the rows that say their key holds nothing any more.
    """

    schema: TableSchema
    rows: pa.Table
    keys: pa.Array
    withdrawn: np.ndarray
    written: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.written = np.zeros(len(self.rows), bool)

    def stale(self, snapshot: Snapshot) -> np.ndarray:
        """Mask of the rows not written yet that differ from their key's latest revision."""
        if self.written.all():
            return np.zeros(len(self.rows), bool)
        heads = snapshot.heads(self.schema.name, _neighbourhood(self.schema, self.rows), also=["row_hash"])
        if heads is None or not len(heads.keys):
            return ~self.written & ~self.withdrawn
        at = pc.index_in(self.keys, value_set=composite(heads.keys, self.schema.key))
        hashes = heads.keys["row_hash"].take(at)
        same = np.asarray(pc.fill_null(pc.equal(hashes, self.rows["row_hash"]), False))
        return np.where(self.withdrawn, np.asarray(at.is_valid()), ~same) & ~self.written


class Pusher:
    """Writes pushes through the tables' logs."""

    def __init__(self, logs: Mapping[str, DeltaLog], push_log: PushLog) -> None:
        self._logs = logs
        self._push_log = push_log
        self._erased: tuple[int, Erased] = (0, Erased())
        self._lengths = DeclaredLengths()
        self._near = all(log.near for log in logs.values())

    def push(
        self,
        tables: Mapping[str, Rows],
        kind: str,
        source: str,
        unless_changed: Guard = (),
        since: int | None = None,
        withdraw: Mapping[str, Rows] | None = None,
    ) -> PushReceipt:
        """See :meth:`feature_store.store.FeatureStore.push`."""
        before = self._snapshot()
        erased_before = self._erased_of(before.pushes)
        rules = (
            [] if kind == KIND else [Rule("patient_id", "erased", "is of a patient who was erased", erased_before.mask)]
        )
        parts: list[_Part] = []
        rejected: list[RejectedRow] = []
        for name in sorted(tables, key=lambda one: one in DECLARATIONS):  # values after what declares them
            schema = table_schema(name)
            pushed = {part.schema.name: part.rows for part in parts}
            valid, bad = check_rows(schema, tables[name], [*rules, *self._lengths.rules(name, pushed, before)])
            rejected += bad
            valid = valid.append_column("row_hash", row_hashes(schema, valid))
            parts.append(_Part(schema, valid, composite(valid, schema.key), np.zeros(len(valid), bool)))
        for name, keys in (withdraw or {}).items():
            if gone := _withdrawals(before, table_schema(name), keys):
                parts.append(gone)
        if any(row.rule == "erased" for row in rejected) and not any(len(part.rows) for part in parts):
            raise refused()
        _refuse_other_meaning(parts, before)
        push_id = f"{time_ns():016x}{uuid.uuid4().hex[:16]}"
        new = [part.stale(before) for part in parts]
        sequence = None
        if any(mask.any() for mask in new):
            self._append(parts, new, push_id)
            seen = before.sequence

            def tables_json(pushes: pa.Table) -> str:
                nonlocal seen
                since_read = pushes.slice(seen)
                self._refuse(pushes, before.sequence if since is None else since, unless_changed)
                if kind != KIND and (erased := self._erased_of(pushes)) is not erased_before:
                    self._refuse_erased(parts, erased, push_id)
                touched = _tables(since_read)
                if touched & set(FIXED):
                    _refuse_other_meaning(parts, Snapshot(self._logs, pushes))
                self._append(parts, [self._again(p, touched, pushes) for p in parts], push_id)
                seen = len(pushes)
                return json.dumps({name: n for name, n in _counts(parts, lambda part: part.written).items() if n})

            sequence = self._push_log.commit(push_id, kind, source, tables_json)
        return PushReceipt(
            push_id=push_id,
            sequence=sequence,
            written=_counts(parts, lambda part: part.written),
            unchanged=_counts(parts, lambda part: ~part.written & ~part.withdrawn),
            rejected=rejected,
            withdrawn=_counts([p for p in parts if p.withdrawn.any()], lambda part: part.written),
        )

    def _snapshot(self) -> Snapshot:
        return Snapshot(self._logs, self._push_log.rows())

    def _erased_of(self, pushes: pa.Table) -> Erased:
        """Who may not be pushed, read again only when somebody was erased since."""
        count = recorded(pushes)
        if count != self._erased[0]:
            self._erased = (count, erased(Snapshot(self._logs, pushes)))
        return self._erased[1]

    def _refuse_erased(self, parts: list[_Part], erased: Erased, push_id: str) -> None:
        """Give the push up where it has a patient who was erased while it was under way, and take its rows back."""
        if any(erased.mask(part.rows).any() for part in parts):
            for part in parts:
                if part.written.any():
                    self._logs[part.schema.name].remove_pushes([push_id])
            raise refused()

    def _again(self, part: _Part, touched: set[str], pushes: pa.Table) -> np.ndarray:
        if part.schema.name not in touched:
            return np.zeros(len(part.rows), bool)
        return part.stale(Snapshot(self._logs, pushes))

    def _refuse(self, pushes: pa.Table, since: int, unless_changed: Guard) -> None:
        guarded = unless_changed if isinstance(unless_changed, Mapping) else dict.fromkeys(unless_changed)
        for name in sorted(_tables(pushes.slice(since)) & set(guarded)):
            heads = Snapshot(self._logs, pushes).heads(name, guarded[name])
            if heads is not None and (np.asarray(heads.newest()["push_sequence"]) > since).any():
                raise Conflict(f"Another push changed {name} in the meantime.", action="Read again, then try again.")

    def _append(self, parts: list[_Part], masks: list[np.ndarray], push_id: str) -> None:
        jobs: list[Callable[[], None]] = []
        for part, mask in zip(parts, masks, strict=True):
            if mask.any():
                rows = part.rows.filter(pa.array(mask))
                rows = rows.append_column("push_id", pa.array([push_id] * len(rows), pa.string()))
                gone = pa.array([True if one else None for one in part.withdrawn[mask]], pa.bool_())
                rows = rows.append_column("withdrawn", gone)
                arrow = part.schema.arrow()
                rows = rows.select(arrow.names).cast(arrow)
                log = self._logs[part.schema.name]
                jobs.append(lambda log=log, rows=rows: log.append(rows))  # type: ignore[misc]
        if len(jobs) == 1 or self._near:
            for job in jobs:
                job()
        elif jobs:
            with ThreadPoolExecutor(min(PARALLEL_APPENDS, len(jobs))) as pool:
                for done in [pool.submit(job) for job in jobs]:
                    done.result()
        for part, mask in zip(parts, masks, strict=True):
            part.written |= mask


def _refuse_other_meaning(parts: Sequence[_Part], view: Snapshot) -> None:
    """Raise UsageError where a key would stand for something else than it does in ``view``."""
    for part in parts:
        columns = FIXED.get(part.schema.name, ())
        if not columns or part.withdrawn.any():
            continue
        (key,) = part.schema.key
        rows = {row[key]: row for row in part.rows.select([key, *columns]).to_pylist()}
        for there in view.table(part.schema.name, [key, *columns], {key: list(rows)}).to_pylist():
            if there != rows[there[key]]:
                raise UsageError(
                    f"{there[key]} is in {part.schema.name} already, with another meaning.",
                    action="A changed setting or list of features is a new one: give it a name of its own.",
                )


def _neighbourhood(schema: TableSchema, rows: pa.Table) -> dict[str, list[object]]:
    """A filter on key columns that Arrow can push down and that holds every key of ``rows``."""
    where = {}
    for column in ("site", "patient_id", schema.key[0]):
        if column in schema.key:
            values = pc.unique(rows[column]).to_pylist()
            if len(values) <= PATIENTS_BY_NAME:
                where[column] = values
    return where


def _withdrawals(before: Snapshot, schema: TableSchema, keys: Rows) -> _Part | None:
    """Rows that withdraw those of ``keys`` that hold something in ``before``; None where none does."""
    wanted = keys if isinstance(keys, pa.Table) else pa.Table.from_pylist([dict(key) for key in keys])
    heads = before.heads(schema.name, _neighbourhood(schema, wanted)) if len(wanted) else None
    if heads is None:
        return None
    columns = list(schema.column_names)
    rows = heads.table(columns)
    rows = rows.filter(pc.is_in(composite(rows, schema.key), value_set=composite(wanted, schema.key)))
    if not len(rows):
        return None
    for at, column in enumerate(schema.columns):
        if column.nullable:
            rows = rows.set_column(at, rows.schema.field(at), pa.nulls(len(rows), column.type))
    rows = rows.append_column("row_hash", withdrawal_hashes(schema, rows))
    return _Part(schema, rows, composite(rows, schema.key), np.ones(len(rows), bool))


def _counts(parts: Sequence[_Part], mask: Callable[[_Part], np.ndarray]) -> dict[str, int]:
    """How many rows the mask marks, by table."""
    counts: dict[str, int] = {}
    for part in parts:
        counts[part.schema.name] = counts.get(part.schema.name, 0) + int(mask(part).sum())
    return counts


def _tables(pushes: pa.Table) -> set[str]:
    return {name for text in pushes["tables"].to_pylist() for name in json.loads(text)}
