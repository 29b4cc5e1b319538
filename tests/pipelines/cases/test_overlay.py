"""The picture of a series: right way round, true proportions, the same bytes every time."""

from __future__ import annotations

import io
from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from pipelines.cases.overlay import BY_LEVEL, BY_SIDE, DrawnMask, draw_overlay
from pipelines.cases.overlay_page import BADGE
from pipelines.cases.overlay_planes import Slice, cut
from pipelines.cases.quality.body_axes import BodyAxes
from pipelines.cases.quality.order import RANK
from pipelines.cases.quality.regions import judge_rois
from pipelines.cases.quality.series import judge_series
from pipelines.cases.quality.verdict import Quality, Verdict, fail, warn
from pipelines.cases.rois import find_rois
from tests.pipelines.cases.quality_images import SAGITTAL, Made, noise_image, spine


def picture(made: Made, flips: tuple[bool, bool, bool] = (False, False, False), sequence: str = "ct") -> bytes:
    image, mask = made.stored(flips)
    series, intensities = judge_series(image, sequence)
    rois = find_rois(mask, made.names, sequence).rois
    drawn = DrawnMask(mask, rois, judge_rois(image, mask, rois, intensities))
    return draw_overlay(image, [drawn], sequence, "primary", series)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def has(png: bytes, colour: tuple[int, int, int]) -> bool:
    return bool((pixels(png) == colour).all(axis=2).any())


def test_the_same_image_gives_the_same_bytes_whatever_way_it_is_stored() -> None:
    made = spine()
    first = picture(made)
    assert picture(made) == first
    image, mask = made.stored()
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    assert Image.open(io.BytesIO(first)).info.get("Description") is None
    assert not any(word in first for word in (b"tEXt", b"iTXt", b"tIME", b"eXIf"))
    # flipped storage changes the order of voxels and nothing of the picture
    assert np.array_equal(pixels(picture(made, (True, False, True))), pixels(first))
    assert image.GetSize() == mask.GetSize()


def test_contours_have_the_colours_of_their_levels_and_sides() -> None:
    png = picture(spine())
    for level in ("L1", "L2", "L3", "L4", "L5"):
        assert has(png, BY_LEVEL[RANK[level] % len(BY_LEVEL)])
    assert all(has(png, colour) for colour in BY_SIDE["psoas_major"])
    made = spine()
    made.labels[made.labels > 5] = 0
    assert not any(has(picture(made), colour) for colour in BY_SIDE["psoas_major"] if colour not in BY_LEVEL)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_letters_say_where_things_are(order: tuple[int, int, int]) -> None:
    """A bright block at the head, the left and the back of the body: each slice shows it where its letters say."""
    body = np.zeros((60, 60, 60), np.int16)
    regions = np.ones((60, 60, 60), np.uint16)
    body[40:55, 40:55, 40:55] = 1000  # towards S, P, L
    for flips in product((False, True), repeat=3):
        direction, origin = np.eye(3)[:, list(order)], np.zeros(3)
        array = np.transpose(body.T, order).T  # stored axis i runs along body axis order[i] (x, y, z)
        for axis, flip in enumerate(flips):
            if flip:
                origin = origin + direction[:, axis] * 59
                direction[:, axis] *= -1
                array = np.flip(array, 2 - axis)
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        image.SetDirection(direction.ravel().tolist())
        image.SetOrigin(origin.tolist())
        axes = BodyAxes.of(image)
        view = axes.view(sitk.GetArrayViewFromImage(image))
        shown = cut(view, regions, axes, (0.0, 1000.0), (1,))
        assert [one.caption.split()[0] for one in shown] == ["sagittal", "coronal", "axial"]
        for place in (10, 47):
            assert view[47, place, 47] == (1000 if place == 47 else 0)
        assert axes.world(image, np.array([47.0, 20.0, 10.0])) == pytest.approx([10.0, 20.0, 47.0])


