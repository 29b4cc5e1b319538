"""The study against a careful plain scikit-learn protocol on one real feature table, same splits.

    python tests/benchmarks/real_table.py TABLE --id ID --target Target [--splits 12] [--first 0] [--only plain]

Split s is a stratified 70/30 split with seed s; the 30 % are scored once, by what was fitted on the 70 %. The plain
protocol: median imputation, clipped robust scaling, the k best by F-test, then logistic regression, an RBF SVM or
a random forest, k and classifier by one 5-fold GridSearchCV on the training patients. Printed as JSON: each split's
held-out AUCs and seconds, and their means.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, RobustScaler, StandardScaler
from sklearn.svm import SVC

from models.study import run_study
from models.study_settings import StudySettings
from models.study_tables import StudyTables


def split(outcome: np.ndarray, seed: int) -> np.ndarray:
    """Partition (n,) of a stratified 70/30 split."""
    rng = np.random.default_rng(seed)
    partition = np.full(len(outcome), "training", dtype=object)
    for value in (0, 1):
        rows = rng.permutation(np.flatnonzero(outcome == value))
        partition[rows[: round(0.3 * len(rows))]] = "external_test"
    return partition


def clip(z: np.ndarray) -> np.ndarray:
    """Within ± 3.5 quartile ranges."""
    return np.clip(z, -3.5, 3.5)


def plain_auc(x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> float:
    """Held-out AUC of the plain protocol."""
    pipeline = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median")),
            ("vary", VarianceThreshold()),
            ("robust", RobustScaler()),
            ("clip", FunctionTransformer(clip)),
            ("z", StandardScaler()),
            ("best", SelectKBest(f_classif)),
            ("classify", LogisticRegression()),
        ]
    )
    k = [k for k in (10, 30, 100) if k <= x.shape[1]]
    grid = [
        {"classify": [LogisticRegression(max_iter=2000)], "classify__C": [0.001, 0.01, 0.1, 1.0], "best__k": k},
        {"classify": [SVC()], "classify__C": [0.1, 1.0, 10.0], "best__k": k},
        {"classify": [RandomForestClassifier(100, random_state=seed)], "best__k": k},
    ]
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    search = GridSearchCV(pipeline, grid, scoring="roc_auc", cv=folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(x[~test], y[~test])
    best = search.best_estimator_
    score = (
        best.decision_function if hasattr(best, "decision_function") else lambda rows: best.predict_proba(rows)[:, 1]
    )
    return float(roc_auc_score(y[test], score(x[test])))


def study_figures(table: pd.DataFrame, y: np.ndarray, partition: np.ndarray, jobs: int) -> dict[str, Any]:
    """Held-out AUC with its interval, nested AUC, classifier and features of ``asdeg study`` without permutations."""
    patients = pd.DataFrame(
        {"patient_id": table.index.astype(str), "site": "a", "partition": partition, "outcome": y.astype(np.int64)}
    )
    settings = StudySettings(permutations=0, n_jobs=jobs)
    rad = run_study(StudyTables(patients, radiomics=table.reset_index(drop=True)), settings).metrics["signatures"][
        "rad"
    ]
    external = rad["cohorts"]["external_test"]
    return {
        "auc": external["auc"],
        "auc_ci": external["auc_ci"],
        "nested_auc": rad["nested_auc"],
        "classifier": rad["classifier"],
        "features": [feature["name"] for feature in rad["features"]],
    }


def main() -> None:
    """Runs both on every split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--id", default="ID")
    parser.add_argument("--target", default="Target")
    parser.add_argument("--splits", type=int, default=12)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--only", choices=["plain", "study"])
    options = parser.parse_args()
    table = pd.read_csv(options.table).set_index(options.id)
    y = table.pop(options.target).to_numpy(dtype=np.int64)
    x = table.to_numpy(dtype=np.float64)
    rows = []
    for seed in range(options.first, options.first + options.splits):
        partition = split(y, seed)
        row: dict[str, Any] = {"split": seed}
        if options.only != "study":
            start = time.monotonic()
            row |= {"plain_auc": plain_auc(x, y, partition == "external_test", seed)}
            row["plain_seconds"] = round(time.monotonic() - start, 1)
        if options.only != "plain":
            start = time.monotonic()
            row |= study_figures(table, y, partition, options.jobs)
            row["seconds"] = round(time.monotonic() - start, 1)
        rows.append(row)
        print(json.dumps({k: v for k, v in row.items() if k != "features"}), flush=True)
    means = {
        f"{name}_mean": float(np.mean([row[name] for row in rows]))
        for name in ("plain_auc", "auc", "nested_auc")
        if name in rows[0]
    }
    print(json.dumps({"table": options.table.name, "patients": len(y), "columns": x.shape[1], **means, "splits": rows}))


if __name__ == "__main__":
    main()
