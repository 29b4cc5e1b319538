"""The whole protocol against the same protocol in plain scikit-learn: same patients, folds, grids, cores and results.

    python tests/benchmarks/study.py [--part product|cached|plain|all|slice] [--keep FOLDER] [--json]

The protocol: Rad-sign, DL-sign and the combined model on 305 training patients with 6,800 radiomics, 768 deep and
6 clinical columns (a phantom); fourteen classifiers with the standard grids (at least eight points each, printed),
10 outer folds, in each a choice on the nine others with everything refitted, and the 10-fold table of all patients.
``product`` is ``models.protocol.develop``, measured whole.

``cached`` and ``plain`` are scikit-learn: for each classifier a ``GridSearchCV`` over Pipeline(selection, classifier)
for each outer fold and one over all patients, ``n_jobs=-1``; ``cached`` with ``memory=`` around the selection. The
selection is SimpleImputer, RobustScaler, clipping, StandardScaler, SelectFpr, the product's own correlation filter
(scikit-learn has none) and SelectFromModel(LassoCV) for radiomics; StandardScaler, PCA, LassoCV for embeddings; the
combined model's inputs are the same stacked log-odds, its clinical selection the product's own.

Of ``cached`` one outer fold of eleven rounds (ten outer folds and the table) is measured with all fourteen classifiers
and multiplied by the number of its pipeline fits; of ``plain`` two inner folds of the first outer fold for three
classifiers, whose mean time a fit stands for all (``measured`` and ``extrapolated`` say so). ``same_results``: every
grid point's mean AUC in that outer fold is equal to 1e-9 in both. Times are wall times and, since a machine is seldom
one's own, processor times of all processes. ``--keep`` collects parts measured one by one, the product's first.

``slice`` takes two minutes of one core: one inner fold of one outer fold in one process, processor time only, times
the number of such fits, for all three; the combined model's signs are then the outcome with noise.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
from plain_study import GRID, SETTINGS, pipeline_auc, search, selection
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from models.classifiers import FAMILIES, configurations, fast_score, grid_scores
from models.combined import StackSource
from models.crossfit import CrossFit
from models.folds import stratified_folds
from models.protocol import SelectorSource, develop, recipe_for
from models.study_patients import StudyPatients
from pipelines.phantom.tables import phantom_tables

PATIENTS, RADIOMICS, DEEP = 305, 6800, 768
ON_THREE = ("logistic_regression", "rbf_svm", "gradient_boosting")
KINDS = ("rad", "dl", "combined")


def inputs(kind: str, patients: Any, fitted: dict[str, CrossFit], held: np.ndarray) -> tuple[np.ndarray, StackSource]:
    """X of a signature's pipelines in outer fold 0; for the combined model the signs out of fold within it."""
    signs = [fitted[k] for k in ("rad", "dl")]
    inside = np.column_stack([np.where(held, fit.logits, fit.inner_logits[0]) for fit in signs])
    source = StackSource(("rad", "dl"), inside, patients.clinical, SETTINGS.alpha)
    if kind == "combined":
        return np.column_stack([inside, np.arange(len(held))]), source
    return (patients.radiomics if kind == "rad" else patients.deep).values, source


class Clock:
    """Wall and processor seconds of this process and its workers since it was made."""

    def __init__(self) -> None:
        self.wall, self.processor = time.monotonic(), self._processor()

    @staticmethod
    def _processor() -> float:
        me = psutil.Process()
        times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
        return sum(t.user + t.system for t in times) + me.cpu_times().children_user + me.cpu_times().children_system

    def read(self) -> dict[str, float]:
        return {"seconds": time.monotonic() - self.wall, "cpu_seconds": self._processor() - self.processor}


def product(patients: Any, folds: np.ndarray) -> tuple[dict[str, CrossFit], dict[str, Any]]:
    """The protocol, and where its time goes: seconds of selection and of each classifier's grid in one fit."""
    clock = Clock()
    development = develop(patients, folds, SETTINGS)
    figures: dict[str, Any] = clock.read()
    training, held = np.flatnonzero(folds > 0), np.flatnonzero(folds == 0)
    with threadpool_limits(1):
        for kind, matrix in (("rad", patients.radiomics), ("dl", patients.deep)):
            begun = time.process_time()
            x, x_new = SelectorSource(matrix, recipe_for(kind, SETTINGS)).inputs(training, held, patients.y, 0)
            one = {"selection": time.process_time() - begun}
            for name in FAMILIES:
                begun = time.process_time()
                grid_scores(configurations(GRID, [name]), x, patients.y[training], x_new, 0)
                one[name] = time.process_time() - begun
            figures[f"one_fit_{kind}"] = {"features": x.shape[1], **{k: round(v, 3) for k, v in one.items()}}
    return development.crossfits, figures


