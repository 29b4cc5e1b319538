"""From an upload to a case: accepted at once, carried out behind it, never lost in between.

*Accepting* unpacks the archive, reads whose case it is and answers; all that is wrong with the archive or the case's
identity is said then. From that moment the case's folder is on disk and the control database knows of it.
*Carrying out* reads the images and pushes the case. It happens elsewhere and later, one upload of a case after the
other in the order they were accepted, and again where the process that did it died.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from feature_store.control import CaseState, ControlDatabase
from feature_store.erasure import take_back
from feature_store.errors import (
    AsdegError,
    ChecksumMismatch,
    Conflict,
    InputError,
    LeaseLost,
    PatientErased,
    StoreError,
)
from feature_store.leases import KeptLease, Leases
from feature_store.snapshot import Snapshot
from feature_store.software import software_version
from feature_store.store import FeatureStore
from feature_store.uploads import COMPLETE, DONE, RECEIVED, REFUSED, Upload
from feature_store.withdrawal import CASE_TABLES
from pipelines.cases.case import names_of_blobs, read_case
from pipelines.cases.manifest import case_id as named_case
from services.ingest.archive import case_folder, unpack_case
from services.ingest.handler import REJECTED, IngestHandler
from services.ingest.inbox import Inbox, on_disk, sha256_of
from services.ingest.messages import CaseReceipt, Finding, Ticket

log = structlog.get_logger(__name__)

MOST_ATTEMPTS = 3
"""A case whose reading brought its process down so often is given up."""
LEASE_S = 20.0


class Intake:
    """Accepts complete uploads and carries them out. Shared by threads; any number of processes may have one."""

    def __init__(self, handler: IngestHandler, store: FeatureStore, control: ControlDatabase, inbox: Inbox) -> None:
        self.inbox = inbox
        self._book = inbox.book
        self._handler, self._store, self._control = handler, store, control
        self._leases = Leases(control)
        self.wake: Callable[[], None] = lambda: None
        """Called when there is something to carry out; whoever does that sets it."""

    # --- at the door ---------------------------------------------------------------------------
    def accept(self, upload: Upload) -> Ticket:
        """Say which case a complete upload is, and see to it that it will be carried out.

        The same bytes again are not stored again. Raises ArchiveError, ManifestError, AccessDenied, ChecksumMismatch
        for what cannot become a case of the site; the upload is refused then and its bytes are gone. Conflict where
        another request or process is at it, or was.
        """
        with self._leases.keep(f"accept:{upload.upload_id}", LEASE_S) as lease:
            if not lease:
                raise Conflict("The upload is being unpacked.", action="Ask in a moment which case it became.")
            upload = self._book.get(upload.upload_id)
            if upload.state != COMPLETE:
                raise Conflict("The upload was accepted or refused by now.", action="Ask what it became.")
            try:
                return self._accept(upload, lease)
            except (StoreError, LeaseLost):
                raise
            except AsdegError as error:
                self._book.finish(upload, REFUSED, _answer(error))
                self.inbox.discard(upload)
                raise

    def _accept(self, upload: Upload, lease: KeptLease) -> Ticket:
        packed = self.inbox.packed(upload)
        digest = sha256_of(packed)
        if upload.sha256 not in (None, digest):
            raise ChecksumMismatch("What came is not what was announced.", action="Send the case again.")
        if (known := self._book.same_bytes(upload.site, digest)) and self._still_there(known):
            self._book.join(upload, known)
            self.inbox.discard(upload)
            assert known.case_id is not None
            return self.ticket(known.case_id, upload, known=True)
        unpacked = self.inbox.of(upload) / "case"
        shutil.rmtree(unpacked, ignore_errors=True)  # of a process that died here before
        unpacked.mkdir()
        case_dir = unpack_case(packed, unpacked, self.inbox.limits)
        patient_id, case_id = self._handler.whose(case_dir, upload.site)
        size = on_disk(unpacked)
        lease.check()
        self._control.note_case(upload.site, patient_id, case_id, RECEIVED)
        upload = self._book.accept(upload, case_id, digest, size)
        packed.unlink(missing_ok=True)
        self.wake()
        return self.ticket(case_id, upload, known=False)

    def ticket(self, case_id: str, upload: Upload, *, known: bool) -> Ticket:
        """What is answered to an upload that was accepted."""
        status = self._handler.case(case_id, upload.site)
        return Ticket(case_id=case_id, site=upload.site, state=status.state, upload_id=upload.upload_id, known=known)

    def settle(self, upload: Upload) -> Upload:
        """An upload whose bytes are all there is accepted, where nobody has or does; how it stands then."""
        if upload.state == COMPLETE:
            with contextlib.suppress(AsdegError):  # why, the upload itself says
                self.accept(upload)
        return self._book.get(upload.upload_id)

    def _still_there(self, known: Upload) -> bool:
        """Whether an earlier upload of the same bytes is still what its case is, or will be."""
        assert known.case_id is not None
        newest = self._book.of_case(known.case_id)
        if newest is None or newest.upload_id != known.upload_id:
            return False
        if known.state == RECEIVED:
            return True
        state = self._control.case(known.case_id, known.site)
        return known.holds is not None and state is not None and known.holds == self._holds(state)

    # --- erasure: whoever calls these need not have the site's pseudonym key, so nothing is accepted or stored here ---
    def has(self, site: str, patient_id: str) -> bool:
        """Whether an upload waits that is known to be the patient's."""
        return bool(self._book.in_state(RECEIVED, named_case(site, patient_id))) or any(
            self._is_of(upload, site, patient_id) for upload in self._book.in_state(COMPLETE)
        )

    def erase(self, site: str, patient_id: str, recorded_at: float) -> tuple[int, int]:
        """Take away the uploads that wait of a patient whose erasure is on record, and what reading them had kept.

        Returns how many files went, and how many uploads others are at. One that is not whole, or that only the site's
        key could show to be the patient's, is refused when it is accepted or carried out.
        """
        files = busy = 0
        for upload in self._book.in_state(COMPLETE):
            if upload.site != site:
                continue
            with self._leases.keep(f"accept:{upload.upload_id}", LEASE_S) as lease:
                if not lease:
                    busy += upload.changed_at <= recorded_at
                elif self._is_of(upload, site, patient_id, refused=True):
                    files += self._take_away(upload, site, patient_id)
        case_id = named_case(site, patient_id)
        if waiting := self._book.in_state(RECEIVED, case_id):
            with self._leases.keep(f"case:{case_id}", LEASE_S) as lease:
                if not lease:
                    return files, busy + len(waiting)
                for upload in self._book.in_state(RECEIVED, case_id):
                    files += self._take_away(upload, site, patient_id)
        return files, busy

    def _is_of(self, upload: Upload, site: str, patient_id: str, *, refused: bool = False) -> bool:
        """Whether a complete upload's case.yaml names the patient, by the keys that are here.

        ``refused``: what is answered where it names one who was erased.
        """
        if upload.site != site:
            return False
        try:
            with tempfile.TemporaryDirectory(dir=self.inbox.of(upload)) as folder:
                case_dir = unpack_case(self.inbox.packed(upload), Path(folder), self.inbox.limits)
                return self._handler.whose(case_dir, site)[0] == patient_id
        except PatientErased:
            return refused
        except (AsdegError, OSError):
            return False

    def _take_away(self, upload: Upload, site: str, patient_id: str) -> int:
        folder = self.inbox.of(upload)
        files = sum(path.is_file() for path in folder.rglob("*"))
        with contextlib.suppress(AsdegError, OSError):  # what cannot be read has kept nothing
            reading = read_case(case_folder(folder / "case"))
            take_back(self._store, site, patient_id, names_of_blobs(reading))
        self._book.remove(upload.upload_id)
        self.inbox.discard(upload)
        return files

    # --- behind it -----------------------------------------------------------------------------
    def waiting(self) -> list[str]:
        """Cases with something to carry out, the longest waiting first."""
        return list(dict.fromkeys(str(upload.case_id) for upload in self._book.in_state(RECEIVED)))

    def tidy(self) -> None:
        """Accept what a server that died had not; clear away what nobody goes on with."""
        for upload in self._book.in_state(COMPLETE):
            if time.time() - upload.changed_at > LEASE_S:
                self.settle(upload)
        self.inbox.sweep()

    def carry_out(self, case_id: str) -> bool:
        """Read and push what was accepted of a case, oldest first; False where another process is at it.

        What cannot be used ends the upload as done with the state `rejected` and reasons; where the store refuses, it
        is tried again later (StoreError is raised). Raises LeaseLost where another process may have taken it over.
        """
        with self._leases.keep(f"case:{case_id}", LEASE_S) as lease:
            if not lease:
                return False
            for upload in self._book.in_state(RECEIVED, case_id):
                lease.check()
                self._carry_out(upload, lease)
        return True

    def _carry_out(self, upload: Upload, lease: KeptLease) -> None:
        if upload.attempts >= MOST_ATTEMPTS:
            receipt = self._rejected(
                upload,
                InputError(
                    f"The case was given up: reading it failed unexpectedly {MOST_ATTEMPTS} times.",
                    action="Look at its images, and send it again.",
                ),
            )
        else:
            upload = self._book.try_again(upload, upload.attempts + 1)
            try:
                case_dir = case_folder(self.inbox.of(upload) / "case")
                accepted = datetime.fromtimestamp(upload.accepted_at or 0.0, UTC)
                receipt = self._handler.ingest_folder(case_dir, upload.site, lease.check, accepted)
            except (StoreError, LeaseLost):
                with contextlib.suppress(Conflict):  # whoever has it now may be done
                    self._book.try_again(upload, upload.attempts - 1)  # it is not the case's fault
                raise
            except PatientErased:  # nothing is kept, nor that it came
                self._book.remove(upload.upload_id)
                self._control.forget_case(upload.site, str(upload.case_id))
                self.inbox.discard(upload)
                return
            except AsdegError as error:
                receipt = self._rejected(upload, error)
        state = self._control.case(receipt.case_id, upload.site)
        if state is not None and self._control.case_history(upload.site, receipt.case_id)[-1].state != state.state:
            self._control.note_case(upload.site, state.patient_id, state.case_id, state.state)  # it stays what it was
        holds = self._holds(state) if state is not None and receipt.state != REJECTED else None
        self._book.finish(upload, DONE, receipt.model_dump(), holds)
        self.inbox.discard(upload)

    def _rejected(self, upload: Upload, error: AsdegError) -> CaseReceipt:
        assert upload.case_id is not None
        state = self._control.case(upload.case_id, upload.site)
        finding = Finding(code=error.code, file=error.file, message=error.message, action=error.action)
        if state is not None:
            reasons = [": ".join(part for part in (error.code, error.file, error.message) if part)]
            self._control.set_case_state(upload.site, state.patient_id, upload.case_id, REJECTED, reasons)
        return CaseReceipt(
            case_id=upload.case_id,
            site=upload.site,
            state=REJECTED,
            unchanged=False,
            sequences=[],
            rois=0,
            findings=[finding],
        )

    def _holds(self, state: CaseState) -> str:
        return _held(self._store.snapshot(), state)


def _held(snapshot: Snapshot, state: CaseState) -> str:
    """A name for all that the store holds of a case, by this version of the software."""
    where = {"site": state.site, "patient_id": state.patient_id}
    parts = [software_version()]
    for table in CASE_TABLES:
        heads = snapshot.heads(table, where, also=["row_hash"])
        parts += sorted(heads.keys["row_hash"].to_pylist()) if heads is not None else []
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _answer(error: AsdegError) -> dict[str, str]:
    return {"error": error.code, "message": error.message, "action": error.action, "file": error.file}
