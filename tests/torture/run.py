"""Start the processes, kill them at random instants, and count at the end what was lost."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from tests.torture import workers

SPAWN = mp.get_context("spawn")
MUST_BE_NONE = ("lost", "duplicated", "torn_reads", "updates_lost", "broken_promises", "readers_died")


def torture(
    uri: str,
    folder: Path,
    *,
    kills: int,
    writers: int = 8,
    extractors: int = 2,
    readers: int = 2,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Counts of a whole run; all of MUST_BE_NONE must be 0 or empty."""
    FeatureStore.open(uri, create=True)
    random_ = random.Random(seed)
    roles = [workers.write_cases] * writers + [workers.write_features] * extractors + [workers.optimise]
    number = iter(range(1, 1_000_000))
    victims = [_start(role, uri, folder, next(number)) for role in roles]
    watching = [_start(workers.read, uri, folder, next(number)) for _ in range(readers)]
    killed: Counter[str] = Counter()
    start = time.monotonic()
    while sum(killed.values()) < kills:
        time.sleep(random_.uniform(0, 0.4))
        at = random_.randrange(len(roles))
        # most have done something whole before, which then must not be lost
        if len(_lines(folder / f"{victims[at].pid}.jsonl")) < 2 and random_.random() < 0.8:
            continue
        os.kill(victims[at].pid, signal.SIGKILL)
        victims[at].join()
        killed[roles[at].__name__] += 1
        victims[at] = _start(roles[at], uri, folder, next(number))
        if sum(killed.values()) % 25 == 0:
            say(f"{sum(killed.values())} kills after {time.monotonic() - start:.0f} s")
    last_word = time.monotonic() + 60
    while not all(_lines(folder / f"{process.pid}.jsonl") for process in victims) and time.monotonic() < last_word:
        time.sleep(0.2)  # those who were started last have their say as well
    died = [process.exitcode for process in watching if not process.is_alive()]
    for process in (*victims, *watching):
        process.kill()
        process.join()
    took = round(time.monotonic() - start, 1)
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in _lines(path)]
    return {"kills": dict(killed), "seconds": took, "readers_died": died} | judge(uri, lines)


def judge(uri: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the processes noted, held against what the store has now; then the store is cared for, and checked."""
    store = FeatureStore.open(uri)
    report = count(store.snapshot(), lines)
    last = store.optimize(workers.CARE.model_copy(update={"dead_after_hours": 0.0}))
    rows = sum(line.get("dead_rows", 0) for line in lines) + sum(table.dead_rows for table in last)
    broken = [promise for promise in FeatureStore.open(uri).check() if promise.broken]
    return report | {
        "dead_rows_removed": rows,
        # there are no images here
        "broken_promises": [vars(promise) for promise in broken if "kept among" not in promise.promise],
    }


def count(snapshot: Snapshot, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What is lost, doubled and torn of what the processes noted."""
    kinds = Counter(line["kind"] for line in lines)
    stored = _stored(snapshot)
    acknowledged = [line for line in lines if line["kind"] in ("case", "features")]
    lost = sum(stored.get(line["mark"]) != {line["sequence"]} for line in acknowledged)
    doubled = {mark for mark, sequences in stored.items() if len(sequences) > 1}
    numbers = Counter(line["sequence"] for line in acknowledged)
    reads = [line for line in lines if line["kind"] == "read"]
    return {
        "pushed": kinds["intent"],
        "acknowledged": len(acknowledged),
        "lost": lost,
        "duplicated": len(doubled)
        + sum(times - 1 for times in numbers.values())
        + workers.twice(snapshot)
        + sum(line["doubled"] for line in reads),
        "updates_lost": _updates_lost(snapshot),
        "committed_but_killed_before_they_knew": len(set(stored) - {line["mark"] for line in acknowledged}),
        "refused_because_another_was_first": kinds["refused"],
        "withdrawn": kinds["withdrawal"],
        "reads": len(reads),
        "torn_reads": sum(bool(line["broken"]) for line in reads) + bool(workers.torn(snapshot)),
        "what_was_torn": sorted({text for line in reads for text in line["broken"]}),
        "optimised": kinds["optimised"],
    }


def _stored(snapshot: Snapshot) -> dict[int, set[int]]:
    """Every mark that is in the store, and the pushes that it is of."""
    found: dict[int, set[int]] = {}
    for row in snapshot.revisions("clinical").to_pylist():
        if not row["withdrawn"]:
            found.setdefault(int(row["diagnosis"]), set()).add(row["push_sequence"])
    for row in snapshot.revisions("radiomics").to_pylist():
        found.setdefault(int(row["values"][0]), set()).add(row["push_sequence"])
    return found


def _updates_lost(snapshot: Snapshot) -> int:
    """Patients whom the newest view does not show as the last push wrote them."""
    last: dict[tuple[str, str], tuple[int, str | None]] = {}
    for row in snapshot.revisions("clinical").to_pylist():
        now = (row["push_sequence"], None if row["withdrawn"] else row["diagnosis"])
        key = (row["site"], row["patient_id"])
        last[key] = max(last.get(key, (0, None)), now, key=lambda one: one[0])
    shown = {(row["site"], row["patient_id"]): row["diagnosis"] for row in snapshot.table("clinical").to_pylist()}
    return sum(shown.get(key) != mark for key, (_, mark) in last.items())


def _start(role: Callable[[str, str, int], None], uri: str, folder: Path, number: int) -> Any:
    process = SPAWN.Process(target=role, args=(uri, str(folder), number), daemon=True)
    process.start()
    return process


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]
