"""A real PACS: Orthanc, started on loopback with a configuration of its own, which sends what it is given."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydicom.dataset import Dataset

from tests.services.dicom.doors import free_port, needed
from tests.services.dicom.studies import as_file

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass(frozen=True)
class Orthanc:
    """Its REST interface."""

    url: str

    def upload(self, datasets: list[Dataset]) -> str:
        """Give it instances of one study; returns its own name for the study."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            answers = [client.post("/instances", content=as_file(one)) for one in datasets]
        assert {answer.status_code for answer in answers} == {200}
        (study,) = {answer.json()["ParentStudy"] for answer in answers}
        return str(study)

    def send_by_c_store(self, study: str) -> int:
        """How many instances it could not send."""
        answer = httpx.post(f"{self.url}/modalities/asdeg/store", content=study, timeout=120)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["FailedInstancesCount"])

    def send_by_stow(self, study: str) -> None:
        answer = httpx.post(
            f"{self.url}/dicom-web/servers/asdeg/stow",
            json={"Resources": [study], "Synchronous": True},
            timeout=120,
        )
        assert answer.status_code == 200, answer.text


@contextlib.contextmanager
def orthanc(folder: Path, *, dicom_port: int, dicomweb: str, key: str, title: str = "ORTHANC") -> Iterator[Orthanc]:
    """Running, and knowing both doors as ``asdeg``."""
    needed("Orthanc")
    assert PLUGIN.exists(), "orthanc-dicomweb is not installed"
    port = free_port()
    settings = {
        "Name": "test", "StorageDirectory": str(folder), "IndexDirectory": str(folder), "Plugins": [str(PLUGIN)],
        "HttpPort": port, "HttpBindAddresses": ["127.0.0.1"], "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False, "DicomPort": free_port(), "DicomAet": title, "DicomServerEnabled": False,
        "DicomModalities": {"asdeg": ["ASDEG", "127.0.0.1", dicom_port]},
        "DicomWeb": {
            "Enable": True, "Root": "/dicom-web/",
            "Servers": {"asdeg": {"Url": f"{dicomweb}/", "Username": "orthanc", "Password": key}},
        },
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            for _ in range(200):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/system", timeout=5).status_code == 200:
                        break
                assert process.poll() is None, (folder / "orthanc.log").read_text()
                time.sleep(0.05)
            yield Orthanc(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(20)
