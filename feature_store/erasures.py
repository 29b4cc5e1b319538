"""Who was erased: on record as salted hashes, so that nobody is kept by name and nobody comes back unasked.

The record is a push like any other: from its number on the patient has no visible row, and whoever commits after
it has read it. Whoever knows the patient's id can find the record; from the record nobody finds the patient,
unless ids can be guessed (a pseudonym made with a site's key cannot).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import PatientErased
from feature_store.schemas import ERASURES
from feature_store.snapshot import Snapshot

KIND = "erasure"
"""Of the pushes that record erasures; the only pushes that may speak of an erased patient."""


@dataclass(frozen=True)
class Erasure:
    """One record. ``removed``: table -> push -> rows that went; ``touched``: kind -> names that used the patient."""

    erasure: str
    site: str
    patient_hash: str
    salt: str
    state: str
    reason: str
    erased_by: str
    erased_at: datetime
    removed: dict[str, dict[str, int]]
    touched: dict[str, Any]
    cleaned: dict[str, Any] | None = None
    finished_at: datetime | None = None
    readmitted_by: str | None = None
    consent: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Erasure:
        """From a row of ``erasures``."""
        parsed = {name: json.loads(row[name]) if row[name] else None for name in ("removed", "touched", "cleaned")}
        return cls(**{**{name: row[name] for name in ERASURES.column_names}, **parsed})

    def row(self) -> dict[str, Any]:
        """As the table has it."""
        texts = {name: json.dumps(getattr(self, name), sort_keys=True) for name in ("removed", "touched")}
        return vars(self) | texts | {"cleaned": None if self.cleaned is None else json.dumps(self.cleaned)}

    def is_of(self, site: str, patient_id: str) -> bool:
        """Whether it is this patient's."""
        return self.site == site and patient_hash(self.salt, site, patient_id) == self.patient_hash


class Erased:
    """The patients who may not be pushed."""

    def __init__(self, erasures: Sequence[Erasure] = ()) -> None:
        self._hashes: dict[str, dict[str, set[str]]] = {}
        for one in erasures:
            if one.state != "readmitted":
                self._hashes.setdefault(one.site, {}).setdefault(one.salt, set()).add(one.patient_hash)

    def holds(self, site: str, patient_id: str) -> bool:
        """Whether the patient was erased and not readmitted."""
        salts = self._hashes.get(site, {})
        return any(patient_hash(salt, site, patient_id) in hashes for salt, hashes in salts.items())

    def mask(self, rows: pa.Table) -> np.ndarray:
        """Rows of an erased patient."""
        if not self._hashes or not {"site", "patient_id"} <= set(rows.column_names):
            return np.zeros(len(rows), bool)
        found = np.zeros(len(rows), bool)
        for site in pc.unique(rows["site"]).to_pylist():
            if site in self._hashes:
                of_site = pc.equal(rows["site"], site)
                names = pc.unique(rows["patient_id"].filter(of_site)).to_pylist()
                gone = pa.array([name for name in names if name and self.holds(site, name)], pa.string())
                found |= np.asarray(pc.and_(of_site, pc.is_in(rows["patient_id"], value_set=gone)))
        return found


def recorded(pushes: pa.Table) -> int:
    """How many records of erasures there are among ``pushes``: cheap, to see whether there are new ones."""
    return int(pc.sum(pc.equal(pushes["kind"], KIND)).as_py() or 0)


def erasures(snapshot: Snapshot) -> list[Erasure]:
    """All records, oldest first."""
    if not recorded(snapshot.pushes):
        return []
    found = [Erasure.of(row) for row in snapshot.table(ERASURES.name, list(ERASURES.column_names)).to_pylist()]
    return sorted(found, key=lambda one: (one.erased_at, one.erasure))


def erased(snapshot: Snapshot) -> Erased:
    """Who may not be pushed, as of ``snapshot``."""
    return Erased(erasures(snapshot))


def expected_rows(table: str, push: Mapping[str, Any], written: int, known: Sequence[Erasure]) -> range:
    """How many rows of a push that wrote so many a table may have, after what was erased and is being erased.

    The withdrawals that an erasure itself wrote go with the patient.
    """
    if push["kind"] == KIND and table != ERASURES.name:
        return range(written + 1)
    gone = being = 0
    for one in known:
        rows = one.removed.get(table, {}).get(push["push_id"], 0)
        being += rows if one.state == "begun" else 0
        gone += 0 if one.state == "begun" else rows
    return range(written - gone - being, written - gone + 1)


def find(snapshot: Snapshot, site: str, patient_id: str) -> Erasure | None:
    """The patient's newest record; None where the patient was never erased."""
    return next((one for one in reversed(erasures(snapshot)) if one.is_of(site, patient_id)), None)


def refused() -> PatientErased:
    """The error for a push of an erased patient."""
    return PatientErased(
        "The patient was erased here and is not taken in again.",
        action="With the patient's new consent: `asdeg store readmit`.",
    )


def new_salt(snapshot: Snapshot) -> str:
    """The salt that the store has used last, so that a look at a patient takes one hash; a new one at first."""
    known = erasures(snapshot)
    return known[-1].salt if known else secrets.token_hex(16)


def patient_hash(salt: str, site: str, patient_id: str) -> str:
    """SHA-256, 64 hex digits."""
    return hashlib.sha256(json.dumps([salt, site, patient_id]).encode()).hexdigest()
