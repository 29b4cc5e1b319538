"""The protocol of a study in plain scikit-learn: what ``study.py`` is held against.

In a module of its own, for ``memory=`` cannot keep steps of a script.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectFpr, SelectFromModel, VarianceThreshold, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LassoCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, RobustScaler, StandardScaler

from models.classifiers import FAMILIES, Configuration, Grid, configurations, fast_score
from models.combined import StackSource
from models.folds import stratified_folds
from models.selection.correlation import uncorrelated
from models.study_settings import StudySettings

GRID: Grid = "standard"
SETTINGS = StudySettings(permutations=0, grid=GRID)


class TenFoldLasso(LassoCV):
    """LassoCV with the protocol's folds of these patients and the protocol's smallest penalty."""

    def fit(self, X: Any, y: Any, **params: Any) -> Any:
        self.eps = 1e-3 if X.shape[0] > X.shape[1] else 1e-2
        self.cv = PredefinedSplit(stratified_folds(y, 10, SETTINGS.seed))
        super().fit(X, y, **params)
        for alpha in [] if self.coef_.any() else self.alphas_[1:]:
            # As the protocol: where the best penalty leaves nothing, the largest that leaves something.
            self.coef_ = Lasso(alpha=alpha, tol=self.tol, max_iter=self.max_iter).fit(X, y).coef_
            if self.coef_.any():
                break
        return self


class Uncorrelated(TransformerMixin, BaseEstimator):
    """The correlation filter as a scikit-learn step."""

    def fit(self, X: Any, y: Any = None) -> Any:
        self.kept_ = uncorrelated(X, SETTINGS.correlation)
        return self

    def transform(self, X: Any) -> Any:
        return X[:, self.kept_]


class Components(PCA):
    """At most a third as many components as patients, as the protocol has it."""

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        self.n_components = min(SETTINGS.max_components, max(2, len(X) // 3))
        return super().fit_transform(X, y)


class Stacked(TransformerMixin, BaseEstimator):
    """The combined model's inputs. X: signs and row number of each patient; clinical variables selected in ``fit``."""

    def __init__(self, source: Any = None) -> None:
        self.source = source

    def fit(self, X: Any, y: Any) -> Any:
        rows = X[:, -1].astype(np.intp)
        outcome = np.zeros(len(self.source.signs), dtype=np.int64)
        outcome[rows] = y
        self.stack_ = self.source.fit(rows, outcome)
        return self

    def transform(self, X: Any) -> Any:
        return self.stack_.apply(self.source.raw(self.stack_.encoder, X[:, -1].astype(np.intp)))


def clip(z: np.ndarray) -> np.ndarray:
    """As the protocol clips robust-scaled values."""
    return np.clip(z, -SETTINGS.clip, SETTINGS.clip)


def selection(kind: str, source: StackSource) -> Any:
    """Everything in front of the classifier, in scikit-learn."""
    lasso = ("lasso", SelectFromModel(TenFoldLasso(alphas=50, tol=1e-7, max_iter=100_000), threshold=1e-300))
    if kind == "rad":
        return Pipeline(
            [
                ("impute", SimpleImputer(strategy="median")),
                ("vary", VarianceThreshold()),
                ("robust", RobustScaler()),
                ("clip", FunctionTransformer(clip)),
                ("z", StandardScaler()),
                ("f", SelectFpr(f_classif, alpha=SETTINGS.alpha)),
                ("correlation", Uncorrelated()),
                lasso,
            ]
        )
    if kind == "dl":
        return Pipeline(
            [
                ("impute", SimpleImputer(strategy="median")),
                ("z", StandardScaler()),
                ("pca", Components(svd_solver="full")),
                ("unit", StandardScaler()),
                lasso,
            ]
        )
    return Stacked(source)


def scorer(name: str) -> Callable[[Any, Any, Any], float]:
    """AUC of the score that the protocol takes from this classifier."""
    return lambda pipe, X, y: roc_auc_score(y, fast_score(name, pipe[-1], pipe[:-1].transform(X)))


def pipeline_auc(
    point: Configuration,
    select: Any,
    memory: str | None,
    X: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    scored: np.ndarray,
) -> float:
    """Held-out AUC of one pipeline fit, as GridSearchCV makes it for one grid point and fold."""
    estimator = FAMILIES[point.classifier].build(dict(point.params), SETTINGS.seed)
    pipe = Pipeline([("select", select), ("classify", estimator)], memory=memory).fit(X[rows], y[rows])
    return scorer(point.classifier)(pipe, X[scored], y[scored])


def search(name: str, select: Any, memory: str | None, folds: np.ndarray, **how: Any) -> GridSearchCV:
    """GridSearchCV over the whole pipeline of one classifier."""
    grid = [{key: [value] for key, value in point.params.items()} for point in configurations(GRID, [name])]
    fixed = {"coef0": 1.0} if name == "polynomial_svm" else {}
    estimator = FAMILIES[name].build(fixed, SETTINGS.seed)
    return GridSearchCV(
        Pipeline([("select", select), ("classify", estimator)], memory=memory),
        [{f"classify__{key}": value for key, value in point.items()} for point in grid],
        scoring=scorer(name),
        cv=PredefinedSplit(folds),
        n_jobs=-1,
        error_score="raise",
        **how,
    )
