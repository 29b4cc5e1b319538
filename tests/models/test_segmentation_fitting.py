from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_store.errors import CheckpointError
from models.segmentation.examples import open_example, write_example
from models.segmentation.fitting import STATE, fit
from models.segmentation.patches import PatchSampler, cut
from models.segmentation.recipe import Recipe, SegmentClass, default_recipe, recipe_from

LEFT_RIGHT = [SegmentClass(structure="psoas_major", side=side) for side in ("left", "right")]
STILL = {"affine_share": 0.0, "intensity_share": 0.0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets this small only wait for each other on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**changes: object) -> Recipe:
    settings = {"patch": [16, 16, 16], "base_filters": 2, "stages": 3, "steps": 30, "learning_rate": 0.01} | changes
    return default_recipe("ct", LEFT_RIGHT, **settings)


def make_examples(folder: Path) -> list[Path]:
    """Two bright bars on a dark ground, left the brighter one; x grows to the left."""
    folders = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        labels = np.zeros((14, 10, 12), np.uint8)
        labels[2:12, 3:7, 7:11], labels[2:12, 3:7, 1:4] = 1, 2
        image = np.array([-1.0, 1.0, 0.5], np.float32)[labels] + 0.1 * rng.normal(size=labels.shape)
        folders.append(folder / f"example-{seed}")
        write_example(folders[-1], image, labels, seed)
    return folders


def test_an_example_comes_back_as_it_was_kept(tmp_path):
    example = open_example(make_examples(tmp_path)[0])
    assert (example.image.dtype, example.labels.dtype) == (np.float32, np.uint8)
    for label, places in example.places.items():
        assert (example.labels[tuple(places.T)] == label).all()
        assert len(places) == (example.labels == label).sum()
    assert example.fill == example.image.min()


def test_a_patch_stays_inside_and_a_small_image_is_padded(tmp_path):
    example = open_example(make_examples(tmp_path)[0])
    image, labels = cut(example, (13, 9, 0), (8, 8, 16))
    assert image.shape == labels.shape == (8, 8, 16)
    np.testing.assert_array_equal(image[:, :, 2:14], example.image[6:14, 2:10])
    assert (image[:, :, :2] == example.fill).all()
    assert not labels[:, :, 14:].any()


def test_a_step_is_the_same_whenever_it_is_drawn(tmp_path):
    examples = [open_example(folder) for folder in make_examples(tmp_path)]
    recipe = tiny(augmentation={"affine_share": 1.0, "intensity_share": 1.0})
    first, again = PatchSampler(recipe, examples), PatchSampler(recipe, examples)
    wanted = [first.batch(step) for step in range(4)][3]
    for one, other in zip(wanted, again.batch(3), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not torch.equal(wanted[0], again.batch(4)[0])
    assert wanted[0].shape == wanted[1].shape == (2, 1, 16, 16, 16)
    assert set(wanted[1].unique().tolist()) <= {0, 1, 2}


def test_a_mirrored_patch_keeps_left_left(tmp_path):
    """The left bar lies on the side where x grows and is brighter: mirrored, the labels change places with it."""
    examples = [open_example(folder) for folder in make_examples(tmp_path)]
    recipe = tiny(patch=[16, 12, 16], augmentation=STILL, batch_size=1, foreground_share=0.0)
    sampler = PatchSampler(recipe, examples)
    seen = set()
    for step in range(12):
        image, labels = (part[0, 0].numpy() for part in sampler.batch(step))
        left, right = np.argwhere(labels == 1)[:, 2].mean(), np.argwhere(labels == 2)[:, 2].mean()
        assert left > right
        seen.add(bool(image[labels == 1].mean() > image[labels == 2].mean()))
    assert seen == {True, False}  # some were mirrored, some not


def test_it_learns_and_says_so(tmp_path):
    examples = [open_example(folder) for folder in make_examples(tmp_path)]
    judged: list[int] = []
    # the two sides differ by brightness, which mirroring would undo
    recipe = tiny(augmentation=STILL | {"mirror": False}, base_filters=8, steps=60)
    done = fit(recipe, examples, tmp_path / "run", judge=lambda net: float(judged.append(1) or len(judged)))
    assert done.curve[-1].loss < 0.8 * done.curve[0].loss
    assert [point.step for point in done.curve] == list(range(6, 61, 6))
    assert [point.held_out_dice for point in done.curve] == [float(i) for i in range(1, 11)]


KILLED = """
import sys
from pathlib import Path
from models.segmentation.examples import open_example
from models.segmentation.fitting import fit
from models.segmentation.recipe import recipe_from
folder = Path(sys.argv[1])
fit(
    recipe_from(sys.argv[2]),
    [open_example(one) for one in sorted(folder.glob("example-*"))],
    folder / "run",
    checkpoint_seconds=0.0,
    progress=lambda step, loss: print(step, flush=True),
)
"""


def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path):
    examples = [open_example(folder) for folder in make_examples(tmp_path)]
    recipe = tiny(steps=30)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), recipe.canonical()],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 6:
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL
    reached = torch.load(tmp_path / "run" / STATE, weights_only=True)["step"]
    assert 6 <= reached < 30
    steps: list[int] = []
    resumed = fit(recipe, examples, tmp_path / "run", progress=lambda step, loss: steps.append(step))
    assert steps[0] == reached + 1
    straight = fit(recipe, examples, tmp_path / "other")
    assert [point.step for point in resumed.curve] == [point.step for point in straight.curve]
    assert [p.loss for p in resumed.curve] == pytest.approx([p.loss for p in straight.curve], rel=1e-4)
    for name, weight in straight.weights.items():
        torch.testing.assert_close(resumed.weights[name], weight, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_of_another_recipe_or_none_is_refused(tmp_path):
    examples = [open_example(folder) for folder in make_examples(tmp_path)]
    fit(tiny(steps=1), examples, tmp_path / "run")
    with pytest.raises(CheckpointError, match="another recipe"):
        fit(tiny(steps=2), examples, tmp_path / "run")
    (tmp_path / "run" / STATE).write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(recipe_from(tiny(steps=1).canonical()), examples, tmp_path / "run")
