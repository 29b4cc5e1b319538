"""Training patches: what is cut where, and how it is varied (MONAI's transforms).

Every draw follows from the recipe's seed, the step and the place in the batch alone. So a training that was
killed and resumed sees exactly the patches it would have seen, and no state of a generator has to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, RandAffined, RandGaussianNoised, RandScaleIntensityd, RandShiftIntensityd
from torch import Tensor

from models.segmentation.examples import Example
from models.segmentation.recipe import Recipe

SAME_SPACING = 1.5
"""Two axes whose voxel sizes differ by less than this factor may be turned into each other."""


class PatchSampler:
    """Batches of a recipe's patches from examples; ``batch(step)`` is the same whenever it is asked."""

    def __init__(self, recipe: Recipe, examples: Sequence[Example]) -> None:
        self._recipe = recipe
        self._examples = examples
        self._size = tuple(reversed(recipe.patch))  # z, y, x
        self._varied = _variation(recipe)
        self._mirrored = recipe.mirrored() if recipe.augmentation.mirror else None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 and labels uint8, both (batch, 1, z, y, x)."""
        patches = [self._patch(np.random.default_rng([self._recipe.seed, step, i])) for i in range(self._count)]
        return torch.stack([image for image, _ in patches]), torch.stack([labels for _, labels in patches])

    @property
    def _count(self) -> int:
        return self._recipe.batch_size

    def _patch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        example = self._examples[int(rng.integers(len(self._examples)))]
        image, labels = cut(example, self._centre(example, rng), self._size)
        if self._mirrored is not None and rng.random() < 0.5:
            image = image[..., ::-1]  # x is the last axis and runs from right to left
            labels = np.array(self._mirrored, dtype=np.uint8)[labels[..., ::-1]]
        self._varied.set_random_state(seed=int(rng.integers(2**31)))
        varied: Mapping[str, Any] = self._varied(
            {"image": torch.from_numpy(image[None].copy()), "labels": torch.from_numpy(labels[None].copy())}
        )
        return _plain(varied["image"]).float(), _plain(varied["labels"]).to(torch.uint8)

    def _centre(self, example: Example, rng: np.random.Generator) -> tuple[int, ...]:
        if example.places and rng.random() < self._recipe.foreground_share:
            places = example.places[sorted(example.places)[int(rng.integers(len(example.places)))]]
            return tuple(int(i) for i in places[int(rng.integers(len(places)))])
        return tuple(int(rng.integers(n)) for n in example.image.shape)


def cut(example: Example, centre: Sequence[int], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The patch around a voxel, moved so that it stays inside; an image smaller than it is padded on both sides."""
    slices, pads = [], []
    for at, wanted, have in zip(centre, size, example.image.shape, strict=True):
        low = min(max(at - wanted // 2, 0), max(have - wanted, 0))
        slices.append(slice(low, min(low + wanted, have)))
        missing = max(wanted - have, 0)
        pads.append((missing // 2, missing - missing // 2))
    place = tuple(slices)
    image = np.pad(example.image[place], pads, constant_values=example.fill)
    return image, np.pad(example.labels[place], pads, constant_values=0)


def _variation(recipe: Recipe) -> Compose:
    how = recipe.augmentation
    spacing = tuple(reversed(recipe.spacing_mm))
    turns = [0.0, 0.0, 0.0]
    for axis in range(3):
        plane = [spacing[other] for other in range(3) if other != axis]
        if max(plane) / min(plane) < SAME_SPACING:
            turns[axis] = float(np.radians(how.rotation_deg))
    return Compose(
        [
            RandAffined(
                keys=("image", "labels"),
                prob=how.affine_share,
                rotate_range=turns,
                scale_range=(how.scale,) * 3,
                mode=("bilinear", "nearest"),
                padding_mode=("border", "zeros"),
            ),
            RandGaussianNoised(keys="image", prob=how.intensity_share, std=how.noise_sd),
            RandScaleIntensityd(keys="image", prob=how.intensity_share, factors=how.brightness),
            RandShiftIntensityd(keys="image", prob=how.intensity_share, offsets=how.shift),
        ]
    )


def _plain(tensor: Any) -> Tensor:
    """Without MONAI's metadata."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
