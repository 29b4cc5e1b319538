"""From labels to names: the contract that keys in every table rest on."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import LabelEmpty, RoiTooSmall
from feature_store.vocabulary import PAPER_ROIS, STRUCTURES, RoiName, levels_of_all
from pipelines.cases.rois import MIN_ROI_VOXELS, LabelName, find_rois, roi_mask


def a_mask(*numbers: int, voxels: int = 27) -> sitk.Image:
    """One cube of 3 x 3 x 3 voxels (or its first ``voxels``) a label, 1 x 2 x 0.5 mm voxels."""
    array = np.zeros((3, 3, 3 * len(numbers)), np.uint16)
    for i, number in enumerate(numbers):
        cube = array[:, :, 3 * i : 3 * i + 3]
        cube[np.unravel_index(np.arange(voxels), cube.shape)] = number
    mask = sitk.GetImageFromArray(array)
    mask.SetSpacing((1.0, 2.0, 0.5))
    return mask


def names(mask: sitk.Image, labels: dict[int, LabelName], sequence: str = "t2_sag") -> dict[str, tuple[int, ...]]:
    found = find_rois(mask, labels, sequence)
    return {"/".join((roi.name.structure, roi.name.level, roi.name.side)): roi.labels for roi in found.rois}


CONTRACT = {
    "vertebral bodies": (
        {n: LabelName("vertebral_body", level) for n, level in ((1, "L5"), (2, "L4"), (3, "T12"))},
        {
            "vertebral_body/L5/both": (1,),
            "vertebral_body/L4/both": (2,),
            "vertebral_body/T12/both": (3,),
            "vertebral_body/all/both": (1, 2),
        },
    ),
    "discs": (
        {1: LabelName("intervertebral_disc", "L5-S1"), 2: LabelName("intervertebral_disc", "T12-L1")},
        {
            "intervertebral_disc/L5-S1/both": (1,),
            "intervertebral_disc/T12-L1/both": (2,),
            "intervertebral_disc/all/both": (1,),
        },
    ),
    "muscles left and right": (
        {1: LabelName("psoas_major", side="left"), 2: LabelName("psoas_major", side="right")},
        {"psoas_major/unknown/left": (1,), "psoas_major/unknown/right": (2,), "psoas_major/all/both": (1, 2)},
    ),
    "labels declared alike are united": (
        {1: LabelName("vertebra"), 2: LabelName("vertebra"), 3: LabelName("vertebra")},
        {"vertebra/unknown/both": (1, 2, 3)},
    ),
    "sacrum counts every label": (
        {1: LabelName("sacrum")},
        {"sacrum/unknown/both": (1,), "sacrum/all/both": (1,)},
    ),
    "declared as all": ({1: LabelName("intervertebral_disc", "all")}, {"intervertebral_disc/all/both": (1,)}),
    "declared as all beside others": (
        {1: LabelName("vertebra", "all"), 2: LabelName("vertebra", "L3")},
        {"vertebra/all/both": (1,), "vertebra/L3/both": (2,)},
    ),
    "all of each side": (
        {1: LabelName("quadratus_lumborum", "all", "left"), 2: LabelName("quadratus_lumborum", "all", "right")},
        {
            "quadratus_lumborum/all/left": (1,),
            "quadratus_lumborum/all/right": (2,),
            "quadratus_lumborum/all/both": (1, 2),
        },
    ),
    "muscle by level": (
        {
            1: LabelName("psoas_major", "L4-L5", "left"),
            2: LabelName("psoas_major", "L4-L5", "right"),
            3: LabelName("psoas_major", "L3"),
        },
        {
            "psoas_major/L4-L5/left": (1,),
            "psoas_major/L4-L5/right": (2,),
            "psoas_major/L3/both": (3,),
            "psoas_major/all/both": (1, 2, 3),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTRACT)
def test_naming(kind: str) -> None:
    labels, expected = CONTRACT[kind]
    assert names(a_mask(*labels), labels) == expected


def test_the_papers_regions_come_from_its_labels() -> None:
    """A case labelled by level and side gives exactly the study's eight regions as its `all`."""
    got = []
    for sequence, structures in {
        "ct": ["vertebral_body"],
        "t1_sag": ["vertebral_body", "intervertebral_disc"],
        "t2_sag": ["vertebral_body", "intervertebral_disc"],
        "t2_ax": ["psoas_major", "quadratus_lumborum", "paraspinal_muscle"],
    }.items():
        labels: dict[int, LabelName] = {}
        for structure in structures:
            for level in levels_of_all(structure) or ("unknown",):
                labels[len(labels) + 1] = LabelName(structure, level)
        found = find_rois(a_mask(*labels), labels, sequence)
        assert not found.absent
        got += [roi.name for roi in found.rois if roi.name.level == "all"]
    assert sorted(got) == sorted(PAPER_ROIS)


