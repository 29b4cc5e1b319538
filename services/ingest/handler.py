"""Takes cases in. Knows no HTTP and no Ray: the command line and the service both call it."""

from __future__ import annotations

from pathlib import Path

import structlog

from feature_store import errors
from feature_store.control import ControlDatabase
from feature_store.errors import AccessDenied, AsdegError, ManifestError, NotFound
from feature_store.store import FeatureStore
from feature_store.withdrawal import no_longer_there, withdraw_case
from pipelines.cases.case import CaseReading, case_rows, read_case, store_images
from pipelines.cases.case_quality import store_overlays
from pipelines.cases.quality.verdict import Verdict
from services.ingest.follow_up import FollowUp
from services.ingest.messages import CaseReceipt, CaseStatus, Finding, Measurement, OutcomeReceipt
from services.ingest.quality import StoredQuality

log = structlog.get_logger(__name__)

RECEIVED, VALIDATED, EXTRACTED, REJECTED = "received", "validated", "extracted", "rejected"
WITHDRAWN = "withdrawn"


def validate_folder(case_dir: Path) -> CaseReceipt:
    """What ingest would say of a case folder, without a store. Raises ManifestError as ingest does."""
    return validate_reading(read_case(case_dir))


def validate_reading(reading: CaseReading) -> CaseReceipt:
    """The same of a case that was read already (from a BIDS data set)."""
    return _receipt(_known(reading), unchanged=False)


class IngestHandler:
    """Case folders and outcomes into the store; safe to share between threads."""

    def __init__(self, store: FeatureStore, control: ControlDatabase) -> None:
        self._store, self._control = store, control
        self.follow_up = FollowUp(store)
        self.quality = StoredQuality(store)

    def ingest_folder(self, case_dir: Path, site: str) -> CaseReceipt:
        """Store the case of a folder, as :meth:`ingest_reading` does."""
        return self.ingest_reading(read_case(case_dir), site)

    def ingest_reading(self, reading: CaseReading, site: str) -> CaseReceipt:
        """Store one case. What cannot be used comes back as findings; the rest is stored in one push.

        The same case again changes nothing and says so; series and regions that a corrected case no longer has
        are withdrawn. Raises ManifestError where nobody can tell whose case
        it is, AccessDenied where case.yaml names another site than ``site``.
        """
        manifest = _known(reading, site).manifest
        assert manifest is not None
        store_images(reading, self._store.blobs)
        store_overlays(reading.overlays, self._store.blobs)
        rows = case_rows(reading)
        labels = self.follow_up.labels_again(site, manifest.patient_id, manifest.clinical.fused_levels)
        gone = no_longer_there(self._store.snapshot(), rows["cases"][0], rows)
        push = self._store.push({**rows, **labels}, kind="case", source=site, withdraw=gone)
        receipt = _receipt(reading, unchanged=push.sequence is None)
        receipt.findings += [
            Finding(code="RowRejected", file="case.yaml", message=f"{row.table}: {row.message}", action="Mend it.")
            for row in push.rejected
        ]
        before = self._control.case(receipt.case_id)
        changed = any(n for part in (push.written, push.withdrawn) for table, n in part.items() if table != "quality")
        if before is not None and not changed:
            receipt.state = before.state  # it may be further on its way; a verdict by other bounds is no other case
        else:
            reasons = [f"{f.code}: {f.file}: {f.message}" for f in receipt.findings]
            self._control.set_case_state(site, manifest.patient_id, receipt.case_id, receipt.state, reasons)
        log.info("case", state=receipt.state, unchanged=receipt.unchanged, findings=len(receipt.findings))
        return receipt

    def outcome(self, case_id: str, measurements: list[Measurement]) -> OutcomeReceipt:
        """Add follow-up measurements of a case's patient. Raises NotFound, FollowUpError."""
        state = self._control.case(case_id)
        if state is None:
            raise _no_case()
        return self.follow_up.add(state.site, state.patient_id, case_id, measurements)

    def withdraw(self, case_id: str, reason: str, withdrawn_by: str) -> CaseStatus:
        """Take a case back: nothing of it counts from now on. Raises NotFound where there is none (any more)."""
        state = self._control.case(case_id)
        if state is None:
            raise _no_case()
        return self.withdraw_patient(state.site, state.patient_id, reason, withdrawn_by)

    def withdraw_patient(self, site: str, patient_id: str, reason: str, withdrawn_by: str) -> CaseStatus:
        """As :meth:`withdraw`, of a patient's case."""
        case_id = withdraw_case(self._store, site, patient_id, reason, withdrawn_by)
        self._control.set_case_state(site, patient_id, case_id, WITHDRAWN, [reason])
        log.info("withdrawal", site=site)
        return self.case(case_id)

    def case(self, case_id: str) -> CaseStatus:
        """Where a case is on its way. Raises NotFound."""
        state = self._control.case(case_id)
        if state is None:
            raise _no_case()
        return CaseStatus(case_id=state.case_id, site=state.site, state=state.state, reasons=list(state.reasons))

    def cases(self, site: str | None = None) -> list[CaseStatus]:
        """The cases of a site (None: of all)."""
        return [
            CaseStatus(case_id=state.case_id, site=state.site, state=state.state, reasons=list(state.reasons))
            for state in self._control.cases(site)
        ]


def _known(reading: CaseReading, site: str | None = None) -> CaseReading:
    if reading.manifest is None:
        finding = reading.findings[0]
        cls = getattr(errors, finding.code, ManifestError)
        known = cls if isinstance(cls, type) and issubclass(cls, AsdegError) else ManifestError
        raise known(finding.message, action=finding.action, file=finding.file)
    if site is not None and reading.manifest.site != site:
        raise AccessDenied(
            "case.yaml names another site.", action=f"Send it as that site; this is {site}.", file="case.yaml"
        )
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
