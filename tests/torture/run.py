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

from feature_store.store import FeatureStore
from tests.torture import workers

SPAWN = mp.get_context("spawn")


def torture(
    uri: str, folder: Path, *, kills: int, writers: int = 8, extractors: int = 2, readers: int = 2, seed: int = 0
) -> dict[str, Any]:
    """Counts of a whole run; ``lost``, ``torn_reads`` and ``broken_promises`` must be 0."""
    FeatureStore.open(uri, create=True)
    random_ = random.Random(seed)
    roles = [workers.write_cases] * writers + [workers.write_features] * extractors + [workers.optimise]
    number = iter(range(1_000_000))
    victims = [_start(role, uri, folder, next(number)) for role in roles]
    watching = [_start(workers.read, uri, folder, next(number)) for _ in range(readers)]
    killed: Counter[str] = Counter()
    start = time.monotonic()
    while sum(killed.values()) < kills:
        time.sleep(random_.uniform(0, 0.6))
        at = random_.randrange(len(roles))
        # one that has not begun yet has nothing to lose
        if not _lines(folder / f"{victims[at].pid}.jsonl") and random_.random() < 0.8:
            continue
        os.kill(victims[at].pid, signal.SIGKILL)
        victims[at].join()
        killed[roles[at].__name__] += 1
        victims[at] = _start(roles[at], uri, folder, next(number))
    last_word = time.monotonic() + 60
    while not all(_lines(folder / f"{process.pid}.jsonl") for process in victims) and time.monotonic() < last_word:
        time.sleep(0.2)  # those who were started last have their say as well
    died = [process.exitcode for process in watching if not process.is_alive()]
    for process in (*victims, *watching):
        process.kill()
        process.join()
    return {"kills": dict(killed), "seconds": round(time.monotonic() - start, 1), "readers_died": died} | _judge(
        uri, folder
    )


def _judge(uri: str, folder: Path) -> dict[str, Any]:
    store = FeatureStore.open(uri)
    snapshot = store.snapshot()
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in _lines(path)]
    kinds = Counter(line["kind"] for line in lines)
    ages = {
        (row["site"], row["patient_id"], row["push_sequence"]): row["age"]
        for row in snapshot.revisions("clinical").to_pylist()
    }
    pushes = {row["sequence"]: row for row in snapshot.pushes.to_pylist()}
    values: dict[int, set[float]] = {}
    for row in snapshot.revisions("radiomics").to_pylist():
        values.setdefault(row["push_sequence"], set()).add(row["values"][0])
    lost = 0
    for line in lines:
        sequence = line.get("sequence")
        if line["kind"] == "case" and sequence is not None:
            lost += ages.get((line["site"], line["patient"], sequence)) != line["age"]
        elif line["kind"] == "features" and sequence is not None:
            lost += values.get(sequence) != {line["value"]}
    dead_before = store.optimize(workers.CARE.model_copy(update={"dead_after_hours": 0.0}))
    return {
        "pushes": len(pushes),
        "acknowledged": kinds["case"] + kinds["features"] + kinds["withdrawal"],
        "lost": lost,
        "reads": kinds["read"],
        "torn_reads": sum(bool(line.get("broken")) for line in lines),
        "what_was_torn": sorted({text for line in lines for text in line.get("broken", [])}),
        "optimised": kinds["optimised"],
        "dead_rows_removed": sum(line.get("dead_rows", 0) for line in lines) + sum(t.dead_rows for t in dead_before),
        "broken_promises": [
            vars(promise)
            for promise in FeatureStore.open(uri).check()
            if promise.broken and "kept among" not in promise.promise  # there are no images here
        ],
    }


def _start(role: Callable[[str, str, int], None], uri: str, folder: Path, number: int) -> Any:
    process = SPAWN.Process(target=role, args=(uri, str(folder), number), daemon=True)
    process.start()
    return process


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]
