"""The paper's fourteen classifiers with their grids, from the simplest to the least simple.

All are seeded and single-threaded inside: the work is spread over fits, not within one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from feature_store.errors import SettingsError

Floats = NDArray[np.float64]
Outcome = NDArray[np.int64]
Params = dict[str, Any]
Grid = Literal["standard", "quick"]


@dataclass(frozen=True)
class Family:
    """One kind of classifier.

    ``build(params, seed)`` gives the unfitted estimator. Grids go from the most to the least regularised
    point. ``staged`` names a parameter of which one fit serves every smaller value (boosting rounds, trees).
    ``by_row`` says that its arithmetic on many rows may differ in the last bit from that on one row.
    ``clip`` bounds the log-odds of those that give probabilities only.
    """

    name: str
    build: Callable[[Params, int], Any]
    standard: tuple[Params, ...]
    quick: tuple[Params, ...]
    staged: str = ""
    by_row: bool = False
    clip: float = 7.0

    def grid(self, size: Grid) -> tuple[Params, ...]:
        return self.standard if size == "standard" else self.quick


@dataclass(frozen=True)
class Configuration:
    """A classifier with one point of its grid."""

    classifier: str
    params: Mapping[str, Any] = field(hash=False)


def _points(**axes: Sequence[Any]) -> tuple[Params, ...]:
    return tuple(dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


def _xgboost(params: Params, seed: int) -> Any:
    from xgboost import XGBClassifier

    fixed = {"learning_rate": 0.1, "subsample": 0.8, "tree_method": "exact", "n_jobs": 1, "verbosity": 0}
    return XGBClassifier(**{**fixed, **params}, random_state=seed)


def _lightgbm(params: Params, seed: int) -> Any:
    from lightgbm import LGBMClassifier

    fixed = {"learning_rate": 0.1, "min_child_samples": 10, "n_jobs": 1, "verbose": -1, "deterministic": True}
    return LGBMClassifier(**{**fixed, **params}, force_row_wise=True, random_state=seed)


def _svm(kernel: str) -> Callable[[Params, int], Any]:
    # The limit only ends fits that would not end in an hour; a fit that met it is still a classifier.
    return lambda params, seed: SVC(kernel=kernel, cache_size=50, max_iter=1_000_000, random_state=seed, **params)


_C = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "logistic_regression",
            lambda params, seed: LogisticRegression(max_iter=1000, random_state=seed, **params),
            _points(C=_C),
            _points(C=(0.01, 0.1, 1.0)),
            by_row=True,
        ),
        Family(
            "naive_bayes",
            lambda params, seed: GaussianNB(**params),
            _points(var_smoothing=(3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-9)),
            _points(var_smoothing=(1.0, 0.1, 1e-9)),
            by_row=True,
            clip=14.0,
        ),
        Family("linear_svm", _svm("linear"), _points(C=_C), _points(C=(0.01, 0.1, 1.0))),
        Family(
            "decision_tree",
            lambda params, seed: DecisionTreeClassifier(random_state=seed, **params),
            _points(max_depth=(1, 2, 3, 4), min_samples_leaf=(10, 5)),
            _points(max_depth=(2, 3), min_samples_leaf=(5,)),
            clip=4.0,
        ),
        Family(
            "polynomial_svm",
            lambda params, seed: _svm("poly")({"coef0": 1.0, **params}, seed),
            _points(degree=(2, 3), C=(0.01, 0.1, 1.0, 10.0)),
            _points(degree=(2,), C=(0.01, 0.1)),
        ),
        Family(
            "sigmoid_svm",
            _svm("sigmoid"),
            _points(gamma=(0.01, "scale"), C=(0.01, 0.1, 1.0, 10.0)),
            _points(gamma=(0.01,), C=(0.1, 1.0)),
        ),
        Family(
            "rbf_svm",
            _svm("rbf"),
            _points(gamma=(0.01, "scale", 0.1), C=(0.1, 1.0, 10.0)),
            _points(gamma=("scale",), C=(0.1, 1.0)),
        ),
        Family(
            "random_forest",
            lambda params, seed: RandomForestClassifier(n_jobs=1, random_state=seed, **params),
            _points(min_samples_leaf=(12, 6, 3), n_estimators=(16, 32, 64)),
            _points(n_estimators=(25,), max_depth=(4,), min_samples_leaf=(5,)),
            staged="n_estimators",
            clip=4.0,
        ),
        Family(
            "extra_trees",
            lambda params, seed: ExtraTreesClassifier(n_jobs=1, random_state=seed, **params),
            _points(min_samples_leaf=(12, 6, 3), n_estimators=(16, 32, 64)),
            _points(n_estimators=(25,), max_depth=(4,), min_samples_leaf=(5,)),
            staged="n_estimators",
            clip=4.0,
        ),
        Family(
            "adaboost",
            lambda params, seed: AdaBoostClassifier(random_state=seed, **params),
            _points(learning_rate=(0.1, 0.5), n_estimators=(10, 20, 40, 60)),
            _points(learning_rate=(0.5,), n_estimators=(10, 25)),
            staged="n_estimators",
        ),
        Family(
            "gradient_boosting",
            lambda params, seed: GradientBoostingClassifier(
                **{"learning_rate": 0.1, "subsample": 0.8, "min_samples_leaf": 5, **params}, random_state=seed
            ),
            _points(max_depth=(1, 2), n_estimators=(10, 20, 40, 80)),
            _points(max_depth=(2,), n_estimators=(20, 40)),
            staged="n_estimators",
        ),
        Family(
            "xgboost",
            _xgboost,
            _points(max_depth=(1, 2, 3), n_estimators=(20, 50, 100)),
            _points(max_depth=(2,), n_estimators=(20, 50)),
            staged="n_estimators",
        ),
        Family(
            "lightgbm",
            _lightgbm,
            _points(num_leaves=(2, 4, 8), n_estimators=(20, 50, 100)),
            _points(num_leaves=(4,), n_estimators=(20, 50)),
            staged="n_estimators",
        ),
        Family(
            "mlp",
            lambda params, seed: MLPClassifier(solver="lbfgs", random_state=seed, **{"max_iter": 100, **params}),
            _points(hidden_layer_sizes=((4,), (16,)), alpha=(30.0, 10.0, 3.0, 0.3)),
            _points(hidden_layer_sizes=((8,),), alpha=(10.0, 1.0), max_iter=(60,)),
            by_row=True,
            clip=14.0,
        ),
    )
}
"""In the order of simplicity, which decides between classifiers whose cross-validated AUCs tie."""

PERMUTATION_CLASSIFIERS = ("logistic_regression", "naive_bayes", "linear_svm", "rbf_svm")
"""Those of the smaller grid that runs on permuted outcomes choose from."""


def configurations(grid: Grid, names: Sequence[str] = tuple(FAMILIES)) -> list[Configuration]:
    """Every grid point of these classifiers, simplest first. SettingsError for a name that is none of the fourteen."""
    for name in names:
        check_classifier(name)
    return [Configuration(name, params) for name in FAMILIES if name in names for params in FAMILIES[name].grid(grid)]


def check_classifier(name: str) -> None:
    """SettingsError for a name that is none of the fourteen."""
    if name not in FAMILIES:
        raise SettingsError(f"No classifier is called {name!r}.", action=f"Take one of {', '.join(FAMILIES)}.")


def fit(configuration: Configuration, x: Floats, y: Outcome, seed: int) -> Any:
    """The estimator of one grid point, fitted on ``x`` (n, d) and ``y`` (n,)."""
    estimator = FAMILIES[configuration.classifier].build(dict(configuration.params), seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(x, y)


def raw_score(classifier: str, estimator: Any, x: Floats) -> Floats:
    """A score (n,) that rises with the risk: margin or log-odds. One row or many give the same bits."""
    family = FAMILIES[classifier]
    if family.by_row:
        rows = [_score(family, estimator, row[None, :]) for row in x]
        return np.concatenate(rows) if rows else np.empty(0)
    return _score(family, estimator, x)


def fast_score(classifier: str, estimator: Any, x: Floats) -> Floats:
    """As :func:`raw_score` up to the last bit: for scores that choose between classifiers, all rows at once."""
    return _score(FAMILIES[classifier], estimator, x)


def centre_and_unit(classifier: str, own: Floats) -> tuple[float, float]:
    """What scores of a fitted model are counted from and in, by those of its ``own`` patients (n,).

    Their mean, so that intercepts do not tell folds apart; and for support vector machines their standard deviation:
    with a small C all margins lie within a hair of −1 or of 1, by which class was the larger, and how wide the hair
    is differs between fits by orders of magnitude. Other scores are log-odds and keep their unit.
    """
    unit = float(own.std()) if classifier.endswith("_svm") else 1.0
    return float(own.mean()), unit if unit > 1e-300 else 1.0


def grid_scores(
    points: Sequence[Configuration], x: Floats, y: Outcome, x_new: Floats, seed: int
) -> tuple[Floats, dict[int, str]]:
    """Scores (len(points), m) of each grid point fitted on ``x`` (n, d) for the rows of ``x_new`` (m, d), comparable.

    Models of different folds are compared by what they say of a patient: see :func:`centre_and_unit`.

    A point whose fit raises has NaN scores, and its reason in the dictionary under its index. Points that
    differ in boosting rounds or trees only are one fit.
    """
    scores = np.full((len(points), len(x_new)), np.nan)
    failed: dict[int, str] = {}
    both = np.vstack([x, x_new])
    for key, group in groupby(range(len(points)), key=lambda i: _fit_key(points[i])):
        members = list(group)
        family = FAMILIES[key[0]]
        try:
            if family.staged:
                rounds = [int(points[i].params[family.staged]) for i in members]
                longest = fit(points[members[int(np.argmax(rounds))]], x, y, seed)
                raw = _staged_scores(key[0], longest, both, rounds)
            else:
                raw = fast_score(key[0], fit(points[members[0]], x, y, seed), both)[None, :]
            for member, row in zip(members, raw, strict=True):
                centre, unit = centre_and_unit(key[0], row[: len(x)])
                scores[member] = (row[len(x) :] - centre) / unit
        except Exception as error:  # a library's failure is a result here: reported, and the others go on
            failed.update(dict.fromkeys(members, f"{type(error).__name__}: {error}"))
    for i in np.flatnonzero(~np.isfinite(scores).all(axis=1)):
        failed.setdefault(int(i), "its scores are not finite")
        scores[i] = np.nan
    return scores, failed


def _fit_key(point: Configuration) -> tuple[str, str]:
    family = FAMILIES[point.classifier]
    if not family.staged:
        return point.classifier, repr(sorted(point.params.items()))
    return point.classifier, repr(sorted((k, v) for k, v in point.params.items() if k != family.staged))


def _score(family: Family, estimator: Any, x: Floats) -> Floats:
    if family.name == "lightgbm":
        margin = estimator.predict(x, raw_score=True)
    elif family.name == "xgboost":
        margin = estimator.predict(x, output_margin=True)
    elif hasattr(estimator, "decision_function"):
        margin = estimator.decision_function(x)
    elif family.name == "naive_bayes":
        joint = estimator.predict_joint_log_proba(x)
        margin = np.clip(joint[:, 1] - joint[:, 0], -family.clip, family.clip)
    else:
        margin = _log_odds(estimator.predict_proba(x)[:, 1], family.clip)
    return np.asarray(margin, dtype=np.float64)


def _log_odds(p: Floats, clip: float) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(np.log(p) - np.log1p(-p), -clip, clip), dtype=np.float64)


def _staged_scores(classifier: str, estimator: Any, x: Floats, rounds: Sequence[int]) -> Floats:
    """Scores (len(rounds), m) after each of ``rounds``, from one fit of the longest."""
    if classifier == "lightgbm":
        return np.array([estimator.predict(x, raw_score=True, num_iteration=r) for r in rounds], dtype=np.float64)
    if classifier == "xgboost":
        return np.array(
            [estimator.predict(x, output_margin=True, iteration_range=(0, r)) for r in rounds], dtype=np.float64
        )
    if classifier in ("random_forest", "extra_trees"):
        # A forest of r trees is the first r of a larger one: each tree draws from a seed of its own.
        trees = np.array([tree.predict_proba(x)[:, 1] for tree in estimator.estimators_])
        means = np.cumsum(trees, axis=0)[np.asarray(rounds) - 1] / np.asarray(rounds, dtype=np.float64)[:, None]
        return _log_odds(means, FAMILIES[classifier].clip)
    # Boosting may stop early, at a perfect fit: later rounds are then the last one.
    stages = [np.asarray(stage, dtype=np.float64).reshape(-1) for stage in estimator.staged_decision_function(x)]
    return np.array([stages[min(r, len(stages)) - 1] for r in rounds])
