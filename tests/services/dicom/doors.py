"""Both DICOM doors over a store in a folder, on loopback ports that were free."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from pydicom import dcmread
from pydicom.dataset import Dataset

from feature_store.audit import AuditLog
from feature_store.control import ControlDatabase, default_url
from feature_store.erasures import erased
from feature_store.store import FeatureStore
from services.access import AtOnce
from services.ingest.deidentification.site_key import SiteKeys, new_key_file
from services.ingest.dicom.assembler import Assembler, Times
from services.ingest.dicom.intake import Intake
from services.ingest.dicom.sites import DicomSite, DicomSites
from services.ingest.dicom.staging import Staging
from services.ingest.dicom.store_scp import ListenerSettings, StoreListener
from services.ingest.dicom.stow import build_app
from services.ingest.handler import IngestHandler
from services.ingest.messages import CaseReceipt
from tests.services.dicom.studies import as_file

SITE = "site_a"
BOUNDARY = "beginning-of-a-part"


@dataclass
class Doors:
    """A house with the DICOM doors; ``quiet`` and ``keep`` in seconds, ``limit`` in bytes."""

    folder: Path
    quiet: float = 0.0
    keep: float = 3600.0
    limit: int = 1 << 30
    instance_limit: int = 64 << 20
    sites: dict[str, DicomSite] = field(default_factory=dict)

    def __post_init__(self) -> None:
        uri = str(self.folder / "store")
        self.store = FeatureStore.open(uri, create=True)
        self.control = ControlDatabase.open(default_url(uri))
        keys = self.folder / "keys"
        for site in (SITE, "site_b"):
            if not (keys / f"{site}.key").exists():
                new_key_file(keys / f"{site}.key", uri)
        self.keys = SiteKeys(uri, folder=keys)
        self.book = DicomSites(self.sites or {SITE: DicomSite(SITE, ("SENDER",), hosts=("127.0.0.1",))})
        self.staging = Staging(self.folder / "staging", self.limit)
        self.intake = Intake(self.staging, self.control, self.keys, lambda: erased(self.store.snapshot()))
        self.assembler = Assembler(
            self.staging,
            self.book,
            self.store,
            self.control,
            self.keys,
            lambda reading, site: self.handler.ingest_reading(reading, site),
            Times(quiet_s=self.quiet, keep_s=self.keep, tick_s=0.05),
        )
        self.handler = IngestHandler(self.store, self.control, dates=self.assembler)
        self.audit = AuditLog(self.control)
        self.at_once = AtOnce(8)
        parts = (self.intake, self.assembler, self.book, self.keys, self.control, self.audit)
        self.app = build_app(*parts, self.instance_limit, self.at_once, body_limit=1 << 20)

    def take(self, *datasets: Dataset, site: str = SITE) -> list[int]:
        """The statuses of instances that go straight to the intake, as files."""
        site_of = self.book.named(site)
        read = [partial(dcmread, io.BytesIO(as_file(one))) for one in datasets]
        return [self.intake.take(one, site_of).status for one in read]

    def assembled(self) -> list[CaseReceipt]:
        return self.assembler.assemble_due()

    def case_rows(self) -> dict[str, list[dict[str, Any]]]:
        """What the store says of images and regions, without what differs from push to push."""
        snapshot = self.store.snapshot()
        columns = {
            "series": ("patient_id", "case_id", "sequence", "image_hash", "days_from_index"),
            "rois": ("case_id", "sequence", "structure", "level", "side", "image_hash", "mask_hash", "voxel_count"),
        }  # fmt: skip
        return {
            table: sorted(({n: row[n] for n in names} for row in snapshot.table(table).to_pylist()), key=str)
            for table, names in columns.items()
        }

    def over_http(self) -> contextlib.AbstractContextManager[str]:
        """The STOW-RS door on a real server."""
        return served(self.app)

    def listener(self, **settings: Any) -> StoreListener:
        return StoreListener(self.intake, self.book, self.audit, ListenerSettings(port=0, **settings))

    def key(self, name: str = "pacs", site: str = SITE) -> str:
        return self.control.add_credential(name, "site", site)


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application on a real server; the address of its DICOMweb."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/dicom-web"
    finally:
        server.should_exit = True
        thread.join()


def related(datasets: Sequence[Dataset]) -> bytes:
    """A multipart/related body."""
    parts = [
        f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + as_file(one) + b"\r\n" for one in datasets
    ]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def stow(url: str, key: str, body: bytes, path: str = "/studies", kind: str = "application/dicom") -> httpx.Response:
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": f'multipart/related; type="{kind}"; boundary={BOUNDARY}',
    }
    return httpx.post(url + path, content=body, headers=headers, timeout=60)


def needed(*programs: str) -> None:
    """Skip, naming what is missing; in CI everything has to be there."""
    missing = [name for name in programs if not shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")]
    if missing:
        message = f"missing: {', '.join(missing)} (apt-get install dcmtk orthanc orthanc-dicomweb)"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
