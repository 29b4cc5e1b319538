"""With nothing planted, no signature may find anything: 20 phantom cohorts, seeds fixed in advance.

    python tests/benchmarks/null_effect.py [--seeds 20] [--json]

Each cohort has 192 training and 100 external patients and passes the whole protocol on the feature-table
path (quick grid, 5 folds, no permutations). Printed are the mean nested and external AUC of each signature.
The seeds are 0 to 19; none is left out or drawn again.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from models.study import run_study
from models.study_settings import StudySettings
from pipelines.phantom.tables import phantom_tables

TRAINING, EXTERNAL, RADIOMICS, DEEP = 192, 100, 400, 64


def main() -> None:
    """Runs the seeds one after the other and prints the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    start = time.monotonic()
    for seed in range(options.seeds):
        tables = phantom_tables(TRAINING, EXTERNAL, RADIOMICS, DEEP, seed=seed, effect=False)
        settings = StudySettings(seed=seed, grid="quick", n_folds=5, permutations=0)
        metrics = run_study(tables, settings).metrics
        for kind, signature in metrics["signatures"].items():
            row = found.setdefault(kind, {"nested": [], "external": []})
            row["nested"].append(signature["nested_auc"])
            row["external"].append(signature["cohorts"]["external_test"]["auc"])
        if not options.json:
            print(f"seed {seed}: " + ", ".join(f"{kind} {row['external'][-1]:.3f}" for kind, row in found.items()))
    result = {
        kind: {
            "n": len(row["external"]),
            "external_auc_mean": float(np.mean(row["external"])),
            "external_auc_sd": float(np.std(row["external"], ddof=1)),
            "nested_auc_mean": float(np.mean(row["nested"])),
        }
        for kind, row in found.items()
    }
    print(json.dumps({"phantom": True, "seconds": round(time.monotonic() - start), "signatures": result}, indent=2))


if __name__ == "__main__":
    main()
