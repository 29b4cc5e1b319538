"""Do the risks come true where the truth is known: simulated studies, each judged on 20,000 patients it never saw.

    python -m tests.benchmarks.known_risk --studies 50 [--first 0] [--training 192] [--grid quick] [--folds 10] [--json]

Each study has its own training patients, effects in a few of 100 correlated columns, embeddings and age, and passes
the product's own protocol. Printed per signature: mean and median calibration slope, calibration in the large,
sensitivity and specificity at the released threshold beside their nested estimates, and the AUCs. The seeds are
``first`` to ``first + studies − 1``; none is left out. ``--keep FILE`` adds a line a study, so that slices can be
put together: ``--read FILE`` summarises them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.study import run_study
from models.study_settings import StudySettings
from tests.benchmarks.known_truth import known_truth

EXTERNAL = 20_000
FIGURES = ("slope", "intercept", "sensitivity", "nested_sensitivity", "specificity", "nested_specificity", "auc")


def main() -> None:
    """Runs the studies one after the other and prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--training", type=int, default=192)
    parser.add_argument("--effect", type=float, default=0.7)
    parser.add_argument("--grid", choices=("quick", "standard"), default="quick")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.read:
        print(json.dumps(summary([json.loads(line) for line in options.read.read_text().splitlines()]), indent=2))
        return
    rows = []
    for seed in range(options.first, options.first + options.studies):
        start = time.monotonic()
        row = {"seed": seed, **one_study(options, seed)}
        rows.append(row)
        if options.keep:
            with options.keep.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if not options.json:
            slopes = ", ".join(f"{k} {v['slope']}" for k, v in row.items() if isinstance(v, dict))
            print(f"seed {seed}: {time.monotonic() - start:.0f} s, slopes {slopes}", flush=True)
    print(json.dumps(summary(rows), indent=2))


def one_study(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Each signature's external figures and nested estimates."""
    truth = known_truth(options.training, EXTERNAL, effect=options.effect, seed=seed)
    settings = StudySettings(
        seed=seed, grid=options.grid, n_folds=options.folds, permutations=0, ablation=False, n_jobs=options.jobs
    )
    metrics = run_study(truth.tables, settings).metrics
    found = {}
    for kind, signature in metrics["signatures"].items():
        outside, inside = signature["cohorts"]["external_test"], signature["cohorts"]["training"]
        found[kind] = {
            "slope": outside["calibration_slope"],
            "intercept": outside["calibration_intercept"],
            "auc": outside["auc"],
            "nested_auc": signature["nested_auc"],
            "sensitivity": outside["sensitivity"],
            "specificity": outside["specificity"],
            "nested_sensitivity": inside["nested_sensitivity"],
            "nested_specificity": inside["nested_specificity"],
            "classifier": signature["classifier"],
        }
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over studies; a slope that does not exist (a constant prediction) is counted."""
    result: dict[str, Any] = {"phantom": True, "studies": len(rows), "test_patients": EXTERNAL}
    for kind in [key for key, value in rows[0].items() if isinstance(value, dict)]:
        entries = [row[kind] for row in rows]
        slopes = np.array([e["slope"] for e in entries if e["slope"] is not None])
        mean = {name: float(np.mean([e[name] for e in entries])) for name in (*FIGURES[1:], "nested_auc")}
        result[kind] = {
            "slope_mean": float(slopes.mean()),
            "slope_median": float(np.median(slopes)),
            "slope_10_90": [float(q) for q in np.quantile(slopes, [0.1, 0.9])],
            "slope_missing": len(entries) - len(slopes),
            **mean,
            "sensitivity_error": mean["sensitivity"] - mean["nested_sensitivity"],
            "specificity_error": mean["specificity"] - mean["nested_specificity"],
        }
    return result


if __name__ == "__main__":
    main()
