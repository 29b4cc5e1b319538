"""Label maps: the shipped ones against real masks and against each other, and what a case makes of one."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from feature_store.errors import LabelMapError
from feature_store.vocabulary import UNKNOWN, VERTEBRAE
from pipelines.cases.case import CaseReading, case_rows, read_case
from pipelines.cases.label_map import LabelMap, read_label_map, shipped_label_map, shipped_names

MAPS = shipped_names()
SIZE = (12, 10, 40)


# --- the files themselves -------------------------------------------------------------------------
@pytest.mark.parametrize("name", MAPS)
def test_a_shipped_map_is_named_as_its_file_and_says_where_it_comes_from(name: str) -> None:
    found = shipped_label_map(name)
    assert found.name == name
    assert "Source: " in found.note
    names = [found.own_name(number) for number in (*found.labels, *found.also)]
    assert len(set(names)) == len(names)


def test_a_name_means_the_same_in_every_map() -> None:
    """Lookup tables of BIDS are read by these names."""
    meanings = defaultdict(set)
    for name in MAPS:
        for label in shipped_label_map(name).labels.values():
            if label.name:
                meanings[label.name].add(label.label_name)
    assert len(meanings) > 90
    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}


# what the sources say, looked up once more by hand: (map, number) -> (structure, level, side)
KNOWN = {
    ("totalsegmentator-ct", 25): ("sacrum", "unknown", "both"),
    ("totalsegmentator-ct", 26): ("vertebra", "S1", "both"),
    ("totalsegmentator-ct", 27): ("vertebra", "L5", "both"),
    ("totalsegmentator-ct", 33): ("vertebra", "T11", "both"),
    ("totalsegmentator-ct", 50): ("vertebra", "C1", "both"),
    ("totalsegmentator-ct", 86): ("paraspinal_muscle", "unknown", "left"),
    ("totalsegmentator-ct", 89): ("iliopsoas", "unknown", "right"),
    ("totalsegmentator-mr", 18): ("sacrum", "unknown", "both"),
    ("totalsegmentator-mr", 19): ("vertebra", "unknown", "both"),
    ("totalsegmentator-mr", 20): ("intervertebral_disc", "unknown", "both"),
    ("totalsegmentator-mr", 46): ("paraspinal_muscle", "unknown", "left"),
    ("totalsegmentator-mr", 49): ("iliopsoas", "unknown", "right"),
    ("totalsegmentator-mr-vertebrae", 2): ("vertebra", "L5", "both"),
    ("totalsegmentator-vertebrae", 24): ("vertebra", "L5", "both"),
    ("totalsegmentator-vertebral-body", 1): ("vertebral_body", "unknown", "both"),
    ("totalsegmentator-muscles", 19): ("psoas_major", "unknown", "right"),
    ("totalsegmentator-muscles", 22): ("quadratus_lumborum", "unknown", "left"),
    ("tptbox-vertebrae", 7): ("vertebra", "C7", "both"),
    ("tptbox-vertebrae", 19): ("vertebra", "T12", "both"),
    ("tptbox-vertebrae", 24): ("vertebra", "L5", "both"),
    ("tptbox-vertebrae", 26): ("sacrum", "unknown", "both"),
    ("tptbox-vertebrae", 119): ("intervertebral_disc", "T12-L1", "both"),
    ("tptbox-vertebrae", 124): ("intervertebral_disc", "L5-S1", "both"),
    ("tptbox-subregions", 49): ("vertebral_body", "unknown", "both"),
    ("tptbox-subregions", 50): ("vertebral_body", "unknown", "both"),
    ("tptbox-subregions", 100): ("intervertebral_disc", "unknown", "both"),
    ("spineps-instances", 24): ("vertebra", "unknown", "both"),
    ("spineps-instances", 124): ("intervertebral_disc", "unknown", "both"),
    ("spider", 1): ("vertebra", "L5", "both"),
    ("spider", 5): ("vertebra", "L1", "both"),
    ("spider", 24): ("vertebra", "C1", "both"),
    ("spider", 201): ("intervertebral_disc", "L5-S1", "both"),
    ("spider", 206): ("intervertebral_disc", "T12-L1", "both"),
}
LEFT_ALONE = {
    ("totalsegmentator-ct-v3", 26): "vertebrae_L6",
    ("totalsegmentator-ct", 1): "spleen",
    ("tptbox-vertebrae", 25): "L6",
    ("tptbox-vertebrae", 28): "T13",
    ("tptbox-vertebrae", 53): "T13_rib",
    ("tptbox-vertebrae", 224): "L5_endplate",
    ("tptbox-subregions", 61): "Spinal_Canal",
    ("spider", 100): "spinal_canal",
    ("spider", 101): "vertebra_1_partially_visible",
}


def test_numbers_are_those_of_their_sources() -> None:
    for (name, number), meaning in KNOWN.items():
        label = shipped_label_map(name).labels[number]
        assert (label.structure, label.level, label.side) == meaning, (name, number)
    for (name, number), word in LEFT_ALONE.items():
        assert shipped_label_map(name).also[number] == word


# --- against real masks ---------------------------------------------------------------------------
REAL = {
    "spine/ct_lumbar/totalsegmentator_seg.nii.gz": ("totalsegmentator-ct", {*VERTEBRAE[17:]}),
    "spine/ct_lumbar/vertebrae_T12_L5.nii.gz": ("totalsegmentator-vertebrae", {*VERTEBRAE[18:24]}),
    "spine/ct_dicom/seg.nii.gz": ("totalsegmentator-ct", {"T11", "T12"}),
    "spine/mr_axial_slab/seg.nii.gz": ("totalsegmentator-mr", set()),
    "spine/ct_single_vertebra/sub-ct_seg-vert_label-22_msk.nii.gz": ("tptbox-vertebrae", {"L2", "L3", "L4"}),
    "spine/ct_single_vertebra/sub-ct_seg-subreg_label-22_msk.nii.gz": ("tptbox-subregions", set()),
    "spine/t2_single_disc/sub-mri_seg-vert_label-6_msk.nii.gz": ("spineps-instances", set()),
    "spine/t2_single_disc/sub-mri_seg-subreg_label-6_msk.nii.gz": ("tptbox-subregions", set()),
}


@pytest.mark.parametrize("file", REAL)
def test_levels_follow_from_head_to_foot_and_sides_are_the_patients(shared_data: Path, file: str) -> None:
    """In the world's coordinates (LPS) x grows to the patient's left and z to the head."""
    name, levels = REAL[file]
    mask = sitk.Cast(sitk.ReadImage(str(shared_data / file)), sitk.sitkUInt16)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask)
    named, notes = shipped_label_map(name).read(shape.GetLabels())
    assert not [note for note in notes if "does not know" in note]
    place = {n: shape.GetCentroid(n) for n in named}
    of_level = {label.level: place[n] for n, label in named.items() if label.structure == "vertebra"}
    of_level.pop(UNKNOWN, None)
    assert set(of_level) == levels
    heights = [of_level[level][2] for level in sorted(levels, key=VERTEBRAE.index)]
    assert heights == sorted(heights, reverse=True)
    number = {label: n for n, label in named.items() if label.side != "both"}
    for label, left in number.items():
        if label.side == "left":
            right = number[replace(label, side="right")]
            assert place[left][0] > place[right][0]
    if sacrum := [n for n, label in named.items() if label.structure == "sacrum"]:
        assert place[sacrum[0]][2] < min(heights)


def test_two_tools_maps_name_the_same_bones(shared_data: Path) -> None:
    """Two segmentations of one CT, numbered differently, lie over each other level by level."""
    masks = {}
    for file in ("totalsegmentator_seg", "vertebrae_T12_L5"):
        path = f"spine/ct_lumbar/{file}.nii.gz"
        voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / path)))
        named, _ = shipped_label_map(REAL[path][0]).read(np.unique(voxels))
        masks[file] = {label.level: voxels == n for n, label in named.items() if label.structure == "vertebra"}
    whole, body = masks.values()
    for level in ("L1", "L2", "L3", "L4", "L5", "T12"):
        overlaps = {other: (whole[other] & body[level]).sum() for other in whole}
        assert max(overlaps, key=lambda other: overlaps[other]) == level
        assert overlaps[level] > 0.75 * body[level].sum()


# --- what is left alone ---------------------------------------------------------------------------
def test_transitional_anatomy_is_left_alone_with_a_note() -> None:
    tptbox = shipped_label_map("tptbox-vertebrae")
    assert set(tptbox.read([23, 24, 26, 123, 124])[0]) == {23, 24, 26, 123, 124}
    named, notes = tptbox.read([0, 24, 25, 26, 124, 125, 200, 999])
    assert set(named) == {24, 26}  # with an L6 the disc below L5 is no L5-S1
    assert "label 124 (L5_ivd) is left alone" in notes[0]
    assert "L6, L6_ivd" in notes[1]
    assert "2 labels that tptbox-vertebrae does not know are left alone: 200, 999" in notes[2]
    named, notes = tptbox.read([19, 28, 20, 119])
    assert set(named) == {19, 20}
    assert "T12-L1" in notes[0]
    assert "T13" in notes[1]
    named, notes = tptbox.read([22, 23, 26, 122, 123])  # four lumbar vertebrae: the lowest disc is L4-S1
    assert set(named) == {22, 23, 26, 122}
    assert shipped_label_map("totalsegmentator-ct-v3").read([26, 27])[0].keys() == {27}


# --- in a case ------------------------------------------------------------------------------------
def _case(folder: Path, numbers: list[int], **entry: Any) -> Path:
    """A CT with a block of 32 voxels for each number, from the top slice down."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-900, 1500, SIZE[::-1]).astype(np.int16))
    voxels = np.zeros(SIZE[::-1], np.uint16)
    for i, number in enumerate(numbers):
        voxels[3 * i : 3 * i + 2, 2:6, 2:6] = number
    mask = sitk.GetImageFromArray(voxels)
    sitk.WriteImage(image, str(folder / "ct.nii.gz"))
    sitk.WriteImage(mask, str(folder / "mask.nii.gz"))
    entries = [{"sequence": "ct", "image": "ct.nii.gz", "mask": "mask.nii.gz", **entry}]
    _manifest(folder, entries)
    return folder


