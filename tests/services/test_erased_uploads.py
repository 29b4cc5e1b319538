"""What waits to become a case of an erased patient goes too, and nothing of what comes later is kept."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from sqlalchemy import update

import infra.cli
from feature_store.control import Credential
from feature_store.control_tables import UploadRow
from feature_store.erasure import EraseSettings, ErasureReport, erase_patient
from feature_store.errors import PatientErased
from feature_store.leases import Leases
from infra.bootstrap import House
from pipelines.phantom import PhantomCase, PhantomCohort
from services.ingest import handler
from services.ingest.handler import IngestHandler
from tests.feature_store.every_byte import Marks, look
from tests.services.door import packed, settings_of, waiting

PATIENT = "pseudonym-4711"
NOW = EraseSettings(grace_hours=0.0, patience_s=0.0)
BY = Credential("alice", "operator", None)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("ASDEG_CACHE", str(tmp_path / "cache"))
    opened = House.open(settings_of(tmp_path), create=True)
    yield opened
    opened.control.close()


@pytest.fixture
def case(phantoms: PhantomCohort, tmp_path_factory: pytest.TempPathFactory) -> PhantomCase:
    """A patient whose id can be looked for."""
    given = phantoms.cases[0]
    folder = tmp_path_factory.mktemp("case") / "case"
    shutil.copytree(given.folder, folder)
    manifest = folder / "case.yaml"
    manifest.write_text(manifest.read_text().replace(f"patient_id: {given.patient_id}", f"patient_id: {PATIENT}"))
    return dataclasses.replace(given, patient_id=PATIENT, folder=folder)


@pytest.fixture
def other(case: PhantomCase, phantoms: PhantomCohort) -> PhantomCase:
    return next(one for one in phantoms.cases[1:] if one.site == case.site)


def marks(case: PhantomCase) -> Marks:
    """The patient's id, and voxels of the CT as its file and as the store has them."""
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(next(case.folder.glob("ct.n*"))))
    return Marks((case.patient_id,), (), np.ascontiguousarray(voxels[voxels.shape[0] // 2]).tobytes())


def left(house: House, case: PhantomCase) -> list[str]:
    """Files under the store, beside it and in the cache that still have something of the patient."""
    return sorted(look(str(Path(house.settings.store).parent), marks(case)))


def erase(house: House, case: PhantomCase) -> ErasureReport:
    doors = [house.intake]
    return erase_patient(
        house.store, house.control, case.site, case.patient_id, reason="r", erased_by=BY, settings=NOW, doors=doors
    )


def test_uploads_that_wait_are_erased_and_later_ones_refused(
    house: House, case: PhantomCase, other: PhantomCase
) -> None:
    waits = waiting(house, case)
    inbox, data = house.intake.inbox, packed(case.folder)
    complete = inbox.begin(case.site, "pacs", len(data))  # whole, and its server died before it was unpacked
    inbox.packed(complete).write_bytes(data)
    inbox.book.complete(inbox.book.advance(complete, len(data)))
    kept = waiting(house, other)
    before = left(house, case)
    assert any("ct" in Path(path).name and "inbox" in path for path in before)  # the search finds what there is
    command = ["--store", house.settings.store, "store", "erase", case.patient_id, "--site", case.site, "--yes"]
    assert infra.cli.main([*command, "--grace-hours", "0"]) == 0
    house.control.close()
    assert left(house, case) == []
    assert house.control.case(waits.case_id) is None
    assert house.intake.carry_out(kept.case_id)  # the other patient's is as it was
    assert house.ingest.case(kept.case_id).state == "validated"

    with pytest.raises(PatientErased):
        waiting(house, case)
    assert infra.cli.main(["--store", house.settings.store, "ingest", str(case.folder), "--site", case.site]) == 1
    house.control.close()
    assert left(house, case) == []


def test_an_upload_that_another_process_reads_is_waited_for(house: House, case: PhantomCase) -> None:
    case_id = waiting(house, case).case_id
    with Leases(house.control).take(f"case:{case_id}", "another", 60):
        assert erase(house, case).state == "begun"
        assert house.intake.inbox.book.in_state("received", case_id)
    assert erase(house, case).state == "finished"
    house.control.close()
    assert left(house, case) == []


def test_one_that_was_accepted_at_the_last_moment_leaves_nothing(house: House, case: PhantomCase) -> None:
    case_id = waiting(house, case).case_id
    erase_patient(  # it did not know of the inbox
        house.store, house.control, case.site, case.patient_id, reason="r", erased_by=BY, settings=NOW
    )
    row = vars(house.intake.inbox.book.create(case.site, "pacs", 1, None, 1 << 30)) | {"case_id": case_id}
    row |= {"state": "received", "accepted_at": row["created_at"]}
    with house.control.writing() as connection:
        where = UploadRow.upload_id == row["upload_id"]
        connection.execute(update(UploadRow).where(where).values(row))
    shutil.copytree(case.folder, house.intake.inbox.folder / row["upload_id"] / "case" / "case")
    house.control.note_case(case.site, case.patient_id, case_id, "received")
    assert house.intake.carry_out(case_id)
    assert house.control.case(case_id) is None
    assert house.control.case_history(case.site, case_id) == []
    house.intake.inbox.sweep()  # the folder whose upload is no longer on record
    house.control.wipe()
    house.control.close()
    assert left(house, case) == []


def test_erased_while_it_is_stored_its_images_are_taken_back(
    house: House,
    case: PhantomCase,
    other: PhantomCase,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    twin = tmp_path_factory.mktemp("twin") / "case"  # another patient with one of the same images
    shutil.copytree(other.folder, twin)
    for path in twin.glob("ct*"):
        path.unlink()
    for path in case.folder.glob("ct*"):
        shutil.copy(path, twin)
    house.ingest.ingest_folder(twin, other.site)
    theirs = set(house.store.blobs.names("images"))
    store_overlays, images = handler.store_overlays, list[int]()

    def meanwhile(overlays: Any, blobs: Any) -> None:
        store_overlays(overlays, blobs)
        images.append(len(list(blobs.names("images"))))
        house.control.note_case(case.site, case.patient_id, "c1", "received")  # as its upload was
        assert erase(house, case).state == "finished"

    monkeypatch.setattr(handler, "store_overlays", meanwhile)
    with pytest.raises(PatientErased):
        house.ingest.ingest_folder(case.folder, case.site)
    assert images == [len(theirs) + 3]
    assert set(house.store.blobs.names("images")) == theirs
    house.control.close()
    assert all("/images/" in path for path in left(house, case))  # the twin's CT


class Killed(BaseException):
    """Nothing catches it."""


def test_what_a_killed_reading_had_kept_goes_with_the_upload(
    house: House, case: PhantomCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    case_id = waiting(house, case).case_id

    def killed(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(IngestHandler, "_push", killed)
        with pytest.raises(Killed):
            house.intake.carry_out(case_id)
    assert list(house.store.blobs.names("images"))
    assert erase(house, case).state == "finished"
    assert list(house.store.blobs.names("images")) == []
    house.control.close()
    assert left(house, case) == []
