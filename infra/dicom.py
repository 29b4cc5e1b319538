"""The DICOM doors: what they are made of, and where instances wait for their case."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from feature_store.audit import AuditLog
from feature_store.control import ControlDatabase
from feature_store.erasures import erased
from feature_store.store import FeatureStore
from infra.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pipelines.cases.case import CaseReading
    from services.ingest.deidentification.site_key import SiteKeys
    from services.ingest.dicom.assembler import Assembler
    from services.ingest.dicom.intake import Intake
    from services.ingest.dicom.sites import DicomSites
    from services.ingest.dicom.staging import Staging
    from services.ingest.dicom.store_scp import StoreListener
    from services.ingest.messages import CaseReceipt


@dataclass(frozen=True)
class DicomDoors:
    """The parts of both doors, over one staging folder. ``ingest`` takes what was assembled into the store."""

    settings: Settings
    store: FeatureStore
    control: ControlDatabase
    site_keys: SiteKeys
    ingest: Callable[[CaseReading, str], CaseReceipt]

    @cached_property
    def sites(self) -> DicomSites:
        """Of the settings' file. Raises SettingsError."""
        from services.ingest.dicom.sites import DicomSites

        path = self.settings.dicom_sites
        return DicomSites.read(Path(path).expanduser()) if path else DicomSites()

    @cached_property
    def staging(self) -> Staging:
        from services.ingest.dicom.staging import Staging

        return Staging(staging_folder(self.settings), int(self.settings.dicom_staging_limit_gb * 2**30))

    @cached_property
    def intake(self) -> Intake:
        from services.ingest.dicom.intake import Intake

        return Intake(self.staging, self.control, self.site_keys, lambda: erased(self.store.snapshot()))

    @cached_property
    def assembler(self) -> Assembler:
        from services.ingest.dicom.assembler import Assembler, Times

        times = Times(self.settings.dicom_quiet_seconds, self.settings.dicom_keep_hours * 3600)
        return Assembler(self.staging, self.sites, self.store, self.control, self.site_keys, self.ingest, times)

    def listener(self, host: str, port: int) -> StoreListener:
        """The C-STORE door, closed."""
        from services.ingest.dicom.store_scp import ListenerSettings, StoreListener

        chosen = self.settings
        settings = ListenerSettings(
            host=host,
            port=port,
            associations=chosen.dicom_associations,
            timeout_s=chosen.dicom_timeout_seconds,
            limit_bytes=chosen.dicom_instance_limit_mb << 20,
            certificate=chosen.dicom_tls_certificate,
            key=chosen.dicom_tls_key,
            authority=chosen.dicom_tls_authority,
        )
        return StoreListener(self.intake, self.sites, AuditLog(self.control), settings)

    def app(self) -> FastAPI:
        """STOW-RS."""
        from services.access import AtOnce
        from services.ingest.dicom.stow import build_app

        return build_app(
            self.intake,
            self.assembler,
            self.sites,
            self.site_keys,
            self.control,
            AuditLog(self.control),
            self.settings.dicom_instance_limit_mb << 20,
            AtOnce(self.settings.dicom_requests_at_once),
            self.settings.body_limit_mb << 20,
        )


def takes_dicom(settings: Settings) -> bool:
    """Whether the doors can be opened: DICOM comes with real patient ids, which need a pseudonym key."""
    return bool(settings.pseudonym_keys or settings.pseudonym_key_file)


def staging_folder(settings: Settings) -> Path:
    """Where de-identified instances wait for their case: beside the store, as the inbox is."""
    if settings.dicom_staging:
        return Path(settings.dicom_staging).expanduser().resolve()
    if "://" in settings.store:
        name = hashlib.sha256(settings.store.encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"asdeg-dicom-{os.getuid()}-{name}"
    return Path(f"{settings.store}-dicom")


class StagedPatients:
    """The staging folder as a door that an erasure clears (:class:`feature_store.erasure.Door`)."""

    def __init__(self, settings: Settings) -> None:
        self._folder = staging_folder(settings)

    def has(self, site: str, patient_id: str) -> bool:
        """Whether instances of the patient are staged."""
        return self._folder.is_dir() and bool(self._staging().case(site, patient_id).names())

    def erase(self, site: str, patient_id: str, recorded_at: float) -> tuple[int, int]:
        """Remove them: how many files, and none that others are at: an assembly under way is begun again."""
        return (self._staging().erase(site, patient_id), 0) if self._folder.is_dir() else (0, 0)

    def _staging(self) -> Staging:
        from services.ingest.dicom.staging import Staging

        return Staging(self._folder, 0)
