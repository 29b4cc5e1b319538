"""From staged instances to a case: what is taken, and that neither order nor pieces nor doors matter."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from feature_store.control import Credential
from feature_store.erasure import erase_patient
from feature_store.errors import Conflict
from pipelines.cases.manifest_schema import Clinical
from services.ingest.dicom.sites import DicomSite, DicomSites
from services.ingest.dicom.statuses import (
    DUPLICATE,
    ELEMENTS_DISCARDED,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    SUCCESS,
)
from services.ingest.messages import DayOfSurgery
from tests.pipelines.imaging.dicom_folder import recoded
from tests.services.dicom.doors import SITE, Doors
from tests.services.dicom.studies import PATIENT, blocks, ct_study, ct_with_mask, segmentation, structures, t2_study


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    return Doors(tmp_path)


@pytest.fixture(scope="module")
def study() -> list[Dataset]:
    """A CT with a mask and a T2 of another day: two studies of one patient."""
    return [*ct_with_mask(), *t2_study()]


@pytest.fixture(scope="module")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def at_once(study: list[Dataset], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Doors, dict]]:  # type: ignore[type-arg]
    doors = Doors(tmp_path_factory.mktemp("at-once"))
    doors.take(*study)
    doors.assembled()
    return doors, doors.case_rows()


def test_the_series_of_a_patient_become_one_case(at_once: tuple[Doors, dict]) -> None:  # type: ignore[type-arg]
    doors, rows = at_once
    assert [row["sequence"] for row in rows["series"]] == ["ct", "t2_sag"]
    assert len({row["case_id"] for row in rows["series"]}) == 1
    assert {(row["structure"], row["level"]) for row in rows["rois"]} == {
        ("vertebra", "L5"), ("vertebra", "L4"), ("vertebra", "all"),
    }  # fmt: skip
    (state,) = doors.handler.cases(SITE)
    assert (state.state, state.reasons) == ("validated", [])
    assert doors.assembled() == []


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), pieces=st.integers(1, 4))
def test_shuffled_doubled_and_split_deliveries_end_the_same(
    study: list[Dataset],
    at_once: tuple[Doors, dict],
    seed: int,
    pieces: int,  # type: ignore[type-arg]
) -> None:
    draw = random.Random(seed)
    delivered = [*study, *draw.sample(study, draw.randrange(len(study)))]
    draw.shuffle(delivered)
    with tempfile.TemporaryDirectory() as folder:
        doors = Doors(Path(folder))
        (doors.folder / "keys" / f"{SITE}.key").write_bytes((at_once[0].folder / "keys" / f"{SITE}.key").read_bytes())
        for piece in np.array_split(np.arange(len(delivered)), pieces):
            assert set(doors.take(*(delivered[i] for i in piece))) <= {SUCCESS}
            doors.assembled()
        assert doors.case_rows() == at_once[1]
        (state,) = doors.handler.cases(SITE)
        assert (state.state, state.reasons) == ("validated", [])


def test_a_mask_may_come_later_and_a_newer_one_replaces_it(doors: Doors) -> None:
    images = ct_study()
    doors.take(*images)
    (first,) = doors.assembled()
    assert (first.state, first.rois) == ("validated", 0)
    doors.take(segmentation(images, blocks(images), ["vertebrae_L5", "vertebrae_L4"], "1.2.3.80"))
    assert [receipt.rois for receipt in doors.assembled()] == [3]
    before = {row["mask_hash"] for row in doors.case_rows()["rois"]}
    smaller = blocks(images)
    smaller[2] = 0
    names = ["vertebrae_L5", "vertebrae_L4"]
    doors.take(segmentation(images, smaller, names, "1.2.3.81", drawn_at="20240201"))
    (receipt,) = doors.assembled()
    assert receipt.findings == []
    after = {row["mask_hash"] for row in doors.case_rows()["rois"]}
    assert len(after) == 1
    assert not after & before
    # one that was drawn before both changes nothing, though it comes last
    doors.take(segmentation(images, blocks(images), names, "1.2.3.82", drawn_at="20231201"))
    assert [one.unchanged for one in doors.assembled()] == [True]


def test_a_structure_set_is_a_mask_too(doors: Doors) -> None:
    images = ct_study()
    doors.take(structures(images, {"vertebrae_L5": 1, "L4": 2, "PTV SECRET": 2}), *images)
    (receipt,) = doors.assembled()
    assert (receipt.rois, receipt.findings) == (3, [])
    drawn = {(row["level"], row["voxel_count"]) for row in doors.case_rows()["rois"]}
    assert drawn == {("L5", 336), ("L4", 336), ("all", 672)}


def test_two_masks_of_a_structure_drawn_at_one_time_are_both_refused(doors: Doors) -> None:
    images = ct_study()
    for uid in ("1.2.3.80", "1.2.3.81"):
        doors.take(segmentation(images, blocks(images), ["vertebrae_L5", "vertebrae_L4"], uid))
    doors.take(*images)
    (receipt,) = doors.assembled()
    assert (receipt.state, receipt.rois) == ("validated", 0)
    assert [finding.code for finding in receipt.findings] == ["MaskUnreadable"] * 2


def test_of_equal_series_the_one_that_was_drawn_on_is_taken_or_the_one_that_is_named(doors: Doors) -> None:
    one, other = ct_study(), ct_study(series="1.2.3.2", seed=5, SeriesNumber=4)
    doors.take(*one, *other)
    (tied,) = doors.assembled()
    assert (tied.state, [finding.code for finding in tied.findings]) == ("rejected", ["DicomSeriesError"])
    assert "2 fit for ct equally" in tied.findings[0].message
    (status,) = doors.handler.cases(SITE)
    assert "2 fit for ct equally" in status.reasons[0]
    (case,) = doors.staging.cases()
    pinned = doors.assembler.complete(SITE, case.patient_id, {"ct": 4})
    assert pinned.state == "validated"
    named = doors.case_rows()["series"]
    doors.staging.erase(SITE, case.patient_id)
    doors.take(*one, *other, segmentation(other, blocks(other), ["L5", "L4"], "1.2.3.80"))
    doors.assembled()
    assert doors.case_rows()["series"] == named
    assert len(doors.case_rows()["rois"]) == 3


def test_what_cannot_be_a_case_is_rejected_with_its_reasons(doors: Doors) -> None:
    images = ct_study()
    doors.take(*images[:2], *images[3:])  # a slice is missing
    (receipt,) = doors.assembled()
    assert (receipt.state, [one.code for one in receipt.findings]) == ("rejected", ["DicomSeriesError"])
    (status,) = doors.handler.cases(SITE)
    assert (status.state, len(status.reasons)) == ("rejected", 1)
    doors.take(images[2])
    assert [one.state for one in doors.assembled()] == ["validated"]


def test_the_surgery_day_and_clinical_variables_stay_when_more_comes(doors: Doors) -> None:
    images = ct_study()  # of 2024-01-02
    doors.take(*images)
    (receipt,) = doors.assembled()
    (case,) = doors.staging.cases()
    assert doors.assembler.set_index_date(SITE, case.patient_id, date(2024, 1, 12))
    assert [row["days_from_index"] for row in doors.case_rows()["series"]] == [-10]
    doors.handler.clinical.put(doors.handler.find(receipt.case_id), Clinical(age=61.0, sex="female"))
    doors.take(*ct_study(slices=7)[6:], *t2_study())  # of the same day
    doors.assembled()
    rows = doors.case_rows()["series"]
    assert [(row["sequence"], row["days_from_index"]) for row in rows] == [("ct", -10), ("t2_sag", -10)]
    (clinical,) = doors.store.snapshot().table("clinical").to_pylist()
    assert (clinical["age"], clinical["sex"]) == (61.0, "female")
    assert b"20240112" not in b"".join(path.read_bytes() for path in doors.folder.rglob("*.json"))


def test_a_coded_word_of_the_case_is_not_coded_again_when_a_study_comes(doors: Doors) -> None:
    doors.take(*ct_study())
    (receipt,) = doors.assembled()
    case = doors.handler.find(receipt.case_id)
    key = {"site": SITE, "patient_id": case.patient_id, "case_id": case.case_id}
    row = {**key, **Clinical(diagnosis="other-ivwd").model_dump()}
    doors.store.push({"clinical": [row]}, kind="case", source=SITE)  # as a push over /v1/cases leaves it
    doors.take(*t2_study())
    doors.assembled()
    assert doors.store.snapshot().table("clinical")["diagnosis"].to_pylist() == ["other-ivwd"]


def test_what_is_said_before_the_study_is_a_case_stays(tmp_path: Path) -> None:
    doors = Doors(tmp_path, quiet=3600)
    doors.take(*ct_study())  # of 2024-01-02
    (status,) = doors.handler.cases(SITE)
    case = doors.handler.find(status.case_id)
    doors.handler.clinical.put(case, Clinical(age=61.0, sex="female"))
    (staged,) = doors.staging.cases()
    doors.handler.surgery.put(case, DayOfSurgery(index_date=date(2024, 1, 12)))
    doors.take(*t2_study())
    doors.assembler.complete(SITE, staged.patient_id)
    assert {row["days_from_index"] for row in doors.case_rows()["series"]} == {-10}
    (clinical,) = doors.store.snapshot().table("clinical").to_pylist()
    assert (clinical["age"], clinical["sex"]) == (61.0, "female")


def test_a_withdrawn_study_comes_back_only_by_what_is_sent(doors: Doors) -> None:
    doors.take(*ct_study())
    (receipt,) = doors.assembled()
    doors.handler.withdraw(receipt.case_id, "wrong side", "registry")
    other = replace(doors.book.named(SITE), sequences=("ct", "t2_sag", "stir_sag"))
    doors.assembler._sites = DicomSites({SITE: other})  # the operator changes what is looked for
    assert doors.assembled() == []
    assert doors.case_rows()["series"] == []
    doors.take(*t2_study())
    assert [one.state for one in doors.assembled()] == ["validated"]
    assert [row["sequence"] for row in doors.case_rows()["series"]] == ["ct", "t2_sag"]
    whole = doors.case_rows()
    doors.handler.withdraw(receipt.case_id, "by mistake", "registry")
    doors.take(*ct_study(), *t2_study())  # all of it is staged still
    assert doors.handler.find(receipt.case_id).state == "received"
    assert [one.state for one in doors.assembled()] == ["validated"]
    assert doors.case_rows() == whole
    assert doors.assembled() == []


def test_quiet_time_is_waited_for(tmp_path: Path) -> None:
    doors = Doors(tmp_path, quiet=3600)
    doors.take(*ct_study())
    assert doors.assembled() == []
    (status,) = doors.handler.cases(SITE)
    assert status.state == "received"
    (case,) = doors.staging.cases()
    assert doors.assembler.complete(SITE, case.patient_id).state == "validated"


def test_a_late_instance_of_a_case_that_was_given_up_makes_no_worse_case(tmp_path: Path) -> None:
    doors = Doors(tmp_path, keep=-1)
    images = ct_study()
    doors.take(*images[:-1])
    doors.assembled()
    assert doors.assembler.give_up_old() == 5
    before = doors.case_rows()
    doors.take(images[-1])
    assert doors.assembled() == []
    assert doors.case_rows() == before
    (status,) = doors.handler.cases(SITE)
    assert status.state == "validated"
    assert sorted(reason.split(":")[0] for reason in status.reasons) == ["DicomGivenUp", "DicomIncomplete"]
    (case,) = doors.staging.cases()
    with pytest.raises(Conflict):
        doors.assembler.complete(SITE, case.patient_id)
    doors.take(*images)
    assert [one.state for one in doors.assembled()] == ["validated"]
    assert doors.case_rows() != before
    assert doors.handler.cases(SITE)[0].reasons == []


def test_the_folder_is_bounded_and_room_is_made_of_what_is_finished(tmp_path: Path) -> None:
    doors = Doors(tmp_path, limit=40_000)
    statuses = doors.take(*ct_study(slices=24))
    assert statuses[0] == SUCCESS
    assert statuses[-1] == OUT_OF_RESOURCES
    assert doors.assembler.give_up_old() == 0  # nothing is finished yet
    doors.assembled()
    assert doors.assembler.give_up_old() > 0
    assert doors.take(*ct_study("SECRET-2", seed=2)[:2]) == [SUCCESS] * 2


def test_an_instance_is_what_its_numbers_are_however_compressed(doors: Doors) -> None:
    from pydicom.uid import JPEGLSLossless, RLELossless

    doors.take(*ct_study())
    for syntax in (RLELossless, JPEGLSLossless):
        assert doors.take(*(recoded(one, syntax) for one in ct_study())) == [SUCCESS] * 6
    assert doors.take(ct_study(seed=9)[0]) == [DUPLICATE]
    assert doors.take(ct_study(SliceThickness=1.0)[0]) == [DUPLICATE]
    doors.assembled()
    assert len(next(doors.staging.cases()).names()) == 6


def test_what_no_case_is_made_of_is_acknowledged_with_a_warning(doors: Doors) -> None:
    report, capture = ct_study()[:2]
    report.Modality, report.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.22"
    capture.Modality, capture.SOPClassUID = "CT", "1.2.840.10008.5.1.4.1.1.7"
    assert doors.take(report, capture) == [ELEMENTS_DISCARDED] * 2
    assert list(doors.staging.cases()) == []


def test_sites_do_not_share_patients(tmp_path: Path) -> None:
    doors = Doors(tmp_path, sites={name: DicomSite(name, (name.upper(),)) for name in (SITE, "site_b")})
    doors.take(*ct_study())
    doors.take(*ct_study(), site="site_b")
    assert len({case.patient_id for case in doors.staging.cases()}) == 2
    assert {receipt.site for receipt in doors.assembled()} == {SITE, "site_b"}


def test_of_an_erased_patient_nothing_stays(doors: Doors) -> None:
    doors.take(*ct_study())
    doors.assembled()
    (case,) = doors.staging.cases()
    by = Credential("operator", "operator", None)
    erase_patient(doors.store, doors.control, SITE, case.patient_id, reason="request", erased_by=by)
    doors.staging.erase(SITE, case.patient_id)  # as `asdeg store erase` does
    # while the door does not know of it yet: what slips in goes when its case would be made
    assert set(doors.take(*ct_study(), *t2_study("SECRET-2"))) == {SUCCESS}
    assert [receipt.sequences for receipt in doors.assembled()] == [["t2_sag"]]
    assert case not in set(doors.staging.cases())
    doors.intake._asked = -1e9
    assert doors.take(*ct_study()) == [NOT_AUTHORISED] * 6


def test_nothing_that_identifies_is_staged(doors: Doors) -> None:
    study = ct_with_mask()
    study[-1].SegmentSequence[0].SegmentLabel = "SECRET^NAME L5"
    doors.take(*study)
    doors.assembled()
    written = b"".join(path.read_bytes() for path in doors.folder.rglob("*") if path.is_file())
    names = " ".join(str(path.relative_to(doors.folder)) for path in doors.folder.rglob("*")).encode()
    assert len(written) > 10_000
    for secret in (b"SECRET", PATIENT.encode(), b"20240102", b"19500101", b"1.2.3.1", b"1.2.3.77", b"ACME DRAWER"):
        assert secret not in written
        assert secret not in names
