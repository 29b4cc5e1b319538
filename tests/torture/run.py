"""Start the processes, kill them at random instants, and count at the end what was lost."""

from __future__ import annotations

import contextlib
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

from feature_store.erasure import EraseSettings, erase_patient
from feature_store.errors import NotFound
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from tests.feature_store.every_byte import Marks, look
from tests.torture import workers

AT_ONCE = EraseSettings(grace_hours=0.0, patience_s=0.0)
SPAWN = mp.get_context("spawn")
MUST_BE_NONE = (
    "lost", "duplicated", "torn_reads", "updates_lost", "broken_promises", "died", "left_of_the_erased",
)  # fmt: skip


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
    roles = [workers.write_cases] * writers + [workers.write_features] * extractors
    roles += [workers.optimise, workers.erase]
    number = iter(range(1, 1_000_000))
    victims = [_start(role, uri, folder, next(number)) for role in roles]
    watching = [_start(workers.read, uri, folder, next(number)) for _ in range(readers)]
    killed: Counter[str] = Counter()
    died: list[str] = []  # of an error of their own
    start = time.monotonic()
    while sum(killed.values()) < kills:
        time.sleep(random_.uniform(0, 0.4))
        at = random_.randrange(len(roles))
        # nearly all have done something whole before, which then must not be lost
        if not _spoke(folder, victims[at]) and random_.random() < 0.98:
            continue
        if victims[at].exitcode is None:
            os.kill(victims[at].pid, signal.SIGKILL)
        victims[at].join()
        died += [] if victims[at].exitcode == -signal.SIGKILL else [roles[at].__name__]
        killed[roles[at].__name__] += 1
        victims[at] = _start(roles[at], uri, folder, next(number))
        if sum(killed.values()) % 25 == 0:
            say(f"{sum(killed.values())} kills after {time.monotonic() - start:.0f} s")
    last_word = time.monotonic() + 60
    while not all(_spoke(folder, process) for process in victims) and time.monotonic() < last_word:
        time.sleep(0.2)  # those who were started last have their say as well
    died += [process.name for process in (*victims, *watching) if not process.is_alive()]
    for process in (*victims, *watching):
        process.kill()
        process.join()
    took = round(time.monotonic() - start, 1)
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in _lines(path)]
    return {"kills": dict(killed), "seconds": took, "died": died} | judge(uri, lines)


def judge(uri: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the processes noted, held against what the store has now; then the store is cared for, and checked."""
    store = FeatureStore.open(uri)
    for site in workers.SITES:
        for patient in workers.ERASED:
            with contextlib.suppress(NotFound):
                erase_patient(store, None, site, patient, reason="torture", erased_by=workers.BY, settings=AT_ONCE)
    report = count(store.snapshot(), lines)
    report["left_of_the_erased"] = sorted(look(uri, Marks(workers.ERASED, (), b"\0no voxels\0")))
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
    for_good = [line for line in acknowledged if line.get("patient") not in workers.ERASED]
    lost = sum(stored.get(line["mark"]) != {line["sequence"]} for line in for_good)
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
        "erasures": kinds["erasure"],
        "acknowledged_and_erased_later": len(acknowledged) - len(for_good),
        "refused_because_erased": kinds["erased"],
        "told_to_try_again": dict(Counter(line["what"] for line in lines if line["kind"] == "again")),
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
    process = SPAWN.Process(target=role, args=(uri, str(folder), number), name=role.__name__, daemon=True)
    process.start()
    return process


def _spoke(folder: Path, process: Any) -> bool:
    """Whether it has done something whole, or is dead."""
    return process.exitcode is not None or len(_lines(folder / f"{process.pid}.jsonl")) > 1


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]
