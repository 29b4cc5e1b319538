"""Images and label maps on a recipe's grid, kept in files that are mapped and never loaded whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

PLACES = 4096
"""Voxels remembered of each class, to centre patches on."""


@dataclass(frozen=True)
class Example:
    """One patient's image, ready to cut patches from.

    ``image`` float32 and ``labels`` uint8 (0 background, else output channel) are (z, y, x) on the recipe's
    grid; ``places`` holds for each label that is there up to PLACES voxel indices (n, 3); ``fill`` is what
    stands outside the image: its lowest value.
    """

    image: np.ndarray
    labels: np.ndarray
    places: dict[int, np.ndarray]
    fill: float


def write_example(folder: Path, image: np.ndarray, labels: np.ndarray, seed: int) -> None:
    """Keep an example in a folder of its own; the folder appears whole or not at all."""
    part = folder.with_name(f".{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    np.save(part / "image.npy", np.ascontiguousarray(image, dtype=np.float32))
    np.save(part / "labels.npy", np.ascontiguousarray(labels, dtype=np.uint8))
    rng = np.random.default_rng(seed)
    numbers, places = [], []
    for label in np.unique(labels):
        if label:
            found = np.flatnonzero(labels == label)
            kept = np.sort(rng.choice(found, PLACES, replace=False)) if len(found) > PLACES else found
            numbers.append(np.full(len(kept), label, dtype=np.uint8))
            places.append(np.stack(np.unravel_index(kept, labels.shape), axis=1).astype(np.int32))
    np.savez(
        part / "places.npz",
        label=np.concatenate([np.zeros(0, np.uint8), *numbers]),
        index=np.concatenate([np.zeros((0, 3), np.int32), *places]),
    )
    part.replace(folder)


def open_example(folder: Path) -> Example:
    """An example as :func:`write_example` kept it."""
    image = np.load(folder / "image.npy", mmap_mode="r")
    with np.load(folder / "places.npz") as kept:
        label, index = kept["label"], kept["index"]
    places = {int(one): index[label == one] for one in np.unique(label)}
    return Example(image, np.load(folder / "labels.npy", mmap_mode="r"), places, float(image.min()))
