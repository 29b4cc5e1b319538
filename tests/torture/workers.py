"""What the processes of a torture run do until they are killed. Every push is acknowledged in a file of its own."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feature_store.errors import AsdegError, Conflict
from feature_store.optimize import OptimizeSettings
from feature_store.store import FeatureStore
from feature_store.withdrawal import no_longer_there, withdraw_case
from tests.feature_store.examples import NAMES, ROIS, case, feature_set, radiomics

SITES = ("a", "b", "c")
PATIENTS = 24
SET = "study-mr-0a1b2c3d"
CARE = OptimizeSettings(dead_after_hours=0.01, files_too_many=3, keep_files_hours=1)


def write_cases(uri: str, folder: str, seed: int) -> None:
    """Push and correct cases that other writers push as well; now and then take one back."""
    store, random_ = FeatureStore.open(uri), random.Random(seed)
    for acknowledge in _acknowledgements(folder):
        site, patient = random_.choice(SITES), f"p{random_.randrange(PATIENTS)}"
        if random_.random() < 0.05:
            try:
                withdraw_case(store, site, patient, "torture", "torture")
            except (Conflict, AsdegError):
                continue
            acknowledge({"kind": "withdrawal", "site": site, "patient": patient})
            continue
        age = round(random_.uniform(20, 90), 6)
        tables = case(patient, site, age=age)
        if random_.random() < 0.3:
            tables["rois"] = tables["rois"][:1]
        gone = no_longer_there(store.snapshot(), tables["cases"][0], tables)
        receipt = store.push(tables, kind="case", source=site, withdraw=gone)
        acknowledge({"kind": "case", "site": site, "patient": patient, "age": age, "sequence": receipt.sequence})


def write_features(uri: str, folder: str, seed: int) -> None:
    """Push feature rows of random patients, as extraction does: many rows of several patients at once."""
    store, random_ = FeatureStore.open(uri), random.Random(seed)
    store.push({"feature_sets": [feature_set(SET)]}, kind="feature_set", source="torture")
    for acknowledge in _acknowledgements(folder):
        site = random_.choice(SITES)
        patients = [f"p{number}" for number in random_.sample(range(PATIENTS), 6)]
        value = random_.random()
        rows = [radiomics(p, [value] * len(NAMES), roi, site, SET) for p in patients for roi in ROIS]
        receipt = store.push({"radiomics": rows}, kind="features", source="torture")
        acknowledge(
            {"kind": "features", "site": site, "patients": patients, "value": value, "sequence": receipt.sequence}
        )


def optimise(uri: str, folder: str, seed: int) -> None:
    """Rewrite files again and again."""
    store = FeatureStore.open(uri)
    for acknowledge in _acknowledgements(folder):
        done = store.optimize(CARE)
        acknowledge({"kind": "optimised", "dead_rows": sum(table.dead_rows for table in done)})


def read(uri: str, folder: str, seed: int) -> None:
    """Take snapshots and look for what must not be: a torn push, a key twice, a past that changed."""
    store, random_ = FeatureStore.open(uri), random.Random(seed)
    past: dict[int, int] = {}
    for acknowledge in _acknowledgements(folder):
        snapshot = store.snapshot()
        broken = _broken(snapshot)
        if snapshot.sequence:
            at = random_.randint(1, snapshot.sequence)
            seen = hash(tuple(sorted(map(repr, snapshot.at(at).table("clinical").to_pylist()))))
            if past.setdefault(at, seen) != seen:
                broken.append(f"push {at} reads differently than before")
        acknowledge({"kind": "read", "sequence": snapshot.sequence, "broken": broken})


def _broken(snapshot: Any) -> list[str]:
    broken = []
    said: dict[tuple[str, str], int] = {}
    for row in snapshot.pushes.to_pylist():
        for name, count in json.loads(row["tables"]).items():
            said[row["push_id"], name] = count
    for name in sorted({name for _, name in said}):
        schema_key = snapshot.heads(name)
        keys = schema_key.keys.drop_columns(["push_id", "row_hash", "push_sequence"]).to_pylist()
        if len({tuple(key.values()) for key in keys}) != len(keys):
            broken.append(f"{name} shows a key twice")
        rows = snapshot.files(name).dataset().to_table()
        found: dict[str, set[str]] = {}
        for push_id, row_hash in zip(rows["push_id"].to_pylist(), rows["row_hash"].to_pylist(), strict=True):
            found.setdefault(push_id, set()).add(row_hash)
        torn = [push for (push, table), count in said.items() if table == name and len(found.get(push, ())) != count]
        if torn:
            broken.append(f"{len(torn)} pushes are torn in {name}")
    return broken


def _acknowledgements(folder: str) -> Iterator[Any]:
    """For ever: a function that writes one line, whole, before the next round begins."""
    path = Path(folder) / f"{os.getpid()}.jsonl"
    with path.open("a", buffering=1) as file:
        while True:
            yield lambda line: file.write(json.dumps(line) + "\n")
