"""Connected pieces of a label map: islands go, and of what the body holds one of, the largest piece stays."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from models.segmentation.recipe import Recipe

_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
"""Voxels that share a corner belong together."""


def clean(labels: np.ndarray, recipe: Recipe, voxel_mm3: float) -> np.ndarray:
    """Label map (z, y, x) without pieces under ``smallest_mm3``, and with one piece a class where that is right."""
    kept = np.zeros_like(labels)
    for label, box in enumerate(ndimage.find_objects(labels, max_label=len(recipe.classes)), start=1):
        if box is None:
            continue
        pieces, count = ndimage.label(labels[box] == label, _NEIGHBOURS)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        sizes[0] = 0
        stays = sizes * voxel_mm3 >= recipe.smallest_mm3
        stays[0] = False
        if recipe.largest_piece and recipe.classes[label - 1].one_piece:
            largest = int(sizes.argmax())
            stays &= np.arange(count + 1) == largest
        kept[box][stays[pieces]] = label
    return kept
