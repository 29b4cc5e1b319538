"""C-STORE and C-ECHO: who may associate, what is answered, and the limits."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless
from pynetdicom import AE, Association

from feature_store.errors import Conflict, SettingsError
from services.ingest.dicom.sites import DicomSite, DicomSites
from services.ingest.dicom.statuses import CANNOT_UNDERSTAND, DUPLICATE, SUCCESS
from services.ingest.dicom.store_scp import VERIFICATION, ListenerSettings, StoreListener
from tests.pipelines.imaging.dicom_folder import recoded
from tests.services.dicom.doors import SITE, Doors
from tests.services.dicom.studies import ct_study

SITES = {
    SITE: DicomSite(SITE, ("SENDER", "SHARED"), called="ASDEG_A", hosts=("127.0.0.0/8",)),
    "site_b": DicomSite("site_b", ("SHARED",), called="ASDEG_B"),
    "site_c": DicomSite("site_c", ("FAR",), hosts=("192.0.2.0/24",)),
}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Doors:
    return Doors(tmp_path_factory.mktemp("scp"), sites=SITES)


@pytest.fixture(scope="module")
def listener(doors: Doors) -> Iterator[StoreListener]:
    listener = doors.listener(associations=2, limit_bytes=50_000)
    listener.start()
    yield listener
    listener.stop()


def associate(
    port: int, calling: str = "SENDER", called: str = "ASDEG_A", syntax: str = ExplicitVRLittleEndian
) -> Association:
    entity = AE(calling)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    entity.add_requested_context(VERIFICATION)
    entity.add_requested_context(CTImageStorage, syntax)
    return entity.associate("127.0.0.1", port, ae_title=called)


def send(port: int, *datasets: Dataset, **peer: str) -> list[int]:
    association = associate(port, **peer)
    assert association.is_established
    try:
        return [int(association.send_c_store(one).get("Status", -1)) for one in datasets]
    finally:
        association.release()


def test_echo_and_store(doors: Doors, listener: StoreListener) -> None:
    association = associate(listener.port)
    assert association.send_c_echo().Status == SUCCESS
    association.release()
    assert send(listener.port, *ct_study()) == [SUCCESS] * 6
    assert send(listener.port, *(recoded(one, JPEGLSLossless) for one in ct_study()), syntax=JPEGLSLossless) == [0] * 6
    assert len(doors.staging.case(SITE, next(doors.staging.cases()).patient_id).names()) == 6


def test_the_pair_of_titles_and_the_address_say_the_site(doors: Doors, listener: StoreListener) -> None:
    send(listener.port, ct_study("SECRET-B")[0], calling="SHARED", called="ASDEG_B")
    assert "site_b" in {case.site for case in doors.staging.cases()}
    for calling, called in (("SENDER", "ASDEG_B"), ("NOBODY", "ASDEG_A"), ("FAR", "ASDEG_A"), ("SHARED", "OTHER")):
        association = associate(listener.port, calling, called)
        assert association.is_rejected


def test_a_refusal_says_why_and_nothing_of_the_patient(listener: StoreListener) -> None:
    burned, nameless = ct_study("SECRET-R")[:2]
    burned.BurnedInAnnotation, nameless.PatientID = "YES", ""
    association = associate(listener.port)
    answer = association.send_c_store(burned)
    assert answer.Status == CANNOT_UNDERSTAND
    assert answer.ErrorComment.startswith("DeidentificationRefused: An image is marked")
    assert "SECRET" not in str(answer)
    assert association.send_c_store(nameless).Status & 0xFF00 == 0xA900
    assert association.send_c_store(ct_study("SECRET-R")[2]).Status == SUCCESS
    assert association.send_c_store(ct_study("SECRET-R", seed=3)[2]).Status == DUPLICATE
    association.release()


def test_an_instance_past_the_limit_ends_the_association_and_no_more_than_two_are_open(listener: StoreListener) -> None:
    large = ct_study("SECRET-L", slices=1)[0]
    large.Rows, large.Columns, large.PixelData = 240, 240, bytes(240 * 240 * 2)
    association = associate(listener.port)
    association.send_c_store(large)
    association.join(10)
    assert not association.is_established
    open_ones = [associate(listener.port) for _ in range(2)]
    assert all(one.is_established for one in open_ones)
    assert associate(listener.port).is_rejected
    for one in open_ones:
        one.release()


def test_a_taken_port_is_said(doors: Doors, listener: StoreListener) -> None:
    with pytest.raises(Conflict, match="is taken"):
        StoreListener(doors.intake, doors.book, doors.audit, ListenerSettings(port=listener.port)).start()


def test_over_tls(doors: Doors, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    listener = doors.listener(certificate=str(certificate), key=str(key), authority=str(certificate))
    listener.start()
    try:
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        context.load_cert_chain(certificate, key)
        entity = AE("SENDER")
        entity.add_requested_context(VERIFICATION)
        association = entity.associate("127.0.0.1", listener.port, ae_title="ASDEG_A", tls_args=(context, "localhost"))
        assert association.send_c_echo().Status == SUCCESS
        association.release()
    finally:
        listener.stop()
    with pytest.raises(SettingsError):
        doors.listener(certificate=str(tmp_path / "no")).start()


def test_the_file_of_sites(tmp_path: Path) -> None:
    path = tmp_path / "sites.yaml"
    path.write_text(
        "hospital_a:\n  ae_titles: [PACS, CT 1]\n  label_map: totalsegmentator-ct\n  sequences: [ct, stir_sag]\n"
        "  hosts: [10.1.0.0/16]\nhospital_b:\n  ae_titles: [PACS]\n  hosts: [10.2.0.0/16]\nhospital_c:\n"
    )
    sites = DicomSites.read(path)
    assert sites.of("PACS", "ANY", "10.2.3.4") is sites.named("hospital_b")
    assert sites.of("PACS", "ANY", "::ffff:10.1.0.1") is sites.named("hospital_a")
    assert sites.of("PACS", "ANY", "10.3.0.1") is None
    assert sites.named("hospital_c").sequences == ("ct", "t1_sag", "t2_sag", "t2_ax")
    for text, said in (
        ("a:\n  ae_titles: [X]\nb:\n  ae_titles: [X]\n", "cannot be told apart"),
        ("a:\n  aetitles: [X]\n", "is no key that is known"),
        ("a:\n  hosts: [here]\n", "must be an address"),
        ("a:\n  ae_titles: [TOO LONG TO BE A TITLE]\n", "at most 16"),
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match=said):
            DicomSites.read(path)
