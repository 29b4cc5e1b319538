"""With nothing planted, nothing may be found; a control that leaks must be found out.

    python tests/benchmarks/null_effect.py [--seeds 100] [--first 0] [--keep FILE] [--json]

Each data set is noise: 192 training and 83 external patients, 2,000 independent columns of different tails
(bell-shaped, skewed, heavy), outcomes by lot. It passes the protocol of Rad-sign on the smaller grid of permuted runs
(5 folds; logistic regression, naive Bayes, linear and RBF SVM with the quick grid). The control does what is often
published: the features are selected on all 275 patients, then a logistic regression is fitted on the training
patients' and judged on the external ones'. Seeds are 0 to 99; none is left out or drawn again. ``--first`` and
``--keep`` do it in slices.

Held to: mean external AUC 0.48 to 0.52, mean nested AUC at most 0.52, leaky control at least 0.58.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.classifiers import PERMUTATION_CLASSIFIERS, Configuration, configurations, fast_score, fit
from models.evaluation.auc import auc
from models.folds import stratified_folds
from models.protocol import develop
from models.selection.matrix import FeatureMatrix
from models.selection.recipes import RadRecipe
from models.study_patients import StudyPatients
from models.study_settings import StudySettings
from models.study_tables import StudyTables

TRAINING, EXTERNAL, COLUMNS = 192, 83, 2000
PLAIN = Configuration("logistic_regression", {"C": 0.1})


def noise(seed: int) -> StudyTables:
    """A table that knows nothing of the outcome."""
    rng = np.random.default_rng(seed)
    n = TRAINING + EXTERNAL
    x = rng.normal(size=(n, COLUMNS))
    x[:, 1::3] = np.exp(x[:, 1::3])
    x[:, 2::3] = rng.standard_t(2.0, size=x[:, 2::3].shape)
    patients = pd.DataFrame(
        {
            "patient_id": [f"p{i:03d}" for i in range(n)],
            "site": "a",
            "partition": ["training"] * TRAINING + ["external_test"] * EXTERNAL,
            "outcome": (rng.random(n) < 0.4).astype(np.int64),
        }
    )
    return StudyTables(patients, radiomics=pd.DataFrame(x, columns=[f"f{i:04d}" for i in range(COLUMNS)]))


def honest(tables: StudyTables, seed: int, jobs: int) -> dict[str, float]:
    """External and nested AUC of the protocol."""
    patients = StudyPatients.from_tables(tables, tables.radiomics)
    training, external = patients.training(), patients.rows("external_test")
    points = configurations("quick", PERMUTATION_CLASSIFIERS)
    settings = StudySettings(seed=seed, n_folds=5, n_jobs=jobs)
    found = develop(training, stratified_folds(training.y, 5, seed), settings, points=points)
    scores = found.signatures["rad"].logits(patients.frame(external))
    return {"external": auc(patients.y[external], scores), "nested": found.crossfits["rad"].nested_auc}


def leaky(tables: StudyTables) -> float:
    """External AUC where the features were selected on everybody."""
    assert tables.radiomics is not None
    y, matrix = tables.outcome, FeatureMatrix.from_frame(tables.radiomics)
    selector = RadRecipe().fit(matrix, y, 0)
    x = selector.transform(matrix.columns(selector.columns))
    training, external = tables.rows("training"), tables.rows("external_test")
    estimator = fit(PLAIN, x[training], y[training], 0)
    return auc(y[external], fast_score(PLAIN.classifier, estimator, x[external]))


def main() -> None:
    """Runs the seeds one after the other and prints the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: dict[str, Any] = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
    for seed in range(options.first, options.first + options.seeds):
        if str(seed) in rows:
            continue
        start = time.monotonic()
        tables = noise(seed)
        rows[str(seed)] = {
            **honest(tables, seed, options.jobs),
            "leaky": leaky(tables),
            "seconds": round(time.monotonic() - start, 1),
        }
        if options.keep:
            options.keep.write_text(json.dumps(rows))
        if not options.json:
            print(f"seed {seed}: {rows[str(seed)]}", flush=True)
    means = {name: float(np.mean([row[name] for row in rows.values()])) for name in ("external", "nested", "leaky")}
    sds = {name: float(np.std([row[name] for row in rows.values()], ddof=1)) for name in means} if len(rows) > 1 else {}
    passed = 0.48 <= means["external"] <= 0.52 and means["nested"] <= 0.52 and means["leaky"] >= 0.58
    print(json.dumps({"n": len(rows), "mean_auc": means, "sd": sds, "passed": passed}, indent=2))


if __name__ == "__main__":
    main()
