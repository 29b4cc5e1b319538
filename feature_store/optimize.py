"""Care of the files: rows of dead pushes go, small files become few, sorted by patient, and leftovers are deleted.

Nothing that any reader could see, now or as of any earlier push, is changed: revisions are rows, rows of
committed pushes are kept, and only their files are written anew. Writers and readers go on meanwhile.

Two at once lose nothing either, but on object storage the library lets both put the same files together, and
rows stand there twice from then on: a lease (:mod:`feature_store.optimize_alone`) keeps it to one at a time.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time_ns

import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from feature_store.blobs import Blobs
from feature_store.delta import DeltaLog
from feature_store.files import reading
from feature_store.push_log import PushLog

Progress = Callable[[str, float], None]


class OptimizeSettings(BaseModel):
    """What counts as dead, as scattered, and as safe to delete."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dead_after_hours: float = Field(default=24.0, ge=0)
    """A push that has not committed so long after it began is given up: it can then never commit."""
    files_too_many: int = Field(default=3, ge=1)
    """A site's files are rewritten when they are so many more than their size asks for, or a patient may be in more."""
    keep_files_hours: float = Field(default=168.0, ge=0)
    """Files that were replaced, or never finished, are deleted after so long; a reader may still hold them."""


@dataclass(frozen=True)
class OptimizedTable:
    """What was done to one table. ``files`` stand for what a reader opens now."""

    table: str
    dead_rows: int
    files_before: int
    files: int
    files_deleted: int


def optimize(
    logs: Mapping[str, DeltaLog],
    push_log: PushLog,
    blobs: Blobs,
    settings: OptimizeSettings | None = None,
    progress: Progress | None = None,
    before_each: Callable[[], None] = lambda: None,
) -> list[OptimizedTable]:
    """Optimise every table that is there; ``before_each`` may stop it. May be killed at any instant and run again."""
    settings = settings or OptimizeSettings()
    there = [name for name, log in logs.items() if log.exists()]
    dead = _give_up_the_dead(logs, there, push_log, settings)
    done = []
    for number, name in enumerate(there):
        if progress is not None:
            progress(name, number / len(there))
        before_each()
        done.append(_optimize_table(logs[name], dead.get(name, []), settings))
    blobs.sweep_unfinished(settings.dead_after_hours)
    blobs.sweep_cache()
    return done


def _give_up_the_dead(
    logs: Mapping[str, DeltaLog], there: list[str], push_log: PushLog, settings: OptimizeSettings
) -> dict[str, list[str]]:
    """Ids of dead pushes with rows, by table. They are on record as given up before any row goes."""
    oldest = f"{time_ns() - int(settings.dead_after_hours * 3600e9):016x}"  # a push id begins with when it began
    found: dict[str, list[str]] = {}
    for name in there:
        if name == "pushes":
            continue
        ids = _push_ids(logs[name])
        found[name] = [push_id for push_id in ids if push_id < oldest]
    committed = set(push_log.rows()["push_id"].to_pylist())  # read after the tables: what it lacks is not done
    dead = {name: [push_id for push_id in ids if push_id not in committed] for name, ids in found.items()}
    names = sorted({push_id for ids in dead.values() for push_id in ids})
    if names:
        push_log.give_up(f"{time_ns():016x}{uuid.uuid4().hex[:16]}", names)
        committed = set(push_log.rows()["push_id"].to_pylist())  # one may have got through at the last moment
    return {name: [push_id for push_id in ids if push_id not in committed] for name, ids in dead.items()}


def _push_ids(log: DeltaLog) -> list[str]:
    files = log.files()
    if files is None:
        return []
    with reading():
        return list(pc.unique(files.dataset().to_table(columns=["push_id"])["push_id"]).to_pylist())


def _optimize_table(log: DeltaLog, dead: list[str], settings: OptimizeSettings) -> OptimizedTable:
    before = log.files()
    removed = log.remove_pushes(dead) if dead else 0
    log.tidy(settings.files_too_many)
    deleted = log.vacuum(settings.keep_files_hours)
    after = log.files()
    return OptimizedTable(
        table=log.schema.name,
        dead_rows=removed,
        files_before=0 if before is None else len(before),
        files=0 if after is None else len(after),
        files_deleted=deleted,
    )