def cached(patients: Any, folds: np.ndarray, fitted: dict[str, CrossFit]) -> dict[str, Any]:
    """One outer fold of the cached protocol, all classifiers; and how far its AUCs are from the product's."""
    held = folds == 0
    measured: dict[str, dict[str, float]] = {}
    gaps: dict[str, Any] = {}
    for kind in KINDS:
        X, source = inputs(kind, patients, fitted, held)
        memory = tempfile.mkdtemp()
        clock = Clock()
        aucs: list[float] = []
        for name in FAMILIES:
            found = search(name, selection(kind, source), memory, folds[~held]).fit(X[~held], patients.y[~held])
            aucs.extend(found.cv_results_["mean_test_score"])
            fast_score(name, found.best_estimator_[-1], found.best_estimator_[:-1].transform(X[held]))
        measured[kind] = clock.read()
        shutil.rmtree(memory)
        gap = np.abs(np.array(aucs) - fitted[kind].inner_auc[0])
        points = configurations(GRID)
        unequal = sorted({points[i].classifier for i in np.flatnonzero(gap > 1e-9)})
        gaps[kind] = {"largest": float(gap.max()), "unequal_points": int((gap > 1e-9).sum()), "of": unequal}
    one, whole = _fits(9), 10 * _fits(9) + _fits(10)
    return {
        "measured": "one outer fold, fourteen classifiers",
        "by_signature": measured,
        "extrapolated": {t: sum(m[t] for m in measured.values()) * whole / one for t in ("seconds", "cpu_seconds")},
        "auc_differences": gaps,
    }


def plain(patients: Any, folds: np.ndarray, fitted: dict[str, CrossFit]) -> dict[str, Any]:
    """Two inner folds of one outer fold, three classifiers, nothing cached."""
    held = folds == 0
    two = np.where(np.isin(folds[~held], (1, 2)), folds[~held], -1)
    a_fit: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        X, source = inputs(kind, patients, fitted, held)
        clock = Clock()
        for name in ON_THREE:
            search(name, selection(kind, source), None, two, refit=False).fit(X[~held], patients.y[~held])
        done = 2 * len(configurations(GRID, ON_THREE))
        a_fit[kind] = {name: value / done for name, value in clock.read().items()}
    whole = 10 * _fits(9) + _fits(10)
    return {
        "measured": f"two inner folds of one outer fold, {', '.join(ON_THREE)}",
        "a_pipeline_fit": a_fit,
        "pipeline_fits_a_signature": whole,
        "extrapolated": {t: sum(m[t] for m in a_fit.values()) * whole for t in ("seconds", "cpu_seconds")},
    }


