"""A fitted selector: plain arrays that turn raw features into a classifier's input."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.selection.lasso import Lasso
from models.selection.scaling import Scaling

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SelectionTrace:
    """How a selector came about: for the report, not for scoring.

    ``counts``: columns left after each step, in order. ``names``: the LASSO's candidates. ``notes``: sentences
    a reader must see (nothing survived the F-test, a one-feature signature, a penalty at the edge of its grid).
    """

    counts: dict[str, int]
    names: tuple[str, ...]
    lasso: Lasso
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selector:
    """Fitted on training patients only.

    ``columns``: the raw columns it needs (p): the selected features (``rad``) or every usable column of the
    embeddings (``deep``). ``projection`` (p, s) turns z-scores into the selected principal components, None
    where features are used as they are. ``names``: its s outputs; ``coefficients`` (s,): the LASSO's.
    """

    recipe: str
    columns: tuple[str, ...]
    scaling: Scaling
    names: tuple[str, ...]
    coefficients: Floats
    lambda_: float
    projection: Floats | None = None
    trace: SelectionTrace | None = field(default=None, repr=False, compare=False)

    def transform(self, x: Floats) -> Floats:
        """``x`` (n, p) raw values of ``columns``, NaN where missing, to (n, s). One patient equals many, to the bit."""
        z = self.scaling.apply(np.asarray(x, dtype=np.float64))
        if self.projection is None:
            return z
        # One product a patient: a product of all rows at once may add up in another order.
        return np.vstack([row[None, :] @ self.projection for row in z]) if len(z) else np.empty((0, len(self.names)))

    def without_each(self, x: Floats) -> Floats:
        """``x`` (p,) of one patient: outputs (p, s) with one column after another at its training median."""
        z = self.scaling.apply(x[None, :])[0]
        at_median = self.scaling.apply(self.scaling.medians[None, :])[0]
        if self.projection is None:
            return np.asarray(np.where(np.eye(len(z), dtype=bool), at_median, z), dtype=np.float64)
        return np.asarray((z @ self.projection)[None, :] + (at_median - z)[:, None] * self.projection)