def test_rows_run_from_head_to_foot_and_from_right_to_left() -> None:
    voxels = np.zeros((60, 60, 60), np.int16)
    regions = np.ones((60, 60, 60), np.uint8)
    voxels[50:, :, :] = 400  # head
    voxels[:, :, 50:] += 300  # left
    voxels[:, 50:, :] += 200  # back
    image = sitk.GetImageFromArray(voxels)
    axes = BodyAxes.of(image)
    found = {one.caption.split()[0]: one for one in cut(voxels, regions, axes, (0.0, 1000.0), (1,))}

    def brighter(one: Slice, side: str) -> bool:
        grey = one.grey.astype(float)
        halves = {"top": grey[:20], "bottom": grey[-20:], "left": grey[:, :20], "right": grey[:, -20:]}
        opposite = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
        return bool(halves[side].mean() > halves[opposite[side]].mean() + 5)

    for name, sides in {
        "sagittal": {"top": "S", "right": "P"},
        "coronal": {"top": "S", "right": "L"},
        "axial": {"bottom": "P", "right": "L"},
    }.items():
        for side, letter in sides.items():
            assert brighter(found[name], side)
            assert found[name].letters[("top", "bottom", "left", "right").index(side)] == letter


def test_proportions_are_those_of_the_body() -> None:
    """A ball of 20 mm radius in voxels of 0.5 x 0.5 x 4 mm is as wide as it is high in the sagittal slice."""
    image = noise_image((160, 160, 15), (0.5, 0.5, 4.0), SAGITTAL)
    axes = BodyAxes.of(image)
    places = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(axes.size, axes.spacing, strict=True)]
    s, p, left = np.meshgrid(*places, indexing="ij")
    ball = ((s**2 + p**2 + left**2) <= 20.0**2).astype(np.uint8)
    slices = cut(axes.view(sitk.GetArrayViewFromImage(image)), ball, axes, (0.0, 600.0), (1,))
    assert all(one.caption.startswith("sagittal") for one in slices)
    middle = max(slices, key=lambda one: int(one.regions.sum()))
    rows, columns = np.nonzero(middle.regions)
    height, width = np.ptp(rows) * middle.pixel_mm[0], np.ptp(columns) * middle.pixel_mm[1]
    assert height == pytest.approx(width, abs=1.0)
    axial = noise_image((80, 80, 20), (2.0, 2.0, 6.0))
    axial_axes = BodyAxes.of(axial)
    regions = np.zeros(axial_axes.size, np.uint8)
    regions[4:16, 30:50, 20:60] = 1
    shown = cut(sitk.GetArrayFromImage(axial), regions, axial_axes, (0.0, 600.0), ())
    assert len(shown) == 6
    numbers = [int(one.caption.split()[1].split("/")[0]) for one in shown]
    assert numbers == sorted(numbers)  # as a reader scrolls, from the head down


def test_the_badge_is_the_gravest_verdict() -> None:
    image = noise_image((60, 60, 20), (1.0, 1.0, 4.0))
    for quality in (
        Quality(),
        Quality((warn("SlicesThick", "slices."),)),
        Quality((warn("SlicesThick", "slices."), fail("PlaneDiffers", "plane."))),
    ):
        png = draw_overlay(image, [], "t2_ax", "primary", quality)
        assert tuple(pixels(png)[20, 20]) == BADGE[quality.verdict]
    assert {verdict for verdict in BADGE} == set(Verdict)


def test_very_many_regions_and_reasons_fit() -> None:
    made = spine()
    made.names = dict.fromkeys(range(1, 8), made.names[1])
    image, mask = made.stored()
    rois = find_rois(mask, made.names, "ct").rois
    many = Quality(tuple(warn(f"Code{n}", "a long sentence " * 12) for n in range(40)))
    png = draw_overlay(image, [DrawnMask(mask, rois)] * 60, "ct", "reader_a", many)
    height, width, _ = pixels(png).shape
    assert width == 1080
    assert height < 1600
