"""What the processes of a torture run do until they are killed.

Each keeps a file of its own: a line before a push (what it is about to write) and a line after the store
acknowledged it. Every push carries a number that no other has, in several tables at once, so that whatever is lost,
doubled or torn shows in the values themselves, whatever the store says of itself.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from feature_store.control import Credential
from feature_store.erasure import EraseSettings, erase_patient, readmit
from feature_store.erasures import erasures, expected_rows
from feature_store.errors import Conflict, NotFound, PatientErased, StoreError
from feature_store.files import reading
from feature_store.optimize import OptimizeSettings
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from feature_store.withdrawal import CASE_TABLES, no_longer_there, withdraw_case
from tests.feature_store.examples import NAMES, ROIS, case, feature_set, radiomics

SITES = ("a", "b", "c")
PATIENTS = 12
"""A site; all writers push cases of all of them, each its own version."""
ERASED = tuple(f"erase-me-{number}" for number in range(3))
"""Patients of every site who are pushed as well, and erased again and again."""
SET = "study-mr-0a1b2c3d"
CARE = OptimizeSettings(dead_after_hours=0.01, files_too_many=3, keep_files_hours=1)
BY = Credential("torture", "operator", None)
ERASE = EraseSettings(grace_hours=0.1, patience_s=0.0)
Note = Callable[[dict[str, Any]], None]


def marked(patient: str, site: str, mark: int) -> dict[str, list[dict[str, Any]]]:
    """A case whose series, regions and clinical row all hold ``mark``."""
    tables = case(patient, site, age=mark % 100 + 0.5, diagnosis=str(mark))
    for row in tables["series"]:
        row["origin"] = [float(mark), 0.0, 0.0]
    for row in tables["rois"]:
        row["volume_mm3"] = float(mark)
    return tables


def write_cases(uri: str, folder: str, number: int) -> None:
    """Push and correct cases that all other writers push as well; now and then take one back."""
    store, random_ = FeatureStore.open(uri), random.Random(number)
    for turn, note in enumerate(_notes(folder)):
        site, patient = random_.choice(SITES), f"p{random_.randrange(PATIENTS)}"
        if random_.random() < 0.15:
            patient = random_.choice(ERASED)
        elif random_.random() < 0.05:
            try:
                withdraw_case(store, site, patient, "torture", "torture")
            except (Conflict, NotFound):
                continue
            except StoreError as error:
                _again(note, error)
                continue
            note({"kind": "withdrawal", "site": site, "patient": patient})
            continue
        mark = number * 1_000_000 + turn
        tables = marked(patient, site, mark)
        if random_.random() < 0.3:
            tables["rois"] = tables["rois"][:1]
        note({"kind": "intent", "mark": mark})
        guard = {name: {"site": site, "patient_id": patient} for name in CASE_TABLES}
        try:
            snapshot = store.snapshot()
            gone = no_longer_there(snapshot, tables["cases"][0], tables)
            receipt = store.push(
                tables, kind="case", source=site, withdraw=gone, unless_changed=guard, since=snapshot.sequence
            )
        except PatientErased:
            note({"kind": "erased", "mark": mark})
            continue
        except Conflict:  # another writer was first with the same case: look again, push again
            note({"kind": "refused", "mark": mark})
            continue
        except StoreError as error:
            _again(note, error)
            continue
        note({"kind": "case", "site": site, "patient": patient, "mark": mark, "sequence": receipt.sequence})


def write_features(uri: str, folder: str, number: int) -> None:
    """Push feature rows of random patients, as extraction does: many rows of several patients at once."""
    store, random_ = FeatureStore.open(uri), random.Random(number)
    store.push({"feature_sets": [feature_set(SET)]}, kind="feature_set", source="torture")
    for turn, note in enumerate(_notes(folder)):
        site, mark = random_.choice(SITES), number * 1_000_000 + turn
        patients = [f"p{one}" for one in random_.sample(range(PATIENTS), 6)]
        rows = [radiomics(p, [float(mark)] * len(NAMES), roi, site, SET) for p in patients for roi in ROIS]
        note({"kind": "intent", "mark": mark})
        try:
            receipt = store.push({"radiomics": rows}, kind="features", source="torture")
        except StoreError as error:
            _again(note, error)
            continue
        note({"kind": "features", "site": site, "patients": patients, "mark": mark, "sequence": receipt.sequence})


def optimise(uri: str, folder: str, number: int) -> None:
    """Rewrite files again and again."""
    store = FeatureStore.open(uri)
    for note in _notes(folder):
        note({"kind": "began"})
        try:
            done = store.optimize(CARE)
        except StoreError as error:
            _again(note, error)
            continue
        note({"kind": "optimised", "dead_rows": sum(table.dead_rows for table in done)})


def erase(uri: str, folder: str, number: int) -> None:
    """Erase patients whom the writers go on pushing, and let them in again."""
    store, random_ = FeatureStore.open(uri), random.Random(number)
    for note in _notes(folder):
        site, patient = random_.choice(SITES), random_.choice(ERASED)
        note({"kind": "began"})
        try:
            state = erase_patient(store, None, site, patient, reason="torture", erased_by=BY, settings=ERASE).state
            if state == "finished":
                readmit(store, site, patient, "torture", "torture")
        except (NotFound, Conflict):
            continue
        except StoreError as error:
            _again(note, error)
            continue
        note({"kind": "erasure", "state": state})


def read(uri: str, folder: str, number: int) -> None:
    """Take snapshots and look for what must not be: a torn push, a key twice, a past that changed."""
    store, random_ = FeatureStore.open(uri), random.Random(number)
    past: dict[int, int] = {}
    for note in _notes(folder):
        snapshot = store.snapshot()
        try:
            broken, doubled = torn(snapshot, store), twice(snapshot)
            if snapshot.sequence:
                at = random_.randint(1, snapshot.sequence)
                earlier = snapshot.at(at)
                broken += torn_cases(earlier)
                rows = [row for row in earlier.table("clinical").to_pylist() if row["patient_id"] not in ERASED]
                seen = hash(tuple(sorted(map(repr, rows))))
                if past.setdefault(at, seen) != seen:
                    broken.append("an earlier view reads differently than before")
        except StoreError as error:  # an erasure took a file away: by name, and read again
            _again(note, error)
            continue
        note({"kind": "read", "sequence": snapshot.sequence, "broken": broken, "doubled": doubled})


def torn(snapshot: Snapshot, store: FeatureStore | None = None) -> list[str]:
    """What of the view is no whole push: by the store's own counts (but for what was erased since), by the marks."""
    broken = torn_cases(snapshot)
    pushes = snapshot.pushes.to_pylist()
    for name in sorted({name for push in pushes for name in json.loads(push["tables"])}):
        files = snapshot.files(name)
        assert files is not None
        with reading():
            rows = files.dataset().to_table(columns=["push_id", "row_hash"])
        known = erasures(snapshot if store is None else store.snapshot())
        found: dict[str, set[str]] = {}
        for push_id, row_hash in zip(rows["push_id"].to_pylist(), rows["row_hash"].to_pylist(), strict=True):
            found.setdefault(push_id, set()).add(row_hash)
        for push in pushes:
            count = json.loads(push["tables"]).get(name, 0)
            if len(found.get(push["push_id"], ())) not in expected_rows(name, push, count, known):
                broken.append(f"a push is torn in {name}")
    return broken


