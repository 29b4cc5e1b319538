from __future__ import annotations

import json

import pytest
import torch

from feature_store.errors import CheckpointError, SettingsError
from models.segmentation.recipe import SegmentClass, default_recipe, downsampling, kernels, recipe_from
from models.segmentation.unet import load_net, new_net, weights_of

BODIES = [SegmentClass(structure="vertebral_body", level=level) for level in ("L1", "L2")]
PSOAS = [SegmentClass(structure="psoas_major", side=side) for side in ("left", "right")]
TINY = {"patch": [16, 16, 32], "base_filters": 2, "stages": 3}


def test_a_recipe_is_its_settings():
    recipe = default_recipe("ct", BODIES, **TINY)
    assert recipe_from(recipe.canonical()) == recipe
    other = default_recipe("ct", BODIES, **TINY, seed=1)
    assert recipe.segmenter_id("aa") != other.segmenter_id("aa")
    assert recipe.segmenter_id("aa") != recipe.segmenter_id("ab")
    assert recipe.segmenter_id("aa").startswith("unet_ct-")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"patch_size": 3}, "patch_size"),
        ({"patch": [14, 14, 30]}, "halved 2 times"),
        ({"spacing_mm": [0.0, 1.0, 1.0]}, "positive"),
        ({"steps": "many"}, "steps"),
        ({"intensity": {"kind": "window", "middle": 3.0}}, "middle"),
        ({"intensity": {"kind": "window", "low": 5.0, "high": 5.0}}, "under high"),
        ({"classes": []}, "classes"),
        ({"classes": [{"structure": "femur"}]}, "vocabulary"),
    ],
)
def test_what_is_no_recipe_is_refused_by_name(change, rule):
    settings = json.loads(default_recipe("ct", BODIES, **TINY).canonical())
    with pytest.raises(SettingsError, match=rule):
        recipe_from(json.dumps(settings | change))


@pytest.mark.parametrize("sequence", ["ct", "t1_sag", "t2_sag", "t2_ax", "dixon_water"])
def test_there_is_a_recipe_for_any_sequence(sequence):
    recipe = default_recipe(sequence, BODIES)
    assert recipe.intensity.kind == ("window" if sequence == "ct" else "z_score")
    assert len(downsampling(recipe)) == recipe.stages


def test_thick_slices_are_not_mixed_before_the_plane_is_as_coarse():
    # sagittal: x is the thick axis, and the last of z, y, x
    recipe = default_recipe("t2_sag", BODIES)
    assert [stride[2] for stride in downsampling(recipe)] == [1, 1, 1, 2, 2]
    assert [kernel[2] for kernel in kernels(recipe)] == [1, 1, 3, 3, 3]
    assert [kernel[:2] for kernel in kernels(recipe)] == [(3, 3)] * 5


def test_left_and_right_change_places_only_with_a_partner():
    assert default_recipe("t2_ax", [*PSOAS, *BODIES]).mirrored() == (0, 2, 1, 3, 4)
    assert default_recipe("t2_ax", [PSOAS[0], *BODIES]).mirrored() is None


def test_what_the_body_holds_one_of():
    one = {str(c): c.one_piece for c in [*BODIES, *PSOAS]}
    assert set(one.values()) == {True}
    assert not SegmentClass(structure="vertebral_body", level="all").one_piece
    assert not SegmentClass(structure="vertebra").one_piece


def test_the_net_is_the_recipes_and_nobodys_generator_is_touched():
    recipe = default_recipe("ct", BODIES, **TINY)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    net = new_net(recipe).eval()
    assert torch.equal(torch.random.get_rng_state(), before)
    volume = torch.randn(1, 1, 32, 16, 16)
    with torch.no_grad():
        logits = net(volume)
        assert logits.shape == (1, 3, 32, 16, 16)
        torch.testing.assert_close(load_net(recipe, weights_of(net))(volume), logits, rtol=0, atol=0)
        torch.testing.assert_close(new_net(recipe).eval()(volume), logits, rtol=0, atol=0)


def test_weights_of_another_recipe_are_refused():
    with pytest.raises(CheckpointError):
        load_net(default_recipe("ct", BODIES[:1], **TINY), weights_of(new_net(default_recipe("ct", BODIES, **TINY))))
