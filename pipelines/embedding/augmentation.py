"""What is done to a cube before an encoder learns from it."""

from __future__ import annotations

import numpy as np

from models.learning.settings import Augmentation
from pipelines.embedding.embedder import resized


def augmented(cube: np.ndarray, settings: Augmentation, draw: np.random.Generator) -> np.ndarray:
    """A cube float32 (e, e, e) -> another of the same size: cropped, mirrored left to right, brightened.

    Always draws the same number of values, so that one setting does not move the draws of another.
    """
    edge = cube.shape[0]
    sizes = np.maximum(1, np.round(edge * draw.uniform(settings.smallest_crop, 1.0, 3))).astype(int)
    starts = np.floor(draw.random(3) * (edge - sizes + 1)).astype(int)
    mirrored = draw.random() < 0.5
    gain, shift = draw.uniform(-1, 1, 2)
    box = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    out = cube if (sizes == edge).all() else resized(cube[box], edge)
    if settings.mirror and mirrored:
        out = out[:, :, ::-1]
    out = out * np.float32(1 + settings.gain * gain) + np.float32(settings.shift * shift)
    return np.ascontiguousarray(out, dtype=np.float32)
