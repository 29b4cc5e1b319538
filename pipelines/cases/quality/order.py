"""Labels against the body: levels follow each other from head to foot, left lies to the left of right.

Places are centres in world space (LPS, mm), so the way an image is stored plays no part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

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
    """The regions whose level does not fit the others', each with the sentence that says so.

    Levels that every longest row in the right order has in common are right; the others are named. So a swapped
    pair is found without its neighbours, and where two levels contradict each other and nothing tells which
    of them is right, both are named.
    """
    wrong: dict[Key, str] = {}
    for chain in CHAINS:
        levels: dict[str, list[Key]] = defaultdict(list)
        for key in centres:
            if key[0] in chain and key[1] in RANK:
                levels[key[1]].append(key)
        row = sorted(levels, key=RANK.__getitem__)
        heights = [float(np.mean([centres[key][2] for key in levels[level]])) for level in row]
        right = _in_every_longest_fall(heights)
        for n, level in enumerate(row):
            if n in right:
                continue
            against = [m for m in range(len(row)) if m != n and (m - n) * (heights[m] - heights[n]) >= 0]
            nearest = min(against, key=lambda m: (m not in right, abs(m - n)))
            upper, lower = sorted((n, nearest))
            apart = heights[lower] - heights[upper]
            sentence = (
                f"the centre of {row[upper]} lies {apart:.1f} mm below that of {row[lower]}; it belongs above it."
            )
            wrong |= dict.fromkeys(levels[level], sentence)
    return wrong


def _in_every_longest_fall(heights: Sequence[float]) -> set[int]:
    """Places that every longest strictly falling subsequence goes through."""
    count = len(heights)
    ending, starting = [1] * count, [1] * count
    for n in range(count):
        ending[n] = 1 + max((ending[m] for m in range(n) if heights[m] > heights[n]), default=0)
    for n in reversed(range(count)):
        starting[n] = 1 + max((starting[m] for m in range(n + 1, count) if heights[m] < heights[n]), default=0)
    longest = max(ending, default=0)
    on_one = [n for n in range(count) if ending[n] + starting[n] - 1 == longest]
    places = [ending[n] for n in on_one]
    return {n for n in on_one if places.count(ending[n]) == 1}


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
            sentence = f"the left {structure.replace('_', ' ')} lies {-gap:.1f} mm to the right of the right one."
            wrong |= {left: sentence, right: sentence}
    return wrong
