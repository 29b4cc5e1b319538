"""When a patient's study is complete, it becomes a case; later, what was staged of it goes.

Complete is what had no new instance for a while (``quiet_s``), or what the site says is complete. What comes later
makes the case anew, as a new revision; the same again is the same case. Whoever is killed in the middle has done
nothing that the next one does not do again: the store takes a case once, and what was assembled is noted last.

Staged instances are kept for ``keep_s`` after the last one came, for those that come late, and given up earlier only
when room is needed, those of the oldest finished case first. A late instance whose case's others are gone makes no
case (it would be one without them): the case stays as it is, and says that the study has to be sent again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import structlog

from feature_store.control import ControlDatabase
from feature_store.erasures import erased, refused
from feature_store.errors import AsdegError, Conflict, NotFound
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from pipelines.cases.case import CaseReading
from pipelines.cases.manifest import case_id
from pipelines.cases.manifest_schema import Clinical
from services.ingest.deidentification.pseudonym import shifted
from services.ingest.deidentification.site_key import SiteKeys
from services.ingest.dicom.assembly import Said, StagedReading, Used, read_staged
from services.ingest.dicom.sites import DicomSites
from services.ingest.dicom.staging import DONE, SAID, TRIED, StagedCase, Staging
from services.ingest.handler import RECEIVED, WITHDRAWN
from services.ingest.messages import CaseReceipt
from services.ingest.said_before import CASE_PUSH

log = structlog.get_logger(__name__)

MOST_TRIES, AGAIN_S = 3, 3600.0
"""A case whose assembly never ended so often is tried again only after so many seconds."""
FULL = 0.9
"""From this share of the limit on, finished cases are given up before their time."""


@dataclass(frozen=True)
class Times:
    """In seconds. ``tick_s``: how often is looked."""

    quiet_s: float
    keep_s: float
    tick_s: float = 5.0


class Assembler:
    """Makes cases of staged instances. Any number of processes may do so at once."""

    def __init__(
        self,
        staging: Staging,
        sites: DicomSites,
        store: FeatureStore,
        control: ControlDatabase,
        keys: SiteKeys,
        ingest: Callable[[CaseReading, str], CaseReceipt],
        times: Times,
    ) -> None:
        self.staging, self.times = staging, times
        self._sites, self._store, self._control = sites, store, control
        self._keys, self._ingest = keys, ingest

    def run(self, stopped: threading.Event) -> None:
        """Until ``stopped``: assemble what is due, give up what is old. What fails is tried again at the next look."""
        while not stopped.wait(self.times.tick_s):
            try:
                self.assemble_due()
                self.give_up_old()
            except Exception as error:  # a disk or a database that is away comes back; this thread would not
                log.error("dicom assembly", error=type(error).__name__)

    def assemble_due(self) -> list[CaseReceipt]:
        """Assemble every case that has been quiet for long enough and is not what was assembled last."""
        receipts = []
        for case in self.staging.cases():
            if time.time() - case.last_arrival < self.times.quiet_s or not self._changed(case) or _in_vain(case):
                continue
            try:
                receipt = self.assemble(case)
            except AsdegError as error:
                log.error("dicom assembly", error=error.code, site=case.site)
                continue
            if receipt is not None:
                receipts.append(receipt)
        return receipts

    def complete(self, site: str, patient_id: str, series_numbers: dict[str, int] | None = None) -> CaseReceipt:
        """The site says that all is there, and by ``series_numbers`` which series it means.

        Raises NotFound where nothing is staged, Conflict while the case is being assembled already or lacks
        instances that were given up.
        """
        case = self.staging.case(site, patient_id)
        if not case.names():
            raise NotFound("Nothing of this study is staged.", action="Send the study first.")
        if series_numbers:
            said = case.read(SAID)
            case.write(SAID, {**said, "series_numbers": {**said.get("series_numbers", {}), **series_numbers}})
        receipt = self.assemble(case)
        if receipt is None:
            raise Conflict("Instances of an earlier delivery are no longer here.", action="Send the whole study again.")
        return receipt

    def staged(self, site: str) -> list[tuple[str, int, bool]]:
        """The site's cases of which instances are here: id, how many, and whether all of them are in the case."""
        return [
            (case_id(site, case.patient_id), len(names), not self._changed(case))
            for case in self.staging.cases()
            if case.site == site and (names := case.names())
        ]

    def set_index_date(self, site: str, patient_id: str, day: date) -> bool:
        """The surgery's day, which the images' days are counted from at once; False where none of them is here.

        It is kept as the images' dates are: moved. Raises Conflict while the case is being assembled.
        """
        case = self.staging.case(site, patient_id)
        if not case.names():
            return False
        moved = shifted(self._keys.needed(site), patient_id, day)
        case.write(SAID, {**case.read(SAID), "index_date": moved.isoformat()})
        return self.assemble(case, moved) is not None

    def assemble(self, case: StagedCase, index_date: date | None = None) -> CaseReceipt | None:
        """Make the case of what is here now, with the (moved) day of the surgery where it is being said.

        None where it lacks what was given up. Raises Conflict where it is being assembled already, PatientErased of
        one whose instances are not kept (any more).
        """
        with case.alone() as alone:
            if not alone:
                raise Conflict("The case is being assembled.", action="Ask for its state in a minute.")
            if erased(self._store.snapshot()).holds(case.site, case.patient_id):
                self.staging.erase(case.site, case.patient_id)
                raise refused()
            digest, done = self._digest(case), case.read(DONE)
            with _counted(case), self.staging.view() as view:
                said = self._said(case, done, index_date)
                reading = read_staged(case, self._sites.named(case.site), said, view)
            lacking = _lacking(done, reading.used) if done.get("given_up") else 0
            if lacking:
                self._add_reason(
                    case, f"DicomIncomplete: {lacking} instances that came before were given up: resend all"
                )
                case.write(DONE, {**done, "digest": digest})
                return None
            receipt = self._ingest(reading.case, case.site)
            case.write(DONE, _done(digest, reading))
            log.info("dicom case", site=case.site, state=receipt.state, instances=len(case.names()))
            return receipt

    def give_up_old(self) -> int:
        """Remove the instances of finished cases whose time is over, or whose room is needed; returns how many."""
        finished = sorted(
            (case for case in self.staging.cases() if case.names() and not self._changed(case)),
            key=lambda case: case.last_arrival,
        )
        count = 0
        for case in finished:
            over = time.time() - case.last_arrival > self.times.keep_s
            if not over and self.staging.used_bytes() < FULL * self.staging.limit_bytes:
                break
            gone = self.staging.drop_instances(case, lambda one: not self._changed(one))
            if gone:
                done = case.read(DONE)
                case.write(DONE, {**done, "given_up": True, "digest": self._digest(case)})
                why = "their time was over" if over else "room was needed"
                self._add_reason(case, f"DicomGivenUp: {gone} staged instances were removed because {why}")
                log.info("dicom instances removed", site=case.site, count=gone, why=why)
            count += gone
        return count

    def _changed(self, case: StagedCase) -> bool:
        """Whether there is something to assemble: more than was, or the same sent again after it was withdrawn.

        Of a case that the site has withdrawn since the last instance came, other settings make nothing.
        """
        if not case.names():
            return False
        found = self._control.case(case_id(case.site, case.patient_id), case.site)
        done = case.read(DONE)
        if done.get("digest") == self._digest(case):
            return found is not None and found.state == RECEIVED and not done.get("given_up")
        return found is None or found.state != WITHDRAWN or found.changed_at < case.last_arrival

    def _digest(self, case: StagedCase) -> str:
        """Over everything that a case is a function of: what is here, what the site said, and its settings."""
        site = self._sites.named(case.site)
        settings = [site.label_map.id if site.label_map else "", *site.sequences]
        everything = [sorted(case.names()), case.read(SAID), settings]
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()

    def _said(self, case: StagedCase, done: dict[str, Any], index_date: date | None) -> Said:
        """What other doors took in: the surgery's day, and the clinical variables of the case's last whole push."""
        where = {"site": case.site, "patient_id": case.patient_id}
        snapshot, said = self._store.snapshot(), case.read(SAID)
        if index_date is None and any(snapshot.table("cases", where=where)["index_date_known"].to_pylist()):
            index_date = _index_date(snapshot.table("series", where=where).to_pylist(), done.get("series", {}))
        if index_date is None and "index_date" in said:
            index_date = date.fromisoformat(said["index_date"])
        return Said(index_date, last_pushed_clinical(snapshot, where), said.get("series_numbers", {}))

    def _add_reason(self, case: StagedCase, reason: str) -> None:
        name = case_id(case.site, case.patient_id)
        before = self._control.case(name, case.site)
        kind = reason.split(":")[0]
        reasons = [one for one in (before.reasons if before else ()) if not one.startswith(kind)]
        state = before.state if before else "received"
        self._control.set_case_state(case.site, case.patient_id, name, state, [*reasons, reason])


