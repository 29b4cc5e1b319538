"""Erase a patient: from every table, every version and every file, and from what was made of them.

1. On record, in one push: the patient's rows are withdrawn, a row in ``erasures`` names the patient by a salted
   hash and says what had used the patient. From here on nobody sees the patient, and pushes are refused.
2. Cleaned, over and over until nothing is left: what waits at the doors; images, masks and pictures that no other
   patient has; artefacts (the patient's rows of predictions); the patient's name in what nets were fitted on; the
   control database; rows; and what the files and the log still have of them.
3. Looked for: the rows of every file and the bounds in every line of the log. When there is nothing, the record is
   finished.

It may be killed at any instant and is then called again. Writers, readers and the optimiser go on meanwhile; a
reader that holds a file which had the patient gets a named error and reads again. What a writer that was killed
has left is taken away when it is ``grace_hours`` old. Erasure wins over frozen cohorts: their tables are without
the patient from then on.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from feature_store.control import ControlDatabase, Credential
from feature_store.erased_artefacts import rewrite_artefacts, rewrite_nets
from feature_store.erased_control import forget_patient
from feature_store.erased_files import Wanted, clean, folder_of, read_stray, site_of, traces
from feature_store.erased_log import Commits
from feature_store.erasures import KIND, Erasure, erased, find, new_salt, patient_hash
from feature_store.errors import Conflict, NotFound, PatientErased, StoreError
from feature_store.heads import visible
from feature_store.rows import Rows, composite
from feature_store.schemas import ERASURES, TABLES, TableSchema
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from feature_store.touched import users_of

TRIES = 20
BLOBS = {"image_hash": "images", "mask_hash": "masks", "overlay_hash": "overlays"}
PATIENT_TABLES = tuple(schema for schema in TABLES.values() if "patient_id" in schema.column_names)
NETS = ("encoders", "segmenters")
NAMES = ("patients_seen", "outcomes_of", "patients_held_out")
"""Columns of these that name patients, as site/patient_id."""
Progress = Callable[[str, float], None]


class Door(Protocol):
    """A place where what was sent waits before it is in the store."""

    def has(self, site: str, patient_id: str) -> bool:
        """Whether something of the patient waits there, as far as that can be known."""
        ...

    def erase(self, site: str, patient_id: str, recorded_at: float) -> tuple[int, int]:
        """Of a patient whose erasure is on record since then (seconds since 1970): take it away.

        Returns how many files went, and how many things others are still at.
        """
        ...


class EraseSettings(BaseModel):
    """How long a writer may be thought at work, and how long to wait for those that are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    grace_hours: float = Field(default=1.0, ge=0)
    """Files that nobody has committed so long after they were written are a killed writer's."""
    patience_s: float = Field(default=20.0, ge=0)
    """Wait so long for writers that are at work."""


@dataclass
class ErasureReport:
    """``state`` is finished, or begun where files of writers that may be at work are left: call again ``after``."""

    erasure: str
    state: str
    touched: dict[str, Any]
    rows: Counter[str] = field(default_factory=Counter)
    """Rows deleted, by table: every revision of every push, committed or not."""
    blobs: Counter[str] = field(default_factory=Counter)
    artefacts: int = 0
    nets: int = 0
    control: Counter[str] = field(default_factory=Counter)
    files: int = 0
    waiting: int = 0
    after: datetime | None = None


