"""Which training patients an encoder is tuned on: subset A, and the disjoint B that everything else is fitted on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratified_part(strata: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """A mask (n,) of about ``share`` of the items, so in every stratum (site and outcome) to within one.

    Items are shuffled within their stratum by the seed; the rounding of one stratum is made good in the next,
    so that the whole is within one of ``share`` as well. Depends on order: give items sorted by id.
    """
    names = np.asarray(strata)
    draw = np.random.default_rng([seed, 17])
    taken = np.zeros(len(names), dtype=bool)
    before, given = 0.0, 0
    for name in np.unique(names):
        rows = draw.permutation(np.flatnonzero(names == name))
        before += share * len(rows)
        count = min(max(round(before) - given, 0), len(rows))
        given += count
        taken[rows[:count]] = True
    return taken