def _manifest(folder: Path, series: list[dict[str, Any]]) -> None:
    (folder / "case.yaml").write_text(yaml.safe_dump({"patient_id": "p", "site": "a", "series": series}))


def _levels(reading: CaseReading) -> set[tuple[str, str]]:
    return {(roi.structure, roi.level) for roi in reading.rois}


OWN = """\
name: ours
note: Drawn by hand since 2024.
labels:
  1: {structure: vertebral_body, level: L5}
  2: {structure: vertebral_body, level: L4}
  3: {structure: intervertebral_disc, level: L4-L5}
also:
  9: marker
"""


def test_a_shipped_map_in_case_yaml(tmp_path: Path) -> None:
    reading = read_case(_case(tmp_path, [1, 27, 28, 26, 200], labels="totalsegmentator-ct"))
    assert reading.findings == []
    assert _levels(reading) == {("vertebra", level) for level in ("L5", "L4", "S1", "all")}
    (union,) = (roi for roi in reading.series[0].rois if roi.name.level == "all")
    assert union.levels == ("L4", "L5")
    assert any("outside the vocabulary are left alone: spleen" in note for note in reading.notes)
    assert any("does not know are left alone: 200" in note for note in reading.notes)


def test_a_file_of_the_site(tmp_path: Path) -> None:
    folder = _case(tmp_path, [1, 2, 9], labels="own.yaml")
    (folder / "own.yaml").write_text(OWN)
    reading = read_case(folder)
    assert reading.findings == []  # label 3 is in the map and not in the mask: no error
    assert _levels(reading) == {("vertebral_body", level) for level in ("L5", "L4", "all")}
    listed = yaml.safe_load(OWN)["labels"]
    reading = read_case(_case(tmp_path, [1, 2, 9], labels=listed))
    assert [finding.code for finding in reading.findings] == ["LabelEmpty"]  # listed by hand it is one