def erase_patient(
    store: FeatureStore,
    control: ControlDatabase | None,
    site: str,
    patient_id: str,
    *,
    reason: str,
    erased_by: Credential,
    settings: EraseSettings | None = None,
    progress: Progress | None = None,
    doors: Sequence[Door] = (),
) -> ErasureReport:
    """Erase, or go on with an erasure. ``control`` is None for a copy of a store, which has none.

    Raises NotFound where neither the store nor the control database nor a door ever had the patient.
    """
    settings, say = settings or EraseSettings(), progress or (lambda step, done: None)
    say("record", 0.0)
    record = _record(store, control, doors, site, patient_id, reason, erased_by)
    report = ErasureReport(record.erasure, record.state, record.touched)
    deadline = time.monotonic() + settings.patience_s
    while True:
        left = _round(store, control, doors, site, patient_id, record, report, settings, erased_by, say)
        if not left or time.monotonic() > deadline:
            break
        time.sleep(1.0)
    if not report.waiting and not left:
        report.state = "finished"
        if record.state == "begun":
            cleaned = {"rows": report.rows, "blobs": report.blobs, "artefacts": report.artefacts}
            done = replace(record, state="finished", finished_at=datetime.now(UTC), cleaned=cleaned)
            store.push({ERASURES.name: [done.row()]}, kind=KIND, source=site)
    say("done", 1.0)
    return report


def readmit(store: FeatureStore, site: str, patient_id: str, consent: str, readmitted_by: str) -> Erasure:
    """Let a patient who was erased be pushed again; what was erased stays so. Raises NotFound, and PatientErased
    where the erasure is not finished yet."""
    found = find(store.snapshot(), site, patient_id)
    if found is None or found.state == "readmitted":
        raise NotFound("That patient was not erased here.", action="Push the case.")
    if found.state != "finished":
        raise PatientErased("The erasure is not finished yet.", action="Run `asdeg store erase` again, then this.")
    back = replace(found, state="readmitted", readmitted_by=readmitted_by, consent=consent)
    store.push({ERASURES.name: [back.row()]}, kind=KIND, source=site)
    return back


def carry_over(store: FeatureStore) -> list[ErasureReport]:
    """Erase in a copy, to which nobody writes, whoever its records say is erased."""
    gone = erased(store.snapshot())
    found: set[tuple[str, str]] = set()
    for rows in _all_rows(store, ["site", "patient_id"]):
        mine = rows.filter(pa.array(gone.mask(rows))).select(["site", "patient_id"])
        found |= {(row["site"], row["patient_id"]) for row in mine.to_pylist()}
    settings = EraseSettings(grace_hours=0.0, patience_s=0.0)
    nobody = Credential("backup", "operator", None)
    return [
        erase_patient(store, None, site, patient_id, reason="", erased_by=nobody, settings=settings)
        for site, patient_id in sorted(found)
    ]


def take_back(store: FeatureStore, site: str, patient_id: str, kept: Mapping[str, Collection[str]]) -> int:
    """Remove what a push of the patient had kept before it was refused: names by kind of blob; how many went.

    What a row of anybody else names stays.
    """
    here = [(kind, name) for kind, names in kept.items() for name in names if store.blobs.has(kind, name)]
    if not here:
        return 0
    _, others = _named(store, site, patient_id)
    return sum(store.blobs.remove(kind, name) for kind, name in here if name not in others[kind])


# --- on record ---------------------------------------------------------------------------------
def _record(
    store: FeatureStore,
    control: ControlDatabase | None,
    doors: Sequence[Door],
    site: str,
    patient_id: str,
    reason: str,
    by: Credential,
) -> Erasure:
    """The patient's erasure; recorded now where there is none."""
    for attempt in range(TRIES):
        snapshot = store.snapshot()
        known = find(snapshot, site, patient_id)
        if known is not None and known.state != "readmitted":
            return known
        removed, withdrawn = _rows_of(snapshot, site, patient_id)
        waits = any(door.has(site, patient_id) for door in doors)
        if not removed and not waits and not _left_over(store, control, site, patient_id):
            raise NotFound("The store has no such patient.", action="`asdeg cases` lists the cases.")
        salt = new_salt(snapshot)
        record = Erasure(
            erasure=uuid.uuid4().hex,
            site=site,
            patient_hash=patient_hash(salt, site, patient_id),
            salt=salt,
            state="begun",
            reason=reason,
            erased_by=by.name,
            erased_at=datetime.now(UTC),
            removed=removed,
            touched=users_of(snapshot, site, patient_id),
        )
        try:
            store.push(
                {ERASURES.name: [record.row()]},
                kind=KIND,
                source=site,
                withdraw=withdrawn,
                unless_changed={schema.name: _keyed(schema, site, patient_id) for schema in PATIENT_TABLES},
                since=snapshot.sequence,
            )
            return record
        except Conflict:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("the last try returns or raises")


