"""Takes cases in. Knows no HTTP and no Ray: the command line and the service both call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from feature_store import errors
from feature_store.control import CaseState, ControlDatabase
from feature_store.erasure import take_back
from feature_store.errors import AccessDenied, AsdegError, Conflict, ManifestError, NotFound, NotReady, PatientErased
from feature_store.plain_words import plain_reason
from feature_store.pushes import PushReceipt
from feature_store.store import FeatureStore
from feature_store.uploads import UploadBook
from feature_store.withdrawal import CASE_TABLES, no_longer_there, withdraw_case
from pipelines.cases.case import CaseReading, case_rows, names_of_blobs, read_case, store_images
from pipelines.cases.case_quality import store_overlays
from pipelines.cases.manifest import CaseManifest, read_manifest
from pipelines.cases.manifest import case_id as named_case
from pipelines.cases.quality.verdict import Verdict
from services.ingest.clinical import ClinicalVariables
from services.ingest.follow_up import FollowUp
from services.ingest.messages import (
    CaseReceipt,
    CaseReport,
    CaseStatus,
    CaseStep,
    Finding,
    Measurement,
    OutcomeReceipt,
    Versions,
)
from services.ingest.patient_table import Pseudonym
from services.ingest.quality import StoredQuality
from services.ingest.reads import SurgeonReads
from services.ingest.said_before import CASE_PUSH, anchored, said_since
from services.ingest.surgery import Surgery, SurgeryDates
from services.ingest.versions import versions

log = structlog.get_logger(__name__)

RECEIVED, VALIDATED, EXTRACTED, REJECTED = "received", "validated", "extracted", "rejected"
WITHDRAWN = "withdrawn"
TRIES = 20


def validate_folder(case_dir: Path) -> CaseReceipt:
    """What ingest would say of a case folder, without a store. Raises ManifestError as ingest does."""
    return validate_reading(read_case(case_dir))


def validate_reading(reading: CaseReading) -> CaseReceipt:
    """The same of a case that was read already (from a BIDS data set)."""
    return _receipt(_known(reading), unchanged=False)


class IngestHandler:
    """Case folders and outcomes into the store; safe to share between threads."""

    def __init__(
        self,
        store: FeatureStore,
        control: ControlDatabase,
        pseudonym: Pseudonym = lambda site, patient_id: patient_id,
        dates: SurgeryDates | None = None,
    ) -> None:
        """``pseudonym(site, patient_id)`` is what the store knows a patient by; ``dates`` takes a surgery's date for
        who keeps the images' own."""
        self._store, self._control, self._pseudonym = store, control, pseudonym
        self._book = UploadBook(control)
        self.follow_up = FollowUp(store, pseudonym)
        self.clinical = ClinicalVariables(store, self.follow_up, pseudonym)
        self.reads = SurgeonReads(store, pseudonym)
        self.surgery = Surgery(store, dates)
        self.quality = StoredQuality(store)

    def whose(self, case_dir: Path, site: str) -> tuple[str, str]:
        """Patient (as the store knows them) and case id. Raises ManifestError, AccessDenied, PatientErased."""
        manifest = self._ours(read_manifest(case_dir)[0], site)
        self._store.admit(site, manifest.patient_id)
        return manifest.patient_id, manifest.case_id

    def ingest_folder(
        self,
        case_dir: Path,
        site: str,
        before_it_is_kept: Callable[[], None] = lambda: None,
        accepted: datetime | None = None,
    ) -> CaseReceipt:
        """Store the case of a folder, as :meth:`ingest_reading` does; ``before_it_is_kept`` may stop that.

        Clinical variables that the site has sent by themselves after the case was ``accepted`` stand.
        """
        reading = read_case(case_dir)
        before_it_is_kept()
        receipt = self.ingest_reading(reading, site)
        if accepted is not None:
            self.clinical.stand(self.find(receipt.case_id, site), accepted)
        return receipt

    def ingest_reading(self, reading: CaseReading, site: str) -> CaseReceipt:
        """Store one case. What cannot be used comes back as findings; the rest is stored in one push.

        The same case again changes nothing and says so; series and regions that a corrected case no longer has
        are withdrawn; what the site has said since by itself stays (:mod:`services.ingest.said_before`). Raises
        ManifestError where nobody can tell whose case it is, AccessDenied where case.yaml names another site, and
        PatientErased of one who was erased, also meanwhile: nothing of the case is kept then.
        """
        known = _known(reading).manifest
        assert known is not None
        ours = self._ours(known, site)
        reading = replace(reading, manifest=ours)
        try:
            self._store.admit(site, ours.patient_id)
            store_images(reading, self._store.blobs)
            store_overlays(reading.overlays, self._store.blobs)
            push, reading = self._push(reading)
        except PatientErased:  # perhaps meanwhile; or a process that was killed had kept the images
            take_back(self._store, site, ours.patient_id, names_of_blobs(reading))
            raise
        manifest = reading.manifest
        assert manifest is not None
        receipt = _receipt(reading, unchanged=push.sequence is None)
        receipt.findings += [
            Finding(code="RowRejected", file="case.yaml", message=f"{row.table}: {row.message}", action="Mend it.")
            for row in push.rejected
        ]
        before = self._control.case(receipt.case_id)
        changed = any(n for part in (push.written, push.withdrawn) for table, n in part.items() if table != "quality")
        if before is not None and before.state != RECEIVED and not changed:
            receipt.state = before.state  # it may be further on its way; a verdict by other bounds is no other case
        else:
            reasons = [f"{f.code}: {f.file}: {f.message}" for f in receipt.findings]
            self._control.set_case_state(site, manifest.patient_id, receipt.case_id, receipt.state, reasons)
        log.info("case", state=receipt.state, unchanged=receipt.unchanged, findings=len(receipt.findings))
        return receipt

    def _push(self, reading: CaseReading) -> tuple[PushReceipt, CaseReading]:
        """Push the case beside what the store holds of it; again where another push changed that meanwhile."""
        manifest = reading.manifest
        assert manifest is not None
        where = {"site": manifest.site, "patient_id": manifest.patient_id}
        for attempt in range(TRIES):
            snapshot = self._store.snapshot()
            placed = anchored(reading, snapshot)
            rows = case_rows(placed)
            if placed is not reading:  # the hash is of what the case itself says
                rows["cases"][0]["manifest_hash"] = case_rows(reading)["cases"][0]["manifest_hash"]
            fused_levels = manifest.clinical.fused_levels
            if said := said_since(snapshot, rows["clinical"][0]):
                del rows["clinical"]
                fused_levels = said["fused_levels"]
            labels = self.follow_up.labels_again(manifest.site, {manifest.patient_id: fused_levels}, snapshot)
            gone = no_longer_there(snapshot, rows["cases"][0], rows)
            try:
                push = self._store.push(
                    {**rows, **labels},
                    kind=CASE_PUSH,
                    source=manifest.site,
                    withdraw=gone,
                    unless_changed=dict.fromkeys(CASE_TABLES, where) if attempt < TRIES - 1 else (),
                    since=snapshot.sequence,
                )
            except PatientErased:
                raise
            except Conflict:
                continue
            return push, placed
        raise AssertionError("the last try asks for nothing")

    def _ours(self, manifest: CaseManifest, site: str) -> CaseManifest:
        if manifest.site != site:
            raise AccessDenied(
                "case.yaml names another site.", action=f"Send it as that site; this is {site}.", file="case.yaml"
            )
        return manifest.model_copy(update={"patient_id": self._pseudonym(site, manifest.patient_id)})

    def outcome(self, case_id: str, measurements: list[Measurement]) -> OutcomeReceipt:
        """Add follow-up measurements of a case's patient. Raises NotFound, FollowUpError."""
        state = self.find(case_id)
        return self.follow_up.add(state.site, state.patient_id, case_id, measurements)

    def versions(self, table: str, case: CaseState) -> Versions:
        """What the store holds of a case in a table, with every revision."""
        return versions(self._store.snapshot(), table, case)

    def withdraw(self, case_id: str, reason: str, withdrawn_by: str) -> CaseStatus:
        """Take a case back: nothing of it counts from now on. Raises NotFound where there is none (any more)."""
        state = self.find(case_id)
        return self.withdraw_patient(state.site, state.patient_id, reason, withdrawn_by)

    def withdraw_patient(self, site: str, patient_id: str, reason: str, withdrawn_by: str) -> CaseStatus:
        """As :meth:`withdraw`, of a patient's case. Raises NotReady while a push of it is still to be carried out,
        which would bring it back."""
        reason = plain_reason(reason)
        state = self._control.case(named_case(site, patient_id), site)
        unread = state is not None and _status(state, waiting=bool(self._book.waiting([state.case_id]))).state
        if unread == RECEIVED:
            raise NotReady("The case is still being read.", action="Withdraw it once it is validated or rejected.")
        case_id = withdraw_case(self._store, site, patient_id, reason, withdrawn_by)
        self._control.set_case_state(site, patient_id, case_id, WITHDRAWN, [reason])
        log.info("withdrawal", site=site)
        return self.case(case_id)

    def find(self, case_id: str, site: str | None = None) -> CaseState:
        """A case as the control database has it. Raises NotFound; also for another site's than ``site``."""
        state = self._control.case(case_id, site)
        if state is None:
            raise _no_case()
        return state

    def case(self, case_id: str, site: str | None = None) -> CaseReport:
        """Where a case is on its way, and how it came there. Raises NotFound, as :meth:`find` does."""
        state = self.find(case_id, site)
        waiting = bool(self._book.waiting([case_id]))
        newest = self._book.of_case(case_id)
        answer = newest.answer if newest is not None and not waiting else None
        return CaseReport(
            **_status(state, waiting=waiting).model_dump(),
            history=[
                CaseStep(state=event.state, at=datetime.fromtimestamp(event.at, UTC), reasons=list(event.reasons))
                for event in self._control.case_history(state.site, case_id)
            ],
            receipt=CaseReceipt.model_validate(answer) if answer is not None else None,
        )

    def cases(self, site: str | None = None) -> list[CaseStatus]:
        """The cases of a site (None: of all), by site and patient."""
        return self._statuses(self._control.cases(site))

    def cases_after(self, case_id: str, limit: int, site: str | None = None) -> list[CaseStatus]:
        """At most ``limit`` of them, by id, from the one that follows that case ("": from the first)."""
        return self._statuses(self._control.cases_after(case_id, limit, site))

    def _statuses(self, states: Sequence[CaseState]) -> list[CaseStatus]:
        waiting = self._book.waiting([state.case_id for state in states])
        return [_status(state, waiting=state.case_id in waiting) for state in states]