def test_the_manifest_hash_is_of_what_the_map_means(tmp_path: Path) -> None:
    folder = _case(tmp_path, [1, 2, 9], labels="own.yaml")

    def digest(text: str) -> str:
        (folder / "own.yaml").write_text(text)
        return str(case_rows(read_case(folder))["cases"][0]["manifest_hash"])

    first = digest(OWN)
    assert digest(OWN.replace("Drawn by hand", "Corrected")) == first
    assert digest(OWN.replace("level: L5}", "level: L3}")) != first


def test_two_masks_that_draw_the_same_structure(tmp_path: Path) -> None:
    """SPINEPS writes discs into both of its masks: the first has them, the second keeps the rest."""
    folder = _case(tmp_path, [20, 21, 120], labels="tptbox-vertebrae")
    shutil.copy(folder / "mask.nii.gz", folder / "vert.nii.gz")
    _case(tmp_path, [49, 50, 100])
    first = {"sequence": "ct", "image": "ct.nii.gz", "mask": "vert.nii.gz", "labels": "tptbox-vertebrae"}
    second = {"sequence": "ct", "image": "ct.nii.gz", "mask": "mask.nii.gz", "labels": "tptbox-subregions"}
    _manifest(folder, [first, second])
    reading = read_case(folder)
    assert reading.findings == []
    assert ("intervertebral_disc", "L1-L2") in _levels(reading)
    assert ("vertebral_body", "unknown") in _levels(reading)
    assert ("intervertebral_disc", "unknown") not in _levels(reading)
    assert "ct: intervertebral_disc is drawn by another mask too and is left alone in this one" in reading.notes
    keys = [tuple(row[k] for k in ("structure", "level", "side")) for row in case_rows(reading)["rois"]]
    assert len(set(keys)) == len(keys)
    _manifest(folder, [first, {**first, "mask": "mask.nii.gz", "labels": {100: {"structure": "intervertebral_disc"}}}])
    assert ("intervertebral_disc", "L1-L2") not in _levels(read_case(folder))  # what is listed by hand goes first