def _rows_of(snapshot: Snapshot, site: str, patient_id: str) -> tuple[dict[str, dict[str, int]], dict[str, Rows]]:
    """How many rows each push wrote of the patient, by table; and the keys of all of them."""
    removed: dict[str, dict[str, int]] = {}
    keys: dict[str, Rows] = {}
    for schema in PATIENT_TABLES:
        files = snapshot.files(schema.name)
        if files is None:
            continue
        columns = list(dict.fromkeys([*schema.key, "site", "patient_id", "push_id"]))
        found = files.dataset(_keyed(schema, site, patient_id)).to_table(columns=columns)
        found = found.filter(_mask(found, site, patient_id))
        found = found.take(pa.array(visible(found, snapshot.pushes)[0]))
        if len(found):
            names = zip(found["push_id"].to_pylist(), composite(found, schema.key).to_pylist(), strict=True)
            removed[schema.name] = dict(Counter(push for push, _ in set(names)))  # twice by one push is once
            keys[schema.name] = found.select(list(schema.key))
    return removed, keys


def _left_over(store: FeatureStore, control: ControlDatabase | None, site: str, patient_id: str) -> bool:
    """Whether the patient is in rows that nobody ever saw, or only on the way into the store."""
    if control is not None and any(case.patient_id == patient_id for case in control.cases(site)):
        return True
    wanted = Wanted(("patient_id",), patient_id, site)
    logs = [store.log(schema.name) for schema in PATIENT_TABLES]
    return any(log.exists() and traces(log, wanted, Commits(log.filesystem, wanted)) for log in logs)


# --- cleaned -----------------------------------------------------------------------------------
def _round(*what: Any) -> int:
    """See :func:`_clean`; where storage fails, or another one cleans at the same time, that is said by name."""
    try:
        return _clean(*what)
    except OSError as error:
        raise StoreError(
            f"The erasure was interrupted ({type(error).__name__}).", action="Run it again: it goes on."
        ) from error


def _clean(
    store: FeatureStore,
    control: ControlDatabase | None,
    doors: Sequence[Door],
    site: str,
    patient_id: str,
    record: Erasure,
    report: ErasureReport,
    settings: EraseSettings,
    by: Credential,
    say: Progress,
) -> int:
    """One round; how many things are left. Blobs and cases are found by the rows, which therefore go last."""
    grace_s = settings.grace_hours * 3600
    report.waiting, report.after = 0, None
    say("doors", 0.05)
    left = 0
    for door in doors:  # first: from now on nothing more of the patient comes in
        gone, busy = door.erase(site, patient_id, record.erased_at.timestamp())
        report.files += gone
        left += busy
    if left:  # what is known of these has to stay until they are gone
        return left
    say("images", 0.1)
    until = _erase_blobs(store, site, patient_id, record.erased_at.timestamp(), grace_s, report.blobs)
    say("artefacts", 0.3)
    report.artefacts += rewrite_artefacts(store, site, patient_id)
    name, other = f"{site}/{patient_id}", f"{site}/erased:{record.patient_hash[:16]}"
    report.nets += sum(rewrite_nets(store.log(table), name, other) for table in NETS)
    if control is not None:
        say("control database", 0.4)
        cases = _case_ids(store, site, patient_id)
        report.control += forget_patient(control, by, site, patient_id, cases, record.erasure)
    looked_for = [(schema.name, Wanted(("patient_id",), patient_id, site)) for schema in PATIENT_TABLES]
    looked_for += [(table, Wanted(NAMES, name)) for table in NETS]
    for number, (table, wanted) in enumerate(looked_for):
        say(table, 0.4 + 0.6 * number / len(looked_for))
        log = store.log(table)
        commits = Commits(log.filesystem, wanted)
        if log.exists() and traces(log, wanted, commits):
            if table not in NETS:
                report.rows[table] += log.remove({"site": site, "patient_id": patient_id})
            done = clean(log, wanted, grace_s, commits)
            report.files += done.files_deleted
            until += [done.until] * done.waiting
            left += len(traces(log, wanted, commits))
    report.waiting = len(until)
    report.after = datetime.fromtimestamp(max(until), UTC) if until else None
    report.rows = +report.rows
    return left + len(until)