def torn_cases(snapshot: Snapshot) -> list[str]:
    """Cases whose tables are not all of the same push."""
    marks: dict[tuple[str, str], set[str]] = {}
    tables: dict[tuple[str, str], set[str]] = {}
    for name, mark in (
        ("series", lambda row: str(int(row["origin"][0]))),
        ("rois", lambda row: str(int(row["volume_mm3"]))),
        ("clinical", lambda row: str(row["diagnosis"])),
    ):
        for row in snapshot.table(name).to_pylist():
            if row["patient_id"] in ERASED:  # of an earlier view, table by table while it is erased
                continue
            patient = (row["site"], row["patient_id"])
            marks.setdefault(patient, set()).add(mark(row))
            tables.setdefault(patient, set()).add(name)
    broken = ["a case is of several pushes" for found in marks.values() if len(found) != 1]
    return broken + ["a case lacks a table" for found in tables.values() if len(found) != 3]


def twice(snapshot: Snapshot) -> int:
    """Keys that the view shows twice, and revisions of one key by one push."""
    doubled = 0
    for name in ("cases", "series", "rois", "clinical", "radiomics"):
        heads = snapshot.heads(name)
        if heads is not None:
            keys = heads.keys.drop_columns(["push_id", "push_sequence"]).to_pylist()
            doubled += len(keys) - len({tuple(key.values()) for key in keys})
    seen = Counter(
        (row["site"], row["patient_id"], row["push_sequence"]) for row in snapshot.revisions("clinical").to_pylist()
    )
    return doubled + sum(count - 1 for count in seen.values())


def _again(note: Note, error: StoreError) -> None:
    """The store says by name that somebody was in the way; nothing of the round counts."""
    note({"kind": "again", "what": error.message})


def _notes(folder: str) -> Iterator[Note]:
    """For ever: a function that writes one line, whole; a line that was written outlives its process."""
    path = Path(folder) / f"{os.getpid()}.jsonl"
    with path.open("a", buffering=1) as file:
        while True:
            yield lambda line: file.write(json.dumps(line) + "\n")
