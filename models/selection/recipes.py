"""The two recipes: how a selector is fitted for radiomics and for embeddings (paper, "Feature Selection")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from feature_store.errors import FeatureTableError
from models.selection.correlation import uncorrelated
from models.selection.lasso import LambdaRule, fit_lasso
from models.selection.matrix import FeatureMatrix
from models.selection.scaling import HEAVY_TAIL, Scaling, Usable, robust_scaling, usable_columns, z_scaling
from models.selection.selector import SelectionTrace, Selector

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Outcome = NDArray[np.int64]

MIN_KEPT = 5
"""How many columns of the smallest p go on where none passes the F-test."""


class Recipe(Protocol):
    """Fits a selector on these patients and no others."""

    def fit(self, matrix: FeatureMatrix, y: Outcome, seed: int, who: Ints | None = None) -> Selector: ...


@dataclass(frozen=True)
class RadRecipe:
    """Radiomics: usable columns, robust scaling (clipped, z-scored), F-test, correlation filter, LASSO.

    The F-test keeps p < ``alpha``, or the five smallest p where none passes. Of pairs with |r| above
    ``correlation`` one goes (see ``uncorrelated``). A selector never ends empty.
    """

    alpha: float = 0.05
    correlation: float = 0.9
    clip: float = 3.5
    lambda_rule: LambdaRule = "best"

    def fit(self, matrix: FeatureMatrix, y: Outcome, seed: int, who: Ints | None = None) -> Selector:
        """``matrix`` (n, p) and ``y`` (n,) of the patients to fit on; ``who`` as ``stratified_folds``.

        FeatureTableError where no column is usable.
        """
        usable = _usable(matrix)
        scaling = robust_scaling(matrix.values[:, usable.columns], self.clip)
        z = scaling.apply(matrix.values[:, usable.columns])
        tested, none_passed = f_test(z, y, self.alpha)
        kept = tested[uncorrelated(z[:, tested], self.correlation)]
        lasso = fit_lasso(z[:, kept], y, seed, self.lambda_rule, who)
        chosen = kept[lasso.coefficients != 0]
        names = tuple(matrix.names[i] for i in usable.columns)
        notes = ["No column passed the F-test; the smallest p went on."] if none_passed else []
        heavy = scaling.take(chosen).heavy_tailed(matrix.values[:, usable.columns[chosen]])
        notes.extend(_heavy_tails([names[i] for i in chosen[heavy]]))
        counts = {**_counts(matrix, usable), "f_test": len(tested), "correlation": len(kept), "lasso": len(chosen)}
        return _selector(
            "rad",
            columns=tuple(names[i] for i in chosen),
            outputs=tuple(names[i] for i in chosen),
            scaling=scaling.take(chosen),
            trace=SelectionTrace(counts, tuple(names[i] for i in kept), lasso, tuple(notes)),
        )


@dataclass(frozen=True)
class DeepRecipe:
    """Embeddings: z-score, PCA (components of unit variance, at most ``max_components``), LASSO.

    Fewer components where there are fewer patients: at most a third of them, since the last components of a
    small sample are noise that LASSO would have to see through.
    """

    max_components: int = 64
    lambda_rule: LambdaRule = "best"

    def fit(self, matrix: FeatureMatrix, y: Outcome, seed: int, who: Ints | None = None) -> Selector:
        """As :meth:`RadRecipe.fit`; the selector needs every usable column of the embeddings."""
        usable = _usable(matrix)
        scaling = z_scaling(matrix.values[:, usable.columns])
        z = scaling.apply(matrix.values[:, usable.columns])
        loadings = principal_components(z, min(self.max_components, max(2, len(y) // 3)))
        lasso = fit_lasso(z @ loadings, y, seed, self.lambda_rule, who)
        chosen = np.flatnonzero(lasso.coefficients)
        components = tuple(f"PC{i + 1}" for i in range(loadings.shape[1]))
        counts = {**_counts(matrix, usable), "pca": len(components), "lasso": len(chosen)}
        return _selector(
            "deep",
            columns=tuple(matrix.names[i] for i in usable.columns),
            outputs=tuple(components[i] for i in chosen),
            scaling=scaling,
            trace=SelectionTrace(counts, components, lasso),
            projection=np.ascontiguousarray(loadings[:, chosen]),
        )


def f_test(z: Floats, y: Outcome, alpha: float) -> tuple[Ints, bool]:
    """Columns of ``z`` (n, p; z-scores) with p < ``alpha`` in the F-test between outcomes, and whether none had.

    With two groups F = r² (n − 2) / (1 − r²), r the correlation with the outcome.
    """
    n = len(y)
    centred = y - y.mean()
    r2 = np.minimum((z.T @ centred / n) ** 2 / (centred @ centred / n), 1 - 1e-15)
    p = stats.f.sf(r2 * (n - 2) / (1 - r2), 1, n - 2)
    passed = np.flatnonzero(p < alpha)
    if len(passed):
        return passed, False
    return np.sort(np.argsort(p, kind="stable")[:MIN_KEPT]), True


def principal_components(z: Floats, limit: int) -> Floats:
    """Loadings (p, k) whose products with ``z`` (n, p) have unit variance; the largest loading is positive."""
    n = len(z)
    if z.shape[1] > n:
        # The n × n side is the small one: eigenvectors of z zᵀ give those of zᵀ z.
        values, left = np.linalg.eigh(z @ z.T)
        order = np.argsort(values)[::-1][: min(limit, n - 1)]
        order = order[values[order] > 1e-10 * values[-1]]
        directions = z.T @ left[:, order] / np.sqrt(values[order])
    else:
        values, right = np.linalg.eigh(z.T @ z)
        order = np.argsort(values)[::-1][: min(limit, n - 1)]
        order = order[values[order] > 1e-10 * values[-1]]
        directions = right[:, order]
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    return np.asarray(directions * signs / np.sqrt(values[order] / n), dtype=np.float64)


def _usable(matrix: FeatureMatrix) -> Usable:
    usable = usable_columns(matrix.values)
    if not len(usable.columns):
        raise FeatureTableError(
            f"None of {len(matrix.names)} columns is usable: {usable.unusable} mostly missing, "
            f"{usable.constant} constant among the patients to fit on.",
            action="Give a table with numeric features that vary between patients.",
        )
    return usable


def _heavy_tails(names: list[str]) -> list[str]:
    """A sentence on selected columns that had to be clipped."""
    if not names:
        return []
    return [
        f"Selected though heavy-tailed (standard deviation over {HEAVY_TAIL:g} quartile ranges), hence clipped: "
        f"{_listed(names)}."
    ]


def _listed(names: Sequence[str], limit: int = 10) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _counts(matrix: FeatureMatrix, usable: Usable) -> dict[str, int]:
    return {
        "given": len(matrix.names),
        "unusable": usable.unusable,
        "constant": usable.constant,
        "duplicate": usable.duplicate,
    }


def _selector(
    recipe: str,
    *,
    columns: tuple[str, ...],
    outputs: tuple[str, ...],
    scaling: Scaling,
    trace: SelectionTrace,
    projection: Floats | None = None,
) -> Selector:
    lasso = trace.lasso
    notes = list(trace.notes)
    if lasso.fallback:
        notes.append("The best penalty left no feature; the largest penalty with one was taken.")
    if len(outputs) == 1:
        notes.append(f"One feature was selected, {outputs[0]}: the signature rests on it alone.")
    if lasso.at_edge:
        notes.append(f"The penalty, λ = {lasso.lambda_:.2g}, is the smallest of its grid: a smaller one may be better.")
    coefficients = lasso.coefficients[lasso.coefficients != 0]
    if not len(coefficients):
        raise FeatureTableError(
            "No column has anything to do with the outcome, not even by chance.",
            action="Check that the table's rows belong to the patients of the outcome file.",
        )
    return Selector(
        recipe,
        columns,
        scaling,
        outputs,
        coefficients,
        lasso.lambda_,
        projection,
        SelectionTrace(trace.counts, trace.names, lasso, tuple(notes)),
    )
