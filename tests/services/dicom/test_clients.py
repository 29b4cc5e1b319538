"""The real CT series, pushed by real clients and a real PACS by each door, ends as the same features.

``dicomweb-client`` (STOW-RS), DCMTK's ``storescu`` (C-STORE), and Orthanc sending a study by both; beside them the
case folder with the label map as NIfTI.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from pydicom.dataset import Dataset

from pipelines.cases.manifest import case_id
from pipelines.extraction.plan import ExtractionSettings
from pipelines.extraction.run import extract
from services.ingest.deidentification.pseudonym import pseudonym
from services.ingest.dicom.sites import DicomSite
from tests.pipelines.real_cases import ct_dicom
from tests.services.dicom.doors import SITE, Doors, needed
from tests.services.dicom.orthanc import Orthanc, orthanc
from tests.services.dicom.studies import real_ct, write_files

pytestmark = pytest.mark.cores
FOLDER = "ct-dicom"


@dataclass(frozen=True)
class Sent:
    doors: Doors
    url: str
    key: str
    port: int
    pacs: Orthanc
    folder: Path

    def by_dicomweb_client(self, study: list[Dataset]) -> None:
        session = create_session_from_user_pass("any", self.key)
        client = DICOMwebClient(self.url, session=session, chunk_size=100_000)  # sent in chunks, of unknown length
        answer = client.store_instances(study)
        assert len(answer.ReferencedSOPSequence) == len(study)
        assert "FailedSOPSequence" not in answer

    def by_storescu(self, study: list[Dataset]) -> None:
        files = write_files(study, self.folder / "files")
        peer = ["-aet", "STORESCU", "-aec", "ASDEG", "127.0.0.1", str(self.port)]
        command = ["storescu", "-v", "-R", "-xv", *peer, *map(str, files)]  # what it needs, JPEG 2000 as it is
        sent = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert sent.returncode == 0, sent.stderr
        assert (sent.stdout + sent.stderr).count("Success") == len(files)
        assert "JPEG 2000 (Lossless only) -> JPEG 2000 (Lossless only)" in sent.stdout + sent.stderr

    def by_orthanc_c_store(self, study: list[Dataset]) -> None:
        assert self.pacs.send_by_c_store(self.pacs.upload(study)) == 0

    def by_orthanc_stow(self, study: list[Dataset]) -> None:
        self.pacs.send_by_stow(self.pacs.upload(study))


WAYS: dict[str, Callable[[Sent, list[Dataset]], None]] = {
    "SECRET-STOW": Sent.by_dicomweb_client,
    "SECRET-SCU": Sent.by_storescu,
    "SECRET-PACS-SCU": Sent.by_orthanc_c_store,
    "SECRET-PACS-STOW": Sent.by_orthanc_stow,
}


@pytest.fixture(scope="module")
def sent(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """The series of a patient for each way, sent by it, beside the folder's; all assembled and extracted."""
    needed("storescu", "Orthanc")
    folder = tmp_path_factory.mktemp("clients")
    doors = Doors(folder / "house", sites={SITE: DicomSite(SITE, ("STORESCU", "ORTHANC"))})
    key = doors.key()
    listener = doors.listener()
    listener.start()
    (folder / "pacs").mkdir()
    try:
        with (
            doors.over_http() as url,
            orthanc(folder / "pacs", dicom_port=listener.port, dicomweb=url, key=key) as pacs,
        ):
            all_ways = Sent(doors, url, key, listener.port, pacs, folder)
            for patient, way in WAYS.items():
                way(all_ways, real_ct(shared_data, patient))
    finally:
        listener.stop()
    receipts = doors.assembled()
    assert [(one.state, one.rois, one.findings) for one in receipts] == [("validated", 5, [])] * len(WAYS)
    doors.handler.ingest_folder(ct_dicom(shared_data, folder / "case", site=SITE, patient_id=FOLDER), SITE)
    report = extract(doors.store, ExtractionSettings(rois="every", encoder=None, cpus=2), doors.control)
    assert report.failed == 0
    return all_ways


def test_every_case_is_extracted(sent: Sent) -> None:
    assert {status.state for status in sent.doors.handler.cases(SITE)} == {"extracted"}
    assert len(sent.doors.handler.cases(SITE)) == len(WAYS) + 1


@pytest.mark.parametrize("patient", WAYS)
def test_features_are_those_of_the_case_folder_bit_for_bit(sent: Sent, patient: str) -> None:
    token = pseudonym(sent.doors.keys.needed(SITE), patient)
    ours, folders = (_radiomics(sent.doors, one) for one in (token, FOLDER))
    assert len(folders) == 5
    assert ours == folders
    images = {row["patient_id"]: row["image_hash"] for row in sent.doors.case_rows()["series"]}
    assert images[token] == images[FOLDER]


def test_what_was_sent_again_changes_nothing(sent: Sent, shared_data: Path) -> None:
    pushes = sent.doors.store.snapshot().sequence
    assert set(sent.doors.take(*real_ct(shared_data, "SECRET-STOW")[:-1])) == {0}
    assert sent.doors.assembled() == []
    assert sent.doors.store.snapshot().sequence == pushes


def test_no_identifier_is_anywhere(sent: Sent) -> None:
    for path in sent.doors.folder.rglob("*"):
        assert "SECRET" not in path.name
        if path.is_file():
            assert b"SECRET" not in path.read_bytes(), path.name


def _radiomics(doors: Doors, patient: str) -> dict[tuple[str, ...], tuple[float, ...]]:
    where = {"site": SITE, "patient_id": patient, "case_id": case_id(SITE, patient)}
    rows = doors.store.snapshot().table("radiomics", where=where).to_pylist()
    key = ("sequence", "structure", "level", "side", "segmentation", "feature_set")
    assert all(row["error"] is None for row in rows)
    return {tuple(row[name] for name in key): tuple(row["values"]) for row in rows}
