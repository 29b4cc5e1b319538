"""Quality control of ROIs: each fault of a mask gets its own reason, and a sound mask none."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.vocabulary import RoiName
from pipelines.cases.quality.order import out_of_order
from pipelines.cases.quality.verdict import Verdict
from pipelines.cases.rois import LabelName
from tests.pipelines.cases.quality_images import LEVELS, Made, codes, judged, spine

BODY = {level: RoiName("ct", "vertebral_body", level) for level in (*LEVELS, "all")}
LEFT, RIGHT, BOTH = (RoiName("ct", "psoas_major", level, side) for level, side in
                     (("unknown", "left"), ("unknown", "right"), ("all", "both")))  # fmt: skip


def test_a_sound_mask_passes_whatever_way_it_is_stored() -> None:
    for flips in product((False, True), repeat=3):
        series, rois = judged(spine(), flips=(flips[0], flips[1], flips[2]))
        assert series.lines() == []
        assert {name: quality.lines() for name, quality in rois.items() if quality.reasons} == {}
        assert rois[BODY["all"]].measured["pieces"] == 5
        assert rois[BOTH].measured["pieces"] == 2
        assert rois[BODY["L3"]].measured["volume_mm3"] == pytest.approx(18 * 22 * 24 * 1.5**3)


def _swap(one: int, other: int) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        made.names[one], made.names[other] = made.names[other], made.names[one]

    return spoil


def _second_piece(made: Made) -> None:
    made.labels[made.labels == 4] = 3


def _specks(made: Made) -> None:
    made.labels[27:56:2, 36:44:2, 12:36:2] = 2


def _cut_off(made: Made) -> None:
    made.image, made.labels = made.image[:-17], made.labels[:-17]


def _not_filled(made: Made) -> None:
    made.labels[62:72, 14:28, 16:32] = 0


def _one_slice(made: Made) -> None:
    made.labels[(made.labels == 3) & (np.arange(140)[:, None, None] != 65)] = 0


def _in_air(made: Made) -> None:
    made.image[60:74, 9:33, 11:37] = -900


def _partly_in_air(made: Made) -> None:
    made.image[60:64, 9:33, 11:37] = -900


def _flat(made: Made) -> None:
    made.image[made.labels == 3] = 250


def _tiny(made: Made) -> None:
    keep = np.zeros_like(made.labels, dtype=bool)
    keep[60:63, 20:26, 20:26] = True
    made.labels[(made.labels == 3) & ~keep] = 0


def _full_of_metal(made: Made) -> None:
    made.image[made.labels == 3] += 1200


def _in_the_last_layer(made: Made) -> None:
    made.labels[made.labels == 1] = 0
    made.labels[0, 10:32, 12:36] = 1


def _thin_muscle(made: Made) -> None:
    made.labels[:, 16:, 38:46] = 0


def _broad_muscle(made: Made) -> None:
    made.spacing = (4.0, 4.0, 1.5)


def _touching(made: Made) -> None:
    made.labels[51:58, 10:32, 12:36] = 2


SPOILT: dict[str, tuple[Callable[[Made], None], dict[RoiName, list[str]]]] = {
    "two levels swapped": (
        _swap(2, 3),
        {BODY["L4"]: ["LevelOrder:fail"], BODY["L3"]: ["LevelOrder:fail"], BODY["all"]: ["LevelOrder:warn"]},
    ),
    "sides swapped": (
        _swap(6, 7), {LEFT: ["SideMirrored:fail"], RIGHT: ["SideMirrored:fail"], BOTH: ["SideMirrored:warn"]},
    ),
    "two bodies under one label": (
        _second_piece, {BODY["L3"]: ["TwoPieces:fail"], BODY["all"]: ["Scattered:warn"]},
    ),
    "specks": (_specks, {BODY["L4"]: ["Scattered:warn"]}),
    "cut off by the image": (_cut_off, {BODY["L1"]: ["ClippedAtEdge:warn"], BODY["all"]: ["ClippedAtEdge:warn"]}),
    "a contour that was not filled": (
        _not_filled, {BODY["L3"]: ["Hollow:warn"], BODY["all"]: ["Hollow:warn"]},
    ),
    "one slice": (_one_slice, {BODY["L3"]: ["OneSlice:warn", "VolumeSmall:warn"]}),
    "in air": (
        _in_air, {BODY["L3"]: ["DensityImplausible:warn", "OutsideBody:fail"], BODY["all"]: ["OutsideBody:warn"]},
    ),
    "partly in air": (_partly_in_air, {BODY["L3"]: ["DensityImplausible:warn", "OutsideBody:warn"]}),
    "in the image's last layer": (
        _in_the_last_layer, {BODY["L5"]: ["MostlyAtEdge:fail", "OneSlice:warn"],
                             BODY["all"]: ["ClippedAtEdge:warn"]},
    ),
    "a sliver of a muscle": (_thin_muscle, {LEFT: ["AreaSmall:warn"], BOTH: ["AreaSmall:warn"]}),
    "voxels that are not as large as they say": (
        _broad_muscle,
        {name: ["VolumeLarge:warn"] for name in BODY.values()},
    ),
    "flat": (_flat, {BODY["L3"]: ["FlatRegion:fail"]}),
    "a tenth of a body": (_tiny, {BODY["L3"]: ["VolumeSmall:warn", "VoxelsFew:warn"]}),
    "cement or an implant": (_full_of_metal, {BODY["L3"]: ["DensityImplausible:warn"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_each_fault_has_its_reason_and_touches_nothing_else(name: str) -> None:
    spoil, expected = SPOILT[name]
    made = spine()
    spoil(made)
    _, rois = judged(made)
    assert {roi: codes(quality) for roi, quality in rois.items() if quality.reasons} == expected


def test_touching_levels_are_still_a_piece_each() -> None:
    made = spine()
    _touching(made)
    _, rois = judged(made)
    assert rois[BODY["all"]].measured["pieces"] == 5
    assert rois[BODY["all"]].reasons == ()


def test_a_union_is_the_wrong_one_where_a_swapped_level_lies_outside_of_it() -> None:
    """L1 and T12 swapped: `all` holds T12's voxels. L1 and L2 swapped: the same voxels, whichever is which."""
    made = spine()
    made.names[5], made.names[4] = LabelName("vertebral_body", "L1"), LabelName("vertebral_body", "T12")
    _, rois = judged(made)
    assert codes(rois[BODY["all"]]) == ["LevelOrder:fail"]


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(9)))
def test_levels_that_are_not_named_are_in_order(places: list[int]) -> None:
    """Bodies and discs at any heights: what is left after the named ones falls from head to foot, and nothing is
    named where all do."""
    row = ("L1", "L1-L2", "L2", "L2-L3", "L3", "L3-L4", "L4", "L4-L5", "L5")
    keys = [("intervertebral_disc" if "-" in level else "vertebral_body", level, "both") for level in row]
    centres = {key: np.array([0.0, 0.0, -20.0 * place]) for key, place in zip(keys, places, strict=True)}
    wrong = out_of_order(centres)
    left = [centres[key][2] for key in keys if key not in wrong]
    assert left == sorted(left, reverse=True)
    assert bool(wrong) == (list(places) != sorted(places))


