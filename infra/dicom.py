"""The DICOM doors of a house: what they are made of, and the process that listens for C-STORE and makes the cases.

STOW-RS is an application of its own beside the other services. C-STORE and the assembly of cases run in one further
process: an image that brings its reader down takes along that process, which is started again.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_store.audit import AuditLog
from feature_store.erasures import erased
from infra.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from infra.bootstrap import House
    from services.ingest.dicom.assembler import Assembler
    from services.ingest.dicom.intake import Intake
    from services.ingest.dicom.sites import DicomSites
    from services.ingest.dicom.staging import Staging
    from services.ingest.dicom.store_scp import StoreListener

DEFAULT_PORT = 11112
AGAIN_S = 10.0


@dataclass(frozen=True)
class DicomDoors:
    """The parts of both doors, over one staging folder."""

    house: House

    @cached_property
    def sites(self) -> DicomSites:
        """Of the settings' file. Raises SettingsError."""
        from services.ingest.dicom.sites import DicomSites

        path = self.house.settings.dicom_sites
        return DicomSites.read(Path(path).expanduser()) if path else DicomSites()

    @cached_property
    def staging(self) -> Staging:
        from services.ingest.dicom.staging import Staging

        return Staging(staging_folder(self.house.settings), int(self.house.settings.dicom_staging_limit_gb * 2**30))

    @cached_property
    def intake(self) -> Intake:
        from services.ingest.dicom.intake import Intake

        house = self.house
        return Intake(self.staging, house.control, house.site_keys, lambda: erased(house.store.snapshot()))

    @cached_property
    def assembler(self) -> Assembler:
        from services.ingest.dicom.assembler import Assembler, Times

        house = self.house
        times = Times(house.settings.dicom_quiet_seconds, house.settings.dicom_keep_hours * 3600)
        return Assembler(
            self.staging,
            self.sites,
            house.store,
            house.control,
            house.site_keys,
            lambda reading, site: house.ingest.ingest_reading(reading, site),
            times,
        )

    def listener(self, host: str, port: int) -> StoreListener:
        """The C-STORE door, closed."""
        from services.ingest.dicom.store_scp import ListenerSettings, StoreListener

        chosen = self.house.settings
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
        return StoreListener(self.intake, self.sites, AuditLog(self.house.control), settings)

    def app(self) -> FastAPI:
        """STOW-RS."""
        from services.ingest.dicom.stow import build_app

        return build_app(
            self.intake,
            self.assembler,
            self.sites,
            self.house.site_keys,
            self.house.control,
            AuditLog(self.house.control),
            self.house.settings.dicom_instance_limit_mb << 20,
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


def erase_staged(settings: Settings, site: str, patient_id: str) -> int:
    """Remove a patient's instances from the staging folder; returns how many files."""
    from services.ingest.dicom.staging import Staging

    folder = staging_folder(settings)
    return Staging(folder, 0).erase(site, patient_id) if folder.is_dir() else 0


def listen(house: House, host: str, port: int | None, stopped: threading.Event) -> None:
    """Listen for C-STORE (unless ``port`` is None) and make the cases of what either door took, until ``stopped``."""
    doors = DicomDoors(house)
    listener = None if port is None else doors.listener(host, port)
    if listener is not None:
        listener.start()
    try:
        doors.assembler.run(stopped)
    finally:
        if listener is not None:
            listener.stop()


class DicomProcess:
    """:func:`listen` in a process of its own, as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: Any = None
        self._started = -AGAIN_S

    def keep_alive(self) -> None:
        """Start it, or start it again where it died, though not at once each time."""
        alive = self._process is not None and self._process.is_alive()
        if not alive and time.monotonic() - self._started > AGAIN_S:
            self._started = time.monotonic()
            context = multiprocessing.get_context("spawn")
            self._process = context.Process(target=_listen, args=(self._settings.model_dump(),), daemon=True)
            self._process.start()

    def stop(self) -> None:
        """End it; what it was assembling is assembled when it starts again."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(20)
            if self._process.is_alive():
                self._process.kill()


def _listen(settings: dict[str, Any]) -> None:
    from infra.background import house_of

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    house = house_of(settings)
    listen(house, house.settings.host, house.settings.dicom_port, stopped)