def _status(state: CaseState, *, waiting: bool) -> CaseStatus:
    """A case with an upload still to be carried out is received, whatever came of the one before."""
    return CaseStatus(
        case_id=state.case_id,
        site=state.site,
        state=RECEIVED if waiting else state.state,
        reasons=[] if waiting else list(state.reasons),
    )


def _known(reading: CaseReading) -> CaseReading:
    if reading.manifest is None:
        finding = reading.findings[0]
        cls = getattr(errors, finding.code, ManifestError)
        known = cls if isinstance(cls, type) and issubclass(cls, AsdegError) else ManifestError
        raise known(finding.message, action=finding.action, file=finding.file)
    return reading


def _receipt(reading: CaseReading, *, unchanged: bool) -> CaseReceipt:
    manifest = reading.manifest
    assert manifest is not None
    return CaseReceipt(
        case_id=manifest.case_id,
        site=manifest.site,
        state=VALIDATED if reading.usable else REJECTED,
        unchanged=unchanged,
        sequences=sorted({one.sequence for one in reading.series}),
        rois=len(reading.rois),
        findings=[Finding(code=f.code, file=f.file, message=f.message, action=f.action) for f in reading.findings],
        notes=list(reading.notes),
        quality_warnings=reading.quality.count(Verdict.WARN),
        quality_failures=reading.quality.count(Verdict.FAIL),
    )


def _no_case() -> NotFound:
    return NotFound("There is no such case.", action="Check the case id, or push the case first.")