def test_a_swapped_pair_is_found_without_its_neighbours() -> None:
    row = ("L1", "L1-L2", "L2", "L2-L3", "L3", "L3-L4", "L4", "L4-L5", "L5")
    keys = [("intervertebral_disc" if "-" in level else "vertebral_body", level, "both") for level in row]
    heights = {key: np.array([5.0, 0.0, -17.0 * n]) for n, key in enumerate(keys)}
    heights[keys[2]], heights[keys[6]] = heights[keys[6]], heights[keys[2]]
    wrong = out_of_order(heights)
    assert set(wrong) == {keys[2], keys[6]}
    assert wrong[keys[2]] == "the centre of L2 lies 51.0 mm below that of L2-L3; it belongs above it."
    lone = dict(heights) | {keys[2]: heights[keys[6]], keys[6]: heights[keys[2]]}
    lone[keys[4]] = np.array([0.0, 0.0, 30.0])  # L3 above everything: the others outvote it
    assert set(out_of_order(lone)) == {keys[4]}


def test_discs_belong_between_their_bodies() -> None:
    made = spine()
    gap = slice(8 + 18, 8 + 25)  # between L5 and L4
    made.labels[gap, 10:32, 12:36] = 8
    made.names[8] = LabelName("intervertebral_disc", "L4-L5")
    _, rois = judged(made)
    disc = RoiName("ct", "intervertebral_disc", "L4-L5")
    assert codes(rois[disc]) == []
    made.names[8] = LabelName("intervertebral_disc", "L2-L3")
    _, rois = judged(made)
    assert "LevelOrder:fail" in codes(rois[RoiName("ct", "intervertebral_disc", "L2-L3")])