@contextlib.contextmanager
def _counted(case: StagedCase) -> Iterator[None]:
    """Only a process that died in it leaves its count behind."""
    case.write(TRIED, {"count": int(case.read(TRIED).get("count", 0)) + 1, "at": time.time()})
    try:
        yield
    finally:
        if case.folder.is_dir():  # its patient may have been erased meanwhile
            case.write(TRIED, {})


def _in_vain(case: StagedCase) -> bool:
    """Whether assembling it has brought the process down so often that the others go first for a while."""
    tried = case.read(TRIED)
    return int(tried.get("count", 0)) >= MOST_TRIES and time.time() - float(tried["at"]) < AGAIN_S


def last_pushed_clinical(snapshot: Snapshot, where: dict[str, Any]) -> Clinical:
    """The variables as the last push of the whole case had them, of which DICOM says nothing new.

    What was said by itself since stays by that: see :mod:`services.ingest.said_before`.
    """
    revisions = snapshot.revisions("clinical", where=where).sort_by("push_sequence").to_pylist()
    kinds = snapshot.pushes["kind"]
    pushed = [one for one in revisions if kinds[one["push_sequence"] - 1].as_py() == CASE_PUSH]
    return Clinical(**{name: pushed[-1][name] for name in Clinical.model_fields}) if pushed else Clinical()