def test_measures_and_levels() -> None:
    labels = {1: LabelName("vertebra", "L4"), 2: LabelName("vertebra", "L2"), 3: LabelName("vertebra", "unknown")}
    found = find_rois(a_mask(1, 2, 3), labels, "ct", "reader_b")
    union = next(roi for roi in found.rois if roi.name.level == "all")
    assert union.name == RoiName("ct", "vertebra", "all", "both", "reader_b")
    assert union.levels == ("L2", "L4")  # in the body's order; what is unknown is no part of it
    assert (union.voxel_count, union.volume_mm3) == (54, 54.0)


def test_undeclared_numbers_are_left_alone() -> None:
    assert names(a_mask(1, 7, 9), {7: LabelName("sacrum")}) == {"sacrum/unknown/both": (7,), "sacrum/all/both": (7,)}


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({1: LabelName("vertebra", "T12")}, "the union of L1 to L5; the mask has T12"),
        ({1: LabelName("intervertebral_disc")}, "the union of L1-L2 to L5-S1; the mask has unknown"),
        ({5: LabelName("vertebra", "L1")}, "every label of vertebra that `all` is made of is empty"),
        ({5: LabelName("psoas_major")}, "every label of psoas_major that `all` is made of is empty"),
        ({1: LabelName("vertebra", "T12"), 5: LabelName("vertebra", "L1")}, "made of is empty"),
        ({5: LabelName("vertebra", "T12")}, "its labels are empty"),
    ],
)
def test_all_says_why_it_is_absent(labels: dict[int, LabelName], reason: str) -> None:
    found = find_rois(a_mask(1), labels, "ct")
    assert [roi for roi in found.rois if roi.name.level == "all"] == []
    assert len(found.absent) == 1
    assert reason in found.absent[0].reason


def test_an_empty_label_leaves_the_others() -> None:
    labels = {1: LabelName("vertebra", "L5"), 4: LabelName("vertebra", "L4"), 70: LabelName("sacrum")}
    found = find_rois(a_mask(1), labels, "ct", file="m.nii.gz")
    assert [type(error) for error in found.errors] == [LabelEmpty, LabelEmpty]
    assert "label 4 (vertebra)" in found.errors[0].message
    assert found.errors[0].file == "m.nii.gz"
    assert {roi.name.level: roi.labels for roi in found.rois} == {"L5": (1,), "all": (1,)}


def test_smallest_region() -> None:
    labels = {1: LabelName("vertebra", "L1"), 2: LabelName("vertebra", "L2")}
    just = find_rois(a_mask(1, 2, voxels=MIN_ROI_VOXELS), labels, "ct")
    assert len(just.rois) == 3
    under = find_rois(a_mask(1, 2, voxels=MIN_ROI_VOXELS - 1), labels, "ct")
    assert [type(error) for error in under.errors] == [RoiTooSmall, RoiTooSmall]
    assert [roi.name.level for roi in under.rois] == ["all"]  # together they are large enough


def test_a_line_of_voxels_is_too_small() -> None:
    array = np.zeros((4, 5, 40), np.uint16)
    array[2, 3, 1:31] = 1
    found = find_rois(sitk.GetImageFromArray(array), {1: LabelName("sacrum")}, "ct")
    assert found.rois == []
    assert {type(error) for error in found.errors} == {RoiTooSmall}
    array[2, 4, 5] = 1
    assert len(find_rois(sitk.GetImageFromArray(array), {1: LabelName("sacrum")}, "ct").rois) == 2


@settings(deadline=None)
@given(
    labels=st.dictionaries(
        st.integers(1, 6),
        st.builds(
            LabelName,
            structure=st.sampled_from(list(STRUCTURES)),
            level=st.sampled_from(["T12", "L1", "L5", "all", "unknown"]),
            side=st.sampled_from(["left", "right", "both"]),
        ),
        min_size=1,
    )
)
def test_invariants(labels: dict[int, LabelName]) -> None:
    mask = a_mask(*range(1, 7))
    found = find_rois(mask, labels, "ct")
    keys = [roi.name for roi in found.rois]
    assert len(set(keys)) == len(keys)
    assert {n for roi in found.rois for n in roi.labels} == set(labels)  # every label is in an ROI
    for roi in found.rois:
        assert roi_mask(mask, roi.labels).sum() == roi.voxel_count
        assert {labels[n].structure for n in roi.labels} == {roi.name.structure}
    own = [roi for roi in found.rois if roi.name.level != "all"]
    for one, other in combinations(own, 2):  # regions of single labels never share a voxel
        assert not set(one.labels) & set(other.labels)
    have = {name.structure for name in keys if name.level == "all" and name.side == "both"}
    absent = {gone.name.structure for gone in found.absent}
    assert have | absent == {name.structure for name in labels.values()}
    assert not have & absent


def test_roi_mask_is_boolean_in_z_y_x() -> None:
    mask = a_mask(3, 5)
    union = roi_mask(mask, (5, 900))
    assert union.dtype == bool
    assert union.shape == (3, 3, 6)
    assert union[:, :, 3:].all()
    assert not union[:, :, :3].any()