def test_a_mask_mirrored_against_its_labels_is_found_in_mr_too() -> None:
    made = spine()
    made.image = (made.image + 1100).astype(np.int16)
    made.labels = np.ascontiguousarray(made.labels[:, :, ::-1])
    _, rois = judged(made, "t2_sag")
    assert [str(reason.verdict) for reason in rois[RoiName("t2_sag", "psoas_major", "unknown", "left")].reasons] == [
        "fail"
    ]


def test_a_black_disc_is_a_disc() -> None:
    """On T2 a degenerated disc is as dark as air: no reason to call it outside of the body; a body that dark is."""
    made = spine()
    made.image = np.clip(made.image + 400, 1, None).astype(np.int16)
    draw = np.random.default_rng(2)
    dark = (made.labels == 2) | (made.labels == 3)
    made.image[dark] = draw.integers(0, 8, int(dark.sum()))
    made.names = {2: LabelName("intervertebral_disc", "L4-L5"), 3: LabelName("vertebral_body", "L3")}
    _, rois = judged(made, "t2_sag")
    assert codes(rois[RoiName("t2_sag", "intervertebral_disc", "L4-L5")]) == []
    assert codes(rois[RoiName("t2_sag", "vertebral_body", "L3")]) == ["OutsideBody:fail"]


def test_a_muscle_may_leave_the_slab_at_its_ends_and_not_at_its_sides() -> None:
    made = spine()
    made.image, made.labels = made.image[20:100], made.labels[20:100]
    made.names = {6: LabelName("psoas_major", side="left"), 7: LabelName("psoas_major", side="right")}
    _, rois = judged(made)
    assert codes(rois[LEFT]) == []
    assert rois[LEFT].measured["edge_faces"] == "SI"
    made.image, made.labels = made.image[:, :, :44], made.labels[:, :, :44]
    _, rois = judged(made)
    assert codes(rois[LEFT]) == ["ClippedAtEdge:warn"]
    assert "at L" in rois[LEFT].lines()[0]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_image_and_mask_make_it_raise(data: st.DataObject) -> None:
    """Few voxels, lone voxels, labels at every border, constant regions: always a verdict for each ROI."""
    shape = data.draw(st.tuples(*(st.integers(2, 9),) * 3))
    seed = data.draw(st.integers(0, 2**32 - 1))
    draw = np.random.default_rng(seed)
    high = data.draw(st.sampled_from([1, 2, 40, 4000]))
    image = draw.integers(-1, high, shape).astype(
        data.draw(st.sampled_from([np.int16, np.int32, np.float32, np.float64]))
    )
    labels = draw.integers(0, 4, shape).astype(np.uint16) * (draw.random(shape) < data.draw(st.floats(0.05, 1.0)))
    names = {
        1: LabelName("vertebral_body", "L4"),
        2: LabelName("vertebral_body", "L5"),
        3: LabelName("psoas_major", side="left"),
    }
    made = Made(image, labels.astype(np.uint16), names)
    series, rois = judged(made, data.draw(st.sampled_from(["ct", "t2_sag", "t2_ax", "other"])))
    for quality in (series, *rois.values()):
        assert quality.verdict in Verdict
        assert all(np.isfinite(value) for value in quality.measured.values() if not isinstance(value, str))
        assert len(quality.lines()) == len(quality.reasons)
