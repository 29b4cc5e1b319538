"""``asdeg dicom listen`` as a process: settings, the file of sites, a push, a case, a clean end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
from pynetdicom import AE

from feature_store.audit import AuditLog
from infra.applications import application
from infra.bootstrap import House
from infra.settings import load_settings
from services.ingest.deidentification.site_key import new_key_file
from tests.services.dicom.doors import BOUNDARY, SITE, free_port, related, served
from tests.services.dicom.studies import ct_with_mask


def test_listen_takes_a_study_and_makes_its_case(tmp_path: Path) -> None:
    store, port = str(tmp_path / "store"), free_port()
    new_key_file(tmp_path / "keys" / f"{SITE}.key", store)
    sites = tmp_path / "sites.yaml"
    sites.write_text(f"{SITE}:\n  ae_titles: [SENDER]\n  hosts: [127.0.0.1]\n")
    environment = {
        "ASDEG_STORE": store,
        "ASDEG_PSEUDONYM_KEYS": str(tmp_path / "keys"),
        "ASDEG_DICOM_SITES": str(sites),
        "ASDEG_DICOM_QUIET_SECONDS": "0.5",
    }
    command = [str(Path(sys.executable).with_name("asdeg")), "dicom", "listen", "--port", str(port), "--json"]
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        study = ct_with_mask()
        entity = AE("SENDER")
        for one in (study[0], study[-1]):
            entity.add_requested_context(one.SOPClassUID, one.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", port)
        while not association.is_established:
            assert process.poll() is None
            time.sleep(0.2)
            association = entity.associate("127.0.0.1", port)
        assert [int(association.send_c_store(one).Status) for one in study[:4]] == [0] * 4
        house = House.open(load_settings(environment))
        with served(application(house, "dicom")) as url:  # the other door of the same house
            key = house.control.add_credential("pacs", "site", SITE)
            kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
            headers = {"X-API-Key": key, "Content-Type": kind}
            assert httpx.post(f"{url}/studies", content=related(study[4:]), headers=headers).status_code == 200
        association.release()
        while not (found := house.ingest.cases(SITE)) or found[0].state != "validated":
            assert process.poll() is None
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["sites"] == [SITE]
    assert len(house.store.snapshot().table("rois")) == 3
    audited = {
        (row.action, row.name, row.details["door"], row.details["instances"])
        for row in AuditLog(house.control).entries()
    }
    assert audited == {("push", "SENDER", "c-store", 4), ("push", "pacs", "stow-rs", 3)}
