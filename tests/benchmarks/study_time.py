"""How long a user waits for ``asdeg study``: the command itself, in a process of its own, on a phantom's tables.

    python -m tests.benchmarks.study_time [--patients 250] [--radiomics 1000] [--deep 0] [--clinical] [--json]
    python -m tests.benchmarks.study_time --patients 420 --radiomics 518 --deep 768 --clinical --json

70 % of the patients are training patients. Everything is the command's default (20 permutations, ablation, report,
all cores). Wall seconds, processor seconds of all its processes, and the largest sum of their resident memory; the
figures of the study itself are a phantom's and are not printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from pipelines.phantom.tables import phantom_tables

REPOSITORY = Path(__file__).resolve().parents[2]


def write(folder: Path, options: argparse.Namespace) -> list[str]:
    """The tables as CSV files; returns the command's options."""
    training = round(0.7 * options.patients)
    tables = phantom_tables(training, options.patients - training, options.radiomics, options.deep, options.seed)
    patients = tables.patients.rename(columns={"partition": "cohort"})
    wanted = {"outcome": patients, "radiomics": tables.radiomics, "deep": tables.deep}
    if options.clinical:
        wanted["clinical"] = tables.clinical
    arguments = []
    for name, table in wanted.items():
        if table is None:
            continue
        if name != "outcome":
            table = table.assign(patient_id=patients["patient_id"].to_numpy())
        table.to_csv(folder / f"{name}.csv", index=False)
        arguments += [f"--{name}", str(folder / f"{name}.csv")]
    return arguments


def measured(command: list[str]) -> dict[str, Any]:
    """Runs it to its end, looking at its processes five times a second."""
    start, before = time.perf_counter(), os.times()
    peak = 0
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as process:
        family = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, sum(_resident(p) for p in [family, *family.children(recursive=True)]))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.2)
    wall, after = time.perf_counter() - start, os.times()
    if process.returncode:
        raise SystemExit(f"The study ended with {process.returncode}.")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall_s": wall, "processor_s": cpu, "peak_mib": peak / 2**20}


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=250)
    parser.add_argument("--radiomics", type=int, default=1000)
    parser.add_argument("--deep", type=int, default=0)
    parser.add_argument("--clinical", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        arguments = write(folder, options)
        asdeg = Path(sys.executable).with_name("asdeg")
        found = measured([str(asdeg), "study", *arguments, "--out", str(folder / "out"), "--json"])
    sizes = {name: getattr(options, name) for name in ("patients", "radiomics", "deep", "clinical")}
    found = {**sizes, "cores": len(os.sched_getaffinity(0)), **found}
    print(json.dumps(found, indent=2) if options.json else "\n".join(f"{k:12} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