def _index_date(series: list[dict[str, Any]], made_of: dict[str, list[str]]) -> date | None:
    """The (moved) day of the surgery, from the (moved) day an image was taken and the stored days between the two."""
    for row in series:
        image_hash, day = made_of.get(row["sequence"], ("", ""))
        if image_hash == row["image_hash"] and day and row["days_from_index"] is not None:
            return date.fromisoformat(day) - timedelta(days=int(row["days_from_index"]))
    return None


def _done(digest: str, reading: StagedReading) -> dict[str, Any]:
    series = {
        one.sequence: [one.image_hash, reading.days[one.sequence].isoformat()]
        for one in reading.case.series
        if one.sequence in reading.days
    }
    return {
        "digest": digest,
        "used": {sequence: asdict(used) for sequence, used in reading.used.items()},
        "series": series,
    }


def _lacking(done: dict[str, Any], used: dict[str, Used]) -> int:
    """How many instances that the last case was made of, and that were given up, the new one would lack.

    A sequence that is now made of another series is replaced and lacks nothing.
    """
    lacking = 0
    for sequence, before in done.get("used", {}).items():
        now = used.get(sequence)
        if now is not None and now.series != before["series"]:
            continue
        for kind in ("images", "masks"):
            there = set() if now is None else set(getattr(now, kind))
            lacking += len(set(before[kind]) - there)
    return lacking
