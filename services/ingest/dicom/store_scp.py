"""C-STORE and C-ECHO (DICOM PS3.4 annexes B and A): studies in, as scanners and PACS push them.

Who a peer is, is decided when it asks for an association (:mod:`services.ingest.dicom.sites`): one that nobody knows is
rejected. An instance stays in memory until it is de-identified and on the disk, and only then is answered; one that
grows past the limit ends its association.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.pdu import P_DATA_TF

from feature_store.audit import AuditLog
from feature_store.control import Credential
from feature_store.errors import Conflict, SettingsError
from services.access import SITE
from services.ingest.dicom.intake import SYNTAXES, Intake, acts_of
from services.ingest.dicom.sites import DicomSite, DicomSites
from services.ingest.dicom.statuses import NOT_AUTHORISED, SUCCESS

log = structlog.get_logger(__name__)

VERIFICATION = "1.2.840.10008.1.1"
_COMMENT_LETTERS = 64
_REJECTED = (0x01, 0x01, 0x03)
"""Permanently, by the service user: calling AE title not recognised."""


@dataclass(frozen=True)
class ListenerSettings:
    """``certificate`` and ``key`` turn TLS on; with ``authority`` peers have to show a certificate of it."""

    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = "ASDEG"
    associations: int = 10
    timeout_s: float = 60.0
    limit_bytes: int = 1 << 30
    certificate: str = ""
    key: str = ""
    authority: str = ""


class StoreListener:
    """The C-STORE door, open from :meth:`start` to :meth:`stop`."""

    def __init__(self, intake: Intake, sites: DicomSites, audit: AuditLog, settings: ListenerSettings) -> None:
        self._intake, self._sites, self._audit, self._settings = intake, sites, audit, settings
        self._server: Any = None

    @property
    def port(self) -> int:
        """Where it listens (with port 0, the one that was free)."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen, in threads. Raises Conflict where the port is taken, SettingsError for TLS files."""
        _config.LOG_HANDLER_LEVEL = "none"
        _config.UNRESTRICTED_STORAGE_SERVICE = False
        entity = AE(self._settings.ae_title)
        entity.maximum_associations = self._settings.associations
        entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = self._settings.timeout_s
        entity.maximum_pdu_size = 1 << 17
        entity.add_supported_context(VERIFICATION)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), list(SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_PDU_RECV, self._received),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]
        try:
            self._server = entity.start_server(
                (self._settings.host, self._settings.port),
                block=False,
                ssl_context=_tls(self._settings),
                evt_handlers=handlers,
            )
        except OSError:
            raise Conflict(
                f"Port {self._settings.port} of {self._settings.host} is taken.",
                action="Choose another one: ASDEG_DICOM_PORT.",
            ) from None

    def stop(self) -> None:
        """Take no more; associations that are open are aborted, and their peers send again what was not answered."""
        if self._server is not None:
            for association in self._server.active_associations:
                association.abort()
            self._server.shutdown()
            self._server = None

    def _requested(self, event: Any) -> None:
        association = event.assoc
        site = self._site(association)
        if site is None:
            log.warning("association rejected", address=association.requestor.address)
            association.acse.send_reject(*_REJECTED)
            association.is_rejected = True
            association.kill()
            return
        association.asdeg_site, association.asdeg_bytes, association.asdeg_outcomes = site, 0, []

    def _site(self, association: Any) -> DicomSite | None:
        asked = association.requestor.primitive
        calling, called = (str(title or "").strip() for title in (asked.calling_ae_title, asked.called_ae_title))
        return self._sites.of(calling, called, association.requestor.address)

    def _received(self, event: Any) -> None:
        """Count what is in memory of the instance that is coming."""
        if isinstance(event.pdu, P_DATA_TF) and hasattr(event.assoc, "asdeg_bytes"):
            event.assoc.asdeg_bytes += sum(len(item) for item in event.pdu.presentation_data_value_items)
            if event.assoc.asdeg_bytes > self._settings.limit_bytes:
                log.warning("association aborted", reason="an instance is too large")
                event.assoc.abort()

    def _store(self, event: Any) -> int | Dataset:
        event.assoc.asdeg_bytes = 0
        site = getattr(event.assoc, "asdeg_site", None)
        if site is None:
            return NOT_AUTHORISED
        outcome = self._intake.take(_reader(event), site)
        event.assoc.asdeg_outcomes.append(outcome)
        event.request.DataSet = None
        if not outcome.refused:
            return outcome.status
        answer = Dataset()
        answer.Status, answer.ErrorComment = outcome.status, outcome.reason[:_COMMENT_LETTERS]
        return answer

    def _closed(self, event: Any) -> None:
        site, outcomes = getattr(event.assoc, "asdeg_site", None), getattr(event.assoc, "asdeg_outcomes", [])
        if site is not None and outcomes:
            sender = Credential(event.assoc.requestor.ae_title.strip(), SITE, site.name)
            self._audit.record(sender, *acts_of(outcomes, site.name, "c-store"))


def _reader(event: Any) -> Callable[[], Dataset]:
    def read() -> Dataset:
        dataset: Dataset = event.dataset
        dataset.file_meta = event.file_meta
        return dataset

    return read


def _tls(settings: ListenerSettings) -> ssl.SSLContext | None:
    if not settings.certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(Path(settings.certificate), Path(settings.key) if settings.key else None)
        if settings.authority:
            context.load_verify_locations(settings.authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError):
        raise SettingsError(
            "The DICOM door's certificate, key or authority cannot be read.",
            action="Check ASDEG_DICOM_TLS_CERTIFICATE, ASDEG_DICOM_TLS_KEY and ASDEG_DICOM_TLS_AUTHORITY.",
        ) from None
    return context
