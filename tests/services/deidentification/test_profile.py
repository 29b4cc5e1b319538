"""Every attribute of the standard planted in one instance, at its top and nested: what is left is what is listed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pydicom import config
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from services.ingest.deidentification.instance import deidentify
from services.ingest.deidentification.kept import NUMBERS, OTHERS, SEQUENCES, TERMS, UIDS, kept
from services.ingest.deidentification.profile import action_of, basic_profile
from services.ingest.deidentification.site_key import SiteKey
from tests.pipelines.imaging.dicom_folder import slice_dataset
from tests.services.deidentification.identifiers import Planted, every_element

KEY = SiteKey(b"k" * 32)
ADDED = {
    "PatientID", "PatientName", "PatientIdentityRemoved", "DeidentificationMethod", "StudyDate",
    "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified", "AccessionNumber",
    "PatientBirthDate", "PatientSex", "ReferringPhysicianName", "StudyID", "StudyTime",
}  # fmt: skip
"""Written by us, whatever stood there."""


@pytest.fixture(scope="module")
def instance() -> tuple[Dataset, Planted]:
    planted = Planted()
    dataset = slice_dataset(np.zeros((4, 4), np.int16), {"PatientID": "x"})
    with config.disable_value_validation():
        planted.fill(dataset, "")
        nested = {name: Dataset() for name in ("ReferencedImageSequence", "RequestAttributesSequence")}
        for name, item in nested.items():  # one that is kept and one that is not
            planted.fill(item, f"{name}/")
            setattr(dataset, name, [item])
        dataset.ImageType = ["ORIGINAL", "PRIMARY", planted.token("ImageType value 3")]
        planted.fill_private(dataset, "", nested["ReferencedImageSequence"])
    dataset.StudyDate = f"{planted.day('StudyDate'):%Y%m%d}"
    return dataset, planted


def test_of_every_attribute_of_the_standard_only_the_listed_ones_are_left(instance: tuple[Dataset, Planted]) -> None:
    dataset, planted = instance
    assert len(planted.needles) > 8_500
    clean = deidentify(dataset, KEY)
    listed = {*NUMBERS.split(), *UIDS.split(), *SEQUENCES.split(), *TERMS, *OTHERS, *ADDED}
    assert {element.keyword for _, element in every_element(clean)} <= listed | {"CodeValue"}
    buffer = io.BytesIO()
    clean.save_as(buffer, enforce_file_format=True)
    assert planted.found(buffer.getvalue()) == []
    before = io.BytesIO()
    dataset.save_as(before, enforce_file_format=False, implicit_vr=False, little_endian=True)
    missing = set(planted.needles) - set(planted.found(before.getvalue()))
    assert len(missing) < 0.02 * len(planted.needles), sorted(missing)[:20]  # the search itself can find


def test_each_row_of_the_profile_is_carried_out(instance: tuple[Dataset, Planted]) -> None:
    dataset, _ = instance
    clean = deidentify(dataset, KEY)
    wrong = []
    for path, element in every_element(clean):
        action = action_of(element.tag)
        before = dataset.get(element.tag)
        if not action or before is None or "/" in path[1:]:
            continue
        emptied = element.is_empty
        replaced = str(element.value) != str(before.value)
        if not (emptied or replaced):
            wrong.append((path, action))
    assert wrong == []


def test_the_table_is_whole() -> None:
    table = basic_profile()
    assert len(table) == 656
    assert set(table.values()) == {"X", "Z", "D", "U", "Z/D", "X/Z", "X/D", "X/Z/D", "X/Z/U*"}
    for tag, action in {
        (0x0010, 0x0010): "Z", (0x0008, 0x0050): "Z", (0x0018, 0x1000): "X/Z/D", (0x0020, 0x000D): "U",
        (0x5002, 0x3000): "X", (0x6010, 0x4000): "X", (0x6010, 0x0010): "", (0x0029, 0x1010): "X",
        (0x0008, 0x0070): "", (0x3006, 0x0026): "Z",
    }.items():  # fmt: skip
        assert action_of(Tag(tag)) == action, tag


def test_what_is_kept_though_the_profile_names_it_is_replaced_by_its_rule() -> None:
    named = {tag for tag in kept() if action_of(tag)}
    replaced_by = {*UIDS.split(), "ContrastBolusAgent", "ROIName", "ReferencedSOPInstanceUID"}
    extra = {keyword_for_tag(tag) for tag in named} - replaced_by
    assert extra <= {*SEQUENCES.split()}, extra