def _erase_blobs(
    store: FeatureStore, site: str, patient_id: str, recorded_at: float, grace_s: float, removed: Counter[str]
) -> list[float]:
    """Delete what only this patient's rows name, and what no row names any more; when the rest can be.

    What no row names may be a writer's that is at work, unless it is old; only what was there when the erasure
    was recorded can be this patient's.
    """
    mine, others = _named(store, site, patient_id)
    waiting = []
    for kind in BLOBS.values():
        for name in store.blobs.names(kind):
            if name in others[kind]:
                continue
            written = store.blobs.written_at(kind, name)
            if name not in mine[kind] and written is not None and written + grace_s > time.time():
                if written < recorded_at:
                    waiting.append(written + grace_s)
                continue
            removed[kind] += store.blobs.remove(kind, name)
    store.blobs.sweep_unfinished(grace_s / 3600)
    return waiting


def _named(store: FeatureStore, site: str, patient_id: str) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Blobs by kind that the patient's rows name, and those that anybody else's do."""
    mine: dict[str, set[str]] = {kind: set() for kind in BLOBS.values()}
    others: dict[str, set[str]] = {kind: set() for kind in BLOBS.values()}
    for rows in _all_rows(store, list(BLOBS)):
        own = np.asarray(_mask(rows, site, patient_id))
        for column in set(BLOBS) & set(rows.column_names):
            for of, mask in ((mine, own), (others, ~own)):
                of[BLOBS[column]] |= set(pc.unique(rows[column].filter(pa.array(mask))).drop_null().to_pylist())
    return mine, others


def _all_rows(store: FeatureStore, columns: list[str]) -> Iterator[pa.Table]:
    """Those of ``columns`` that a table has, with site and patient, of the rows of all files, committed or not."""
    for schema in PATIENT_TABLES:
        wanted = [name for name in columns if name in schema.column_names]
        log = store.log(schema.name)
        files = log.files()
        if not wanted or files is None:
            continue
        wanted = list(dict.fromkeys(["site", "patient_id", *wanted]))
        for batch in files.dataset().scanner(columns=wanted, batch_size=65_536).to_batches():
            yield pa.Table.from_batches([batch])
        for path, _ in folder_of(log).strays:
            rows = read_stray(log, path, wanted)
            if rows is not None and len(rows):
                sites = pa.array([site_of(path)] * len(rows), pa.string())
                yield rows if "site" in rows.column_names else rows.append_column("site", sites)


def _case_ids(store: FeatureStore, site: str, patient_id: str) -> set[str]:
    files = store.log("cases").files()
    if files is None:
        return set()
    rows = files.dataset({"site": site, "patient_id": patient_id}).to_table(columns=["site", "patient_id", "case_id"])
    return set(rows["case_id"].filter(_mask(rows, site, patient_id)).to_pylist())


def _keyed(schema: TableSchema, site: str, patient_id: str) -> dict[str, str]:
    """What of site and patient is in the table's key, for picking files and guarding keys."""
    return {name: value for name, value in (("site", site), ("patient_id", patient_id)) if name in schema.key}


def _mask(rows: pa.Table, site: str, patient_id: str) -> pa.ChunkedArray:
    return pc.fill_null(pc.and_(pc.equal(rows["site"], site), pc.equal(rows["patient_id"], patient_id)), False)