def slice_of_all(patients: Any, folds: np.ndarray) -> dict[str, Any]:
    """One inner fold of one outer fold in processor seconds: product, cached and plain, multiplied by their fits."""
    rows, scored = np.flatnonzero(folds > 1), np.flatnonzero(folds == 1)
    y, points = patients.y, configurations(GRID)
    signs = y[:, None] + np.random.default_rng(0).normal(size=(len(y), 2))
    stack = StackSource(("rad", "dl"), signs, patients.clinical, SETTINGS.alpha)
    k = SETTINGS.n_folds
    fits_of_product = {"rad": k * (k + 1) // 2, "dl": k * (k + 1) // 2, "combined": k * (k + 1)}
    fits_of_plain = 10 * _fits(9) + _fits(10)
    a_fit: dict[str, dict[str, float]] = {}
    classifiers: dict[str, dict[str, float]] = {}
    gaps: dict[str, float] = {}
    # Libraries are loaded and kernels compiled before the clock runs.
    warm = SelectorSource(patients.deep, recipe_for("dl", SETTINGS)).inputs(rows, scored, y, SETTINGS.seed)
    grid_scores([configurations(GRID, [name])[0] for name in FAMILIES], warm[0], y[rows], warm[1], SETTINGS.seed)
    for kind in KINDS:
        matrix = patients.deep if kind == "dl" else patients.radiomics
        source = stack if kind == "combined" else SelectorSource(matrix, recipe_for(kind, SETTINGS))
        X = np.column_stack([signs, np.arange(len(y))]) if kind == "combined" else matrix.values
        begun = time.process_time()
        x, x_new = source.inputs(rows, scored, y, SETTINGS.seed)
        inputs_made = time.process_time()
        parts, classifiers[kind] = [], {}
        for name in FAMILIES:
            started = time.process_time()
            parts.append(grid_scores(configurations(GRID, [name]), x, y[rows], x_new, SETTINGS.seed)[0])
            classifiers[kind][name] = round(time.process_time() - started, 3)
        a_fit[kind] = {"selection": inputs_made - begun, "product": time.process_time() - begun}
        mine = [roc_auc_score(y[scored], scores) for scores in np.vstack(parts)]
        memory = tempfile.mkdtemp()
        begun = time.process_time()
        theirs = [pipeline_auc(point, selection(kind, stack), memory, X, y, rows, scored) for point in points]
        a_fit[kind]["cached"] = (time.process_time() - begun) / len(points)
        shutil.rmtree(memory)
        begun = time.process_time()
        for name in ON_THREE:
            pipeline_auc(configurations(GRID, [name])[0], selection(kind, stack), None, X, y, rows, scored)
        a_fit[kind]["plain"] = (time.process_time() - begun) / len(ON_THREE)
        gaps[kind] = float(np.abs(np.array(mine) - theirs).max())
    total = {
        "product": sum(a_fit[kind]["product"] * fits_of_product[kind] for kind in KINDS),
        **{way: sum(a_fit[kind][way] for kind in KINDS) * fits_of_plain for way in ("cached", "plain")},
    }
    return {
        "cpu_seconds_a_fit": a_fit,
        "product_classifiers_cpu_seconds_a_fit": classifiers,
        "fits": {"product": fits_of_product, "pipelines_a_signature": fits_of_plain},
        "extrapolated_cpu_seconds": total,
        "largest_auc_difference": gaps,
        "speedup": total["plain"] / total["product"],
        "speedup_over_cached": total["cached"] / total["product"],
        "same_results": max(gaps.values()) <= 1e-9,
    }


def _fits(inner: int) -> int:
    """Pipeline fits of the fourteen searches over ``inner`` folds, with their refits."""
    return len(configurations(GRID)) * inner + len(FAMILIES)


def main() -> None:
    """Measures the parts asked for and prints what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["product", "cached", "plain", "all", "slice"], default="all")
    parser.add_argument("--keep", type=Path, help="folder for the parts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    tables = phantom_tables(PATIENTS, 0, RADIOMICS, DEEP, seed=0)
    patients = StudyPatients.from_tables(tables, tables.radiomics).training()
    folds = stratified_folds(patients.y, SETTINGS.n_folds, SETTINGS.seed)
    if options.part == "slice":
        with threadpool_limits(1):
            print(json.dumps(slice_of_all(patients, folds), indent=None if options.json else 1))
        return
    keep = options.keep or Path(tempfile.mkdtemp())
    keep.mkdir(parents=True, exist_ok=True)
    figures, fitted_file = keep / "figures.json", keep / "crossfits.joblib"
    found: dict[str, Any] = json.loads(figures.read_text()) if figures.exists() else {}
    if options.part in ("product", "all") or not fitted_file.exists():
        fitted, found["product"] = product(patients, folds)
        joblib.dump(fitted, fitted_file)
    fitted = joblib.load(fitted_file)
    if options.part in ("cached", "all"):
        found["cached"] = cached(patients, folds, fitted)
    if options.part in ("plain", "all"):
        found["plain"] = plain(patients, folds, fitted)
    figures.write_text(json.dumps(found, indent=1))
    result: dict[str, Any] = {
        "patients": PATIENTS,
        "columns": {"radiomics": RADIOMICS, "deep": DEEP, "clinical": 6},
        "grids": {name: [dict(p) for p in family.grid(GRID)] for name, family in FAMILIES.items()},
        "cores": os.cpu_count(),
        **found,
    }
    if {"product", "cached", "plain"} <= set(found):
        for name, clock in (("", "seconds"), ("_cpu", "cpu_seconds")):
            result[f"speedup{name}"] = found["plain"]["extrapolated"][clock] / found["product"][clock]
            result[f"speedup_over_cached{name}"] = found["cached"]["extrapolated"][clock] / found["product"][clock]
        result["same_results"] = all(gap["largest"] <= 1e-9 for gap in found["cached"]["auc_differences"].values())
    print(json.dumps(result, indent=None if options.json else 1, default=list))


if __name__ == "__main__":
    main()
