"""The readers find in a de-identified study what they found before, and nothing finds the patient."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from feature_store.errors import DeidentificationRefused
from pipelines.imaging.images import content_hash, load_image
from pipelines.imaging.masks import read_mask
from services.ingest.deidentification.instance import deidentify
from services.ingest.deidentification.pseudonym import is_pseudonym, pseudonym, shifted
from services.ingest.deidentification.site_key import SiteKey
from services.ingest.deidentification.values import new_uid, scanner_name
from tests.pipelines.imaging.dicom_folder import recoded
from tests.pipelines.imaging.mask_files import contours_of, structure_set
from tests.services.dicom.studies import blocks, ct_study, real_ct, segmentation, t2_study, write_files

KEY, OTHER = SiteKey(b"k" * 32), SiteKey(b"o" * 32)


def _clean(datasets: Sequence[Dataset], key: SiteKey = KEY) -> list[Dataset]:
    return [deidentify(pydicom.dcmread(io.BytesIO(_bytes(one))), key) for one in datasets]


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _hashes(images: Sequence[Dataset], masks: Sequence[Dataset], folder: Path) -> list[str]:
    write_files(images, folder / "images")
    loaded = load_image(folder / "images")
    found = [content_hash(loaded.image)]
    for path in write_files(masks, folder / "masks"):
        mask = read_mask(path, path.name, loaded, None)
        assert sitk.GetArrayViewFromImage(mask).any()
        found.append(content_hash(mask))
    return found


def test_the_real_series_and_its_masks_keep_their_content_hashes(shared_data: Path, tmp_path: Path) -> None:
    *slices, seg = real_ct(shared_data)
    assert len(slices) == 20
    write_files(slices, tmp_path / "images")
    image = load_image(tmp_path / "images").image
    labels = np.zeros(sitk.GetArrayViewFromImage(image).shape, np.uint8)
    labels[3:9, 200:240, 220:270] = 1
    drawn = structure_set(image, {1: contours_of(labels, 1)}, frame_of_reference=slices[0].FrameOfReferenceUID)
    drawn.PatientID = slices[0].PatientID
    masks = [seg, drawn]
    before = _hashes(slices, masks, tmp_path / "before")
    clean = _clean(slices)
    assert all(one.PixelData == two.PixelData for one, two in zip(slices, clean, strict=True))
    assert all(
        one.file_meta.TransferSyntaxUID == two.file_meta.TransferSyntaxUID
        for one, two in zip(slices, clean, strict=True)
    )
    assert before == _hashes(clean, _clean(masks), tmp_path / "after")


@pytest.mark.parametrize("make", [ct_study, t2_study])
def test_a_study_reads_as_before(make: object, tmp_path: Path) -> None:
    images = make()  # type: ignore[operator]
    masks = [segmentation(images, blocks(images), ["vertebrae_L5", "PATIENT SMITH"], "1.2.3.77")]
    assert _hashes(images, masks, tmp_path / "a") == _hashes(_clean(images), _clean(masks), tmp_path / "b")
    before, after = load_image(tmp_path / "a/images").header, load_image(tmp_path / "b/images").header
    assert before is not None
    assert after is not None
    same = ("modality", "field_strength_t", "series_number")
    assert [getattr(before, name) for name in same] == [getattr(after, name) for name in same]
    (mask,) = _clean(masks)
    assert [item.SegmentLabel for item in mask.SegmentSequence] == ["vertebrae_L5", "segment 2"]


def test_uids_are_one_for_one_at_any_time_and_in_any_process() -> None:
    images = ct_study()
    clean, again = _clean(images), _clean(images)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        old = [one[keyword].value for one in images]
        new = [one[keyword].value for one in clean]
        assert not {*old} & {*new}
        assert len({*old}) == len({*new})
        assert new == [one[keyword].value for one in again]
        assert new != [one[keyword].value for one in _clean(images, OTHER)]
        assert all(UID(uid).is_valid and len(uid) <= 64 for uid in new)
    (mask,) = _clean([segmentation(images, blocks(images), ["a", "b"], "1.2.3.77")])
    named = {item.ReferencedSOPInstanceUID for item in mask.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert named <= {one.SOPInstanceUID for one in clean}
    assert mask.FrameOfReferenceUID == clean[0].FrameOfReferenceUID
    program = (
        "from services.ingest.deidentification.values import new_uid\n"
        "from services.ingest.deidentification.site_key import SiteKey\n"
        "print(new_uid(SiteKey(b'k' * 32), '1.2.3.1.1'))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert told == new_uid(KEY, "1.2.3.1.1") == clean[0].SOPInstanceUID


def test_dates_of_a_patient_are_moved_together() -> None:
    images = ct_study(StudyDate="20240301", SeriesDate="20240302")
    (clean,) = _clean(images[:1])
    patient = str(clean.PatientID)
    moved = date(int(clean.StudyDate[:4]), int(clean.StudyDate[4:6]), int(clean.StudyDate[6:]))
    assert 1 <= (date(2024, 3, 1) - moved).days <= 3650
    surgery = date(2024, 5, 31)
    assert (moved - shifted(KEY, patient, surgery)).days == (date(2024, 3, 1) - surgery).days
    assert shifted(KEY, patient, surgery) != shifted(KEY, pseudonym(KEY, "other"), surgery)
    assert b"2024" not in _bytes(clean).replace(clean.PixelData, b"")


def test_nothing_of_the_file_around_the_data_set_is_left() -> None:
    one = ct_study()[0]
    one.preamble = b"SMITH^JOHN".ljust(128, b"\0")
    one.file_meta.SourceApplicationEntityTitle = "SMITHAE"
    one.file_meta.PrivateInformationCreatorUID = "1.2.826.0.1.4711.1"
    one.file_meta.PrivateInformation = b"SMITHPRIVATE"
    one.add_new((0xFFFC, 0xFFFC), "OB", b"SMITHPADDING")
    data = _bytes(one)
    assert data.count(b"SMITH") == 4
    clean = _bytes(deidentify(pydicom.dcmread(io.BytesIO(data)), KEY))
    assert b"SMITH" not in clean
    assert clean[:128] == bytes(128)
    read = pydicom.dcmread(io.BytesIO(clean))
    assert (read.PatientIdentityRemoved, read.LongitudinalTemporalInformationModified) == ("YES", "MODIFIED")
    assert [code.CodeValue for code in read.DeidentificationMethodCodeSequence] == ["113100", "113107", "113105"]
    assert is_pseudonym(read.PatientID)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation"),
        ({"RecognizableVisualFeatures": "YES"}, "RecognizableVisualFeatures"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "no CT or MR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "no CT or MR"),  # a PDF
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "no CT or MR"),  # a report
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen"),
        ({"PatientID": ""}, "patient id"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_may_show_the_patient_is_refused(tags: dict[str, object], reason: str) -> None:
    one = ct_study()[0]
    for keyword, value in tags.items():
        setattr(one, keyword, value)
    with pytest.raises(DeidentificationRefused, match=reason):
        deidentify(one, KEY)


def test_an_overlay_in_the_pixels_is_refused_and_a_plane_of_its_own_removed() -> None:
    one = ct_study()[0]
    one.add_new((0x6000, 0x0102), "US", 12)
    with pytest.raises(DeidentificationRefused, match="overlay"):
        deidentify(one, KEY)
    one.add_new((0x6000, 0x3000), "OW", b"SMITH " * 12)
    assert b"SMITH" not in _bytes(deidentify(one, KEY))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("SIEMENS", True), ("Biograph40_mCT 4R", True), ("MAGNETOM Avanto fit", True), ("GE MEDICAL SYSTEMS", True),
        ("Optima MR450w", True), ("SOMATOM Definition AS+", True), ("TOSHIBA_MEC", True), ("Ingenia 3.0T", True),
        ("John Smith", False), ("Smith's CT", False), ("CT 19600412", False), ("12345", False), ("Müller", False),
    ],
)  # fmt: skip
def test_scanners_keep_their_names_and_nobody_else_has_one(text: str, kept: bool) -> None:
    told = scanner_name(text)
    assert (told == text) is kept
    assert kept or (told.startswith("other-") and told == scanner_name(text))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless]
)
def test_a_transfer_syntax_stays_what_it_is(syntax: UID, tmp_path: Path) -> None:
    images = [recoded(one, syntax) for one in ct_study(PixelPaddingValue=-2000)]
    clean = _clean(images)
    assert {one.file_meta.TransferSyntaxUID for one in clean} == {syntax}
    assert _hashes(clean, [], tmp_path / "after") == _hashes(ct_study(), [], tmp_path / "before")
    assert clean[0].PixelPaddingValue == -2000
