"""The one place that picks implementations: store, control database, handlers. The applications are made of them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_store.control import ControlDatabase, default_url
from feature_store.errors import BlobCorrupt
from feature_store.run_progress import RunProgress
from feature_store.schedules import Schedules
from feature_store.store import FeatureStore
from infra.logging import start as start_logs
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.dicom import DicomDoors
    from models.combined import CombinedSignature
    from models.signature import Signature
    from services.ingest.deidentification.site_key import SiteKeys
    from services.ingest.handler import IngestHandler
    from services.ingest.intake import Intake
    from services.scoring.handler import ScoringHandler
    from services.scoring.score_log import ScoreLog
    from services.selection.handler import SelectionHandler
    from services.training.handler import TrainingHandler
    from services.training.locked_test import LockedTest
    from services.training.releases import Releases
    from services.training.retraining import Retraining


@dataclass(frozen=True)
class House:
    """An open store with its control database; handlers are made when first asked for."""

    settings: Settings
    store: FeatureStore
    control: ControlDatabase

    @classmethod
    def open(cls, settings: Settings, *, create: bool = False) -> House:
        """Raises StoreNotFound where there is no store and ``create`` is not set."""
        store = FeatureStore.open(settings.store, create=create)
        return cls(settings, store, ControlDatabase.open(settings.control or default_url(settings.store)))

    @classmethod
    def in_worker(cls, settings: dict[str, Any]) -> House:
        """In a process of its own: logs as elsewhere, and a house of its own."""
        chosen = Settings(**settings)
        start_logs(chosen.log_format, chosen.log_level)
        return cls.open(chosen)

    @cached_property
    def ingest(self) -> IngestHandler:
        from services.ingest.handler import IngestHandler

        return IngestHandler(self.store, self.control, self.pseudonym, dates=self)

    @cached_property
    def intake(self) -> Intake:
        from services.ingest.archive import Limits
        from services.ingest.inbox import Inbox
        from services.ingest.intake import Intake

        chosen = self.settings
        limits = Limits(chosen.upload_limit_mb << 20, chosen.unpacked_limit_mb << 20, chosen.upload_entries)
        folder = inbox_folder(chosen)
        inbox = Inbox(folder, self.control, limits, chosen.site_quota_mb << 20, chosen.upload_hours)
        return Intake(self.ingest, self.store, self.control, inbox)

    @cached_property
    def dicom(self) -> DicomDoors:
        from infra.dicom import DicomDoors

        return DicomDoors(
            self.settings,
            self.store,
            self.control,
            self.site_keys,
            lambda reading, site: self.ingest.ingest_reading(reading, site),
        )

    def set_index_date(self, site: str, patient_id: str, day: date) -> bool:
        """Of a case whose images' dates only the staged DICOM has; False where it is not there."""
        from infra.dicom import staging_folder, takes_dicom

        if not takes_dicom(self.settings) or not staging_folder(self.settings).is_dir():
            return False
        return self.dicom.assembler.set_index_date(site, patient_id, day)

    @cached_property
    def site_keys(self) -> SiteKeys:
        """The sites' pseudonym keys, wherever the settings say they are."""
        return site_keys(self.settings)

    def pseudonym(self, site: str, patient_id: str) -> str:
        """What the store knows a site's patient by: see :func:`pseudonymous`. Raises UsageError, SettingsError."""
        from services.ingest.deidentification.pseudonym import pseudonymous

        return pseudonymous(self.site_keys, site, patient_id)

    @cached_property
    def score_log(self) -> ScoreLog:
        from services.scoring.score_log import ScoreLog

        seconds, count = self.settings.score_flush_seconds, self.settings.score_flush_count
        return ScoreLog(self.store, self.control, seconds=seconds, count=count)

    @cached_property
    def scoring(self) -> ScoringHandler:
        from services.scoring.handler import ScoringHandler

        return ScoringHandler(self.store, self.score_log, self._signature)

    def _signature(self, name: str) -> Signature | CombinedSignature:
        from models import artefacts
        from models.selection.selector import Selector

        found = artefacts.load(name, self.store.blobs)
        if isinstance(found, Selector):
            raise BlobCorrupt("The released artefact is a selector.", action="Release another training run.")
        return found

    @cached_property
    def selection(self) -> SelectionHandler:
        from services.selection.handler import SelectionHandler

        return SelectionHandler(self.store, RunProgress(self.control))

    @cached_property
    def training(self) -> TrainingHandler:
        from infra.ray_spread import spread_of
        from services.training.handler import TrainingHandler

        return TrainingHandler(self.store, RunProgress(self.control), spread=spread_of(self.settings))

    @cached_property
    def releases(self) -> Releases:
        from services.training.releases import Releases

        return Releases(self.store)

    @cached_property
    def locked_test(self) -> LockedTest:
        from services.training.locked_test import LockedTest

        return LockedTest(self.store)

    @cached_property
    def retraining(self) -> Retraining:
        from services.training.retraining import Retraining

        return Retraining(self.store, self.control, self.training, self.releases)

    @cached_property
    def schedules(self) -> Schedules:
        return Schedules(self.control)


def inbox_folder(settings: Settings) -> Path:
    """Where uploads wait: never inside the store, which keeps no archive as it was sent."""
    if settings.inbox:
        return Path(settings.inbox).expanduser().resolve()
    if "://" in settings.store:
        name = hashlib.sha256(settings.store.encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"asdeg-inbox-{os.getuid()}-{name}"
    return Path(f"{settings.store}-inbox")


def site_keys(settings: Settings) -> SiteKeys:
    """Where a site's pseudonym key is looked for."""
    from services.ingest.deidentification.site_key import SiteKeys

    file, folder = settings.pseudonym_key_file, settings.pseudonym_keys
    return SiteKeys(settings.store, Path(file) if file else None, Path(folder) if folder else None)
