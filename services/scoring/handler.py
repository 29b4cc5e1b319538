"""Answers the question this system exists for: how high is this patient's risk?"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from feature_store.errors import AsdegError, NotFound, NothingReleased
from feature_store.patient_index import PatientIndex
from feature_store.retrieval import CLINICAL_COLUMNS, TEXT_COLUMNS, newest_cases
from feature_store.scanners import scanner_names, sequence_of
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from feature_store.touched import changed_since
from models.harmonisation import SCANNER
from services.ids import new_id
from services.releases import Current, current
from services.scoring.messages import Mover, Readiness, ScoreAnswer
from services.scoring.score_log import ScoreLog

Case = tuple[str, str, str]


class Signature(Protocol):
    """What is asked of a signature here."""

    @property
    def asked(self) -> list[str]: ...
    def score(self, features: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Loaded:
    """A signature ready to answer, and an index of the feature sets it was trained on."""

    signature: Signature
    features: PatientIndex


class ScoringHandler:
    """Scores single patients with the current signatures; safe to share between threads."""

    def __init__(self, store: FeatureStore, log: ScoreLog, load: Callable[[str], Signature]) -> None:
        self.log = log
        self._store, self._load = store, load
        self._loaded: dict[str, Loaded] = {}
        self._current: dict[str, Current] = {}
        self._seen = -1
        self._lock = threading.Lock()

    def score(self, kind: str, site: str, patient_id: str, *, asked_by: str) -> ScoreAnswer:
        """The risk of one patient, kept before it is given.

        Raises NothingReleased, NotFound (no case of that patient), FeaturesMissing.
        """
        snapshot = self._store.snapshot()
        release = self._released(snapshot).get(kind)
        if release is None:
            raise NothingReleased(f"No {kind} signature is released.", action="Train, then `asdeg release RUN_ID`.")
        loaded = self._signature(release, snapshot)
        case = _case_of(snapshot, site, patient_id)
        known = {
            SCANNER: site,  # where nothing else is known of it, also in training (Scanners)
            **_scanners(snapshot, case, loaded.signature.asked),
            **_clinical(snapshot, case),
            **loaded.features.features(site, patient_id, snapshot),
        }
        # What is missing altogether counts as missing; the signature says how much of that it bears.
        result = loaded.signature.score({name: known.get(name) for name in loaded.signature.asked})
        answer = ScoreAnswer(
            score_id=new_id("score"),
            kind=kind,
            site=site,
            patient_id=patient_id,
            probability=result.probability,
            high_risk=result.high_risk,
            threshold=result.threshold,
            risk_interval=result.risk_interval,
            signature=release.signature,
            moved_by=[Mover(name=entry["name"], effect=entry["effect"]) for entry in result.moved_by],
            as_of=snapshot.sequence,
            asked_at=datetime.now(UTC),
        )
        self.log.keep(_row(answer, case[2], asked_by))
        return answer

    def answer(self, score_id: str) -> ScoreAnswer:
        """An answer given before, and whether its case has been corrected or withdrawn since. Raises NotFound."""
        self.log.flush()
        snapshot = self._store.snapshot()
        rows = snapshot.table("scores", where={"score_id": score_id}).to_pylist()
        if not rows:
            raise NotFound("There is no such answer.", action="Check the score id.")
        row = rows[0]
        case = (row["site"], row["patient_id"], row["case_id"])
        changed = changed_since(snapshot, *case, as_of=row["as_of"])
        fields = {name: row[name] for name in ScoreAnswer.model_fields if name in row and name != "moved_by"}
        moved_by = [Mover(**entry) for entry in json.loads(row["moved_by"])]
        interval = None if row["risk_low"] is None else (row["risk_low"], row["risk_high"])
        return ScoreAnswer(**fields, risk_interval=interval, moved_by=moved_by, case_since=changed)

    def readiness(self) -> Readiness:
        """Whether the store can be read, and the current signatures."""
        try:
            released = self._released(self._store.snapshot())
        except AsdegError:
            return Readiness(ready=False, signatures={})
        return Readiness(ready=True, signatures={kind: entry.signature for kind, entry in released.items()})

    def _released(self, snapshot: Snapshot) -> dict[str, Current]:
        """The current releases, read again only when a push has touched them."""
        with self._lock:
            if snapshot.sequence > self._seen:
                since = snapshot.pushes.slice(max(self._seen, 0))["tables"].to_pylist()
                if self._seen < 0 or any("releases" in json.loads(tables) for tables in since):
                    self._current = current(snapshot)
                    wanted = {entry.signature for entry in self._current.values()}
                    self._loaded = {name: old for name, old in self._loaded.items() if name in wanted}
                self._seen = snapshot.sequence
            return dict(self._current)

    def _signature(self, release: Current, snapshot: Snapshot) -> Loaded:
        found = self._loaded.get(release.signature)
        if found is None:
            runs = snapshot.table("training_runs", columns=["settings"], where={"run_id": release.run_id}).to_pylist()
            feature_sets = json.loads(runs[0]["settings"])["feature_sets"] if runs else []
            found = Loaded(self._load(release.signature), PatientIndex(snapshot, feature_sets))
            with self._lock:
                self._loaded[release.signature] = found
        return found


def _case_of(snapshot: Snapshot, site: str, patient_id: str) -> Case:
    """Site, patient and case, of the patient's newest case, as features are."""
    found = newest_cases(snapshot, {"site": site, "patient_id": patient_id})
    if not found:
        raise NotFound("This site has no such patient.", action="Push the case first, or check site and patient id.")
    return found[0]


def _clinical(snapshot: Snapshot, case: Case) -> dict[str, Any]:
    """As in a training table: numbers as float, texts as they are, nothing from after the surgery."""
    where = dict(zip(("site", "patient_id", "case_id"), case, strict=True))
    rows = snapshot.table("clinical", [*CLINICAL_COLUMNS, "days_from_index"], where=where).to_pylist()
    found = rows[0] if rows and (rows[0]["days_from_index"] or 0) <= 0 else {}
    return {
        name: v if (v := found.get(name)) is None or name in TEXT_COLUMNS else float(v) for name in CLINICAL_COLUMNS
    }


def _scanners(snapshot: Snapshot, case: Case, features: list[str]) -> dict[str, str]:
    """The patient's own scanner of each sequence that the signature asks for, named as in training."""
    asked = [sequence for name in features if (sequence := sequence_of(name))]
    return {name: own[0] for name, own in scanner_names(snapshot, [case], asked).items()} if asked else {}


def _row(answer: ScoreAnswer, case_id: str, asked_by: str) -> dict[str, Any]:
    names = ("score_id", "kind", "site", "patient_id", "signature", "probability", "high_risk", "threshold")
    row = {name: getattr(answer, name) for name in (*names, "as_of", "asked_at")}
    moved_by = json.dumps([entry.model_dump() for entry in answer.moved_by])
    if answer.risk_interval is not None:
        row["risk_low"], row["risk_high"] = answer.risk_interval
    return {**row, "case_id": case_id, "asked_by": asked_by, "moved_by": moved_by}
