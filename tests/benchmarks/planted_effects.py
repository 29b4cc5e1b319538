"""Is what was planted found: recovery and false selections where few of many correlated columns decide the outcome.

    python -m tests.benchmarks.planted_effects --studies 50 [--training 192] [--columns 500] [--effect 0.7] [--json]

Columns come in blocks of ten with correlations of 0.7; the first column of each of the first five blocks decides. Per
study the selector of Rad-sign is fitted on all training patients. A column is *recovered* when it is selected,
its block when any of the block is. *False* are selected columns of the other blocks; *proxies* are selected columns
of a deciding block that do not decide themselves. The seeds are 0 to ``studies − 1``; none is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from models.protocol import recipe_for
from models.selection.matrix import FeatureMatrix
from models.study_settings import StudySettings
from tests.benchmarks.known_truth import BLOCK, known_truth

CAUSAL = 5


def main() -> None:
    """Runs the studies for both penalty rules and prints the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--training", type=int, default=192)
    parser.add_argument("--columns", type=int, default=500)
    parser.add_argument("--effect", type=float, default=0.7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    start = time.monotonic()
    result: dict[str, Any] = {"phantom": True, "studies": options.studies, "causal": CAUSAL, "columns": options.columns}
    for rule in ("best", "one_standard_error"):
        settings = StudySettings(lambda_rule=rule)
        rows = [one_study(options, settings, seed) for seed in range(options.studies)]
        result[rule] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    print(json.dumps({**result, "seconds": round(time.monotonic() - start)}, indent=2))


def one_study(options: argparse.Namespace, settings: StudySettings, seed: int) -> dict[str, float]:
    """Counts and rates of one selector."""
    truth = known_truth(
        options.training, 0, columns=options.columns, causal=CAUSAL, deep=0, effect=options.effect, seed=seed
    )
    assert truth.tables.radiomics is not None
    matrix = FeatureMatrix.from_frame(truth.tables.radiomics)
    selector = recipe_for("rad", settings).fit(matrix, truth.tables.outcome, seed)
    chosen = {matrix.names.index(name) for name in selector.names}
    blocks = {place // BLOCK for place in chosen}
    told = {matrix.names.index(name) for name in truth.causal}
    deciding = {place // BLOCK for place in told}
    false = [place for place in chosen if place // BLOCK not in deciding]
    return {
        "selected": len(chosen),
        "columns_recovered": len(chosen & told) / CAUSAL,
        "blocks_recovered": len(blocks & deciding) / CAUSAL,
        "proxies": len(chosen) - len(chosen & told) - len(false),
        "false": len(false),
        "false_share": len(false) / max(1, len(chosen)),
        "false_rate": len(false) / (options.columns - BLOCK * CAUSAL),
    }


if __name__ == "__main__":
    main()
