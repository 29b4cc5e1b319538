"""Several ``asdeg ingest`` processes write into one store at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from feature_store.store import FeatureStore
from pipelines.phantom import write_phantom_cohort

pytestmark = pytest.mark.cores

MAIN = "import sys, infra.cli; sys.exit(infra.cli.main())"


def test_ingest_processes_at_once_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Two sites at once, and a third process that sends the first site's cases again meanwhile."""
    cohort = write_phantom_cohort(tmp_path / "phantoms", patients=6, sites=2)
    store = tmp_path / "store"
    first, second = cohort.sites
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", MAIN, "ingest", str(cohort.folder / site)),
                *("--site", site, "--store", str(store)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for site in (first, second, first)
    ]
    ends = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], ends

    opened = FeatureStore.open(str(store))
    snapshot = opened.snapshot()
    cases = snapshot.table("cases").to_pylist()
    assert {(row["site"], row["patient_id"]) for row in cases} == {(c.site, c.patient_id) for c in cohort.cases}
    for name, per_case in (("cases", 1), ("series", 4), ("clinical", 1)):
        assert len(snapshot.table(name)) == per_case * len(cohort.cases)
        assert len(snapshot.revisions(name)) == per_case * len(cohort.cases)
    for row in snapshot.table("series").to_pylist():
        assert opened.blobs.has("images", row["image_hash"])
    sequences = snapshot.pushes["sequence"].to_pylist()
    assert sequences == list(range(1, len(sequences) + 1))