def test_a_label_of_every_level_makes_no_all(tmp_path: Path) -> None:
    reading = read_case(_case(tmp_path, [19, 20, 46, 47], labels="totalsegmentator-mr"))
    found = _levels(reading)
    assert {("vertebra", "unknown"), ("intervertebral_disc", "unknown"), ("paraspinal_muscle", "all")} <= found
    assert ("vertebra", "all") not in found
    assert "ct: `all` of vertebra is the union of L1 to L5; the mask has unknown" in reading.notes


def test_a_site_may_say_that_its_label_is_the_union(tmp_path: Path) -> None:
    folder = _case(tmp_path, [19], labels="own.yaml")
    (folder / "own.yaml").write_text(
        "name: ours\nnote: L1 to L5 only\nlabels: {19: {structure: vertebra, level: all}}\n"
    )
    assert _levels(read_case(folder)) == {("vertebra", "all")}


# --- refused --------------------------------------------------------------------------------------
def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(LabelMapError) as raised:
        shipped_label_map("../label_maps/spider")
    assert "spider, spineps-instances, totalsegmentator-ct" in raised.value.action


BROKEN = {
    "unknown key": ("also:", "others:", "others is no key"),
    "no note": ("note: Drawn by hand since 2024.\n", "", "note is missing"),
    "number twice": ("  2:", "  1:", "'1' stands twice"),
    "known and left alone": ("  9: marker", "  1: marker", "both under labels and under also"),
    "wrong level": ("level: L4-L5", "level: L4", "labels.3.level must be a disc"),
    "L6": ("level: L5}", "level: L6}", "labels.1.level must be a vertebra"),
    "unknown structure": ("structure: intervertebral_disc", "structure: disk", "labels.3.structure must be one of"),
    "number as text": ("  1:", "  'one':", "labels.one must be"),
    "between without order": ("level: L4-L5}", "level: L4-L5, between: [2, 1]}", "needs two numbers of `order`"),
    "between of a bone": ("level: L5}", "level: L5, between: [2, 1]}", "at a label that is no disc"),
    "no labels": (OWN[OWN.index("labels:") : OWN.index("also:")], "labels: {}\n", "needs at least one label"),
    "name with a blank": ("name: ours", "name: our own", "name must be up to 64 letters"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_map_is_refused(tmp_path: Path, kind: str) -> None:
    old, new, words = BROKEN[kind]
    assert old in OWN
    path = tmp_path / "own.yaml"
    path.write_text(OWN.replace(old, new))
    with pytest.raises(LabelMapError) as raised:
        read_label_map(path)
    assert words in raised.value.message
    assert raised.value.file == "own.yaml"
    assert raised.value.action


def test_order_and_between_are_kept_apart(tmp_path: Path) -> None:
    text = OWN.replace("level: L4-L5}", "level: L4-L5, between: [2, 1]}") + "order: [2, 8, 1]\n"
    (tmp_path / "own.yaml").write_text(text)
    found: LabelMap = read_label_map(tmp_path / "own.yaml")
    assert set(found.read([1, 2, 3])[0]) == {1, 2, 3}
    assert set(found.read([1, 2, 3, 8])[0]) == {1, 2}


@pytest.mark.parametrize(
    ("labels", "code", "words"),
    [
        ("totalsegmentator", "LabelMapError", "series[0].labels: there is no label map of that name"),
        ("absent.yaml", "LabelMapError", "missing or cannot be read"),
        ("../own.yaml", "LabelMapError", "series[0].labels must be a path inside the case folder"),
        ("spider", "LabelEmpty", "holds no label that spider has a structure for"),
    ],
)
def test_a_case_with_a_wrong_map(tmp_path: Path, labels: str, code: str, words: str) -> None:
    reading = read_case(_case(tmp_path, [300, 301], labels=labels))
    assert [finding.code for finding in reading.findings] == [code]
    assert words in reading.findings[0].message
    assert reading.rois == []


def test_label_map_is_no_key_of_case_yaml(tmp_path: Path) -> None:
    reading = read_case(_case(tmp_path, [1], label_map="spider"))
    assert "series[0].label_map is no key" in reading.findings[0].message
