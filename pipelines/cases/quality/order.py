"""Labels against the body: levels follow each other from head to foot, left lies to the left of right.

Places are centres in world space (LPS, mm), so the way an image is stored plays no part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from feature_store.vocabulary import DISCS, VERTEBRAE, Side

Key = tuple[str, str, str]
"""structure, level, side"""

RANK = {level: 2 * rank for rank, level in enumerate(VERTEBRAE)} | {
    level: 2 * rank + 1 for rank, level in enumerate(DISCS)
}
"""From head to foot, a disc between its two vertebrae."""

CHAINS = (("vertebral_body", "intervertebral_disc"), ("vertebra",))
"""Structures that stand in one row. A whole vertebra's centre hangs down its spinous process to the height of
the next disc, so whole vertebrae are compared among themselves."""


def out_of_order(centres: Mapping[Key, np.ndarray]) -> dict[Key, str]:
    """The regions whose level does not fit its neighbour's, each with the sentence that says so.

    Of two neighbours in the wrong order either may be the wrong one, so both are named.
    """
    wrong: dict[Key, str] = {}
    for chain in CHAINS:
        row = sorted((RANK[key[1]], key) for key in centres if key[0] in chain and key[1] in RANK)
        for (upper_rank, upper), (lower_rank, lower) in pairwise(row):
            drop = float(centres[upper][2] - centres[lower][2])
            if upper_rank < lower_rank and drop <= 0:
                sentence = (
                    f"the centre of {upper[1]} lies {-drop:.1f} mm below that of {lower[1]}; it belongs above it."
                )
                wrong.setdefault(upper, sentence)
                wrong.setdefault(lower, sentence)
    return wrong


def mirrored(centres: Mapping[Key, np.ndarray]) -> dict[Key, str]:
    """Regions declared left that lie to the right of the same one declared right, and the other way round."""
    sides: dict[tuple[str, str], dict[str, Key]] = defaultdict(dict)
    for key in centres:
        sides[key[:2]][key[2]] = key
    wrong: dict[Key, str] = {}
    for (structure, _), found in sides.items():
        left, right = found.get(Side.LEFT.value), found.get(Side.RIGHT.value)
        if left is None or right is None:
            continue
        gap = float(centres[left][0] - centres[right][0])
        if gap <= 0:
            sentence = f"the left {structure} lies {-gap:.1f} mm to the right of the right one."
            wrong |= {left: sentence, right: sentence}
    return wrong
