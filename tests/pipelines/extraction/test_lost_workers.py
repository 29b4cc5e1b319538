"""What brings a worker down: hangs, crashes, memory, and workers killed from outside. Nothing else is lost."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import psutil
import pytest

from feature_store.control import ControlDatabase
from feature_store.store import FeatureStore
from pipelines.extraction import plan as extraction_plan
from pipelines.extraction.limits import RoiLimits
from pipelines.extraction.plan import ExtractionSettings
from pipelines.extraction.run import extract
from pipelines.radiomics.feature_set_choice import feature_set_for
from pipelines.ray_session import ray_session
from tests.pipelines.extraction.extraction_store import PoisonedSettings, add_series, radiomics_of, rows_of, same_values

pytestmark = [pytest.mark.cores, pytest.mark.slow]

LIMITS = RoiLimits(seconds=6, memory_gib=4)
TOO_LONG = "ExtractionError: took longer than 6 s."
HANGS = ("sleep", "native", "spin")


@pytest.fixture(scope="module", autouse=True)
def ray_running():
    with ray_session(cpus=3):
        yield


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.open(tmp_path / "store", create=True)


def poison(monkeypatch: pytest.MonkeyPatch, **poisons: tuple[str, str]) -> None:
    """Series called by these sequences get a feature set that does that harm in that stage."""
    settings = {s: PoisonedSettings(name=f"poison-{p}", poison=p, stage=stage) for s, (p, stage) in poisons.items()}
    monkeypatch.setattr(
        extraction_plan,
        "feature_set_for",
        lambda sequence, name: settings.get(sequence) or feature_set_for(sequence, name),
    )


def test_rois_that_hang_are_recorded_and_the_rest_is_done(store, tmp_path, monkeypatch):
    poison(monkeypatch, **{f"hang_{p}": (p, "radiomics") for p in HANGS}, hang_read=("sleep", "read"))
    for patient in ("p1", "p2", "p3"):
        add_series(store, patient, "t2_sag", seed=int(patient[1]))
    for number, sequence in enumerate(("hang_sleep", "hang_native", "hang_spin", "hang_read")):
        add_series(store, "p1" if number else "p4", sequence, seed=10 + number)
    control = ControlDatabase.open(f"sqlite:///{tmp_path / 'control.sqlite'}")

    start = time.monotonic()
    report = extract(store, ExtractionSettings(encoder=None, limits=LIMITS), control)
    assert time.monotonic() - start < 300
    assert (report.done, report.failed) == (3, 4)
    assert report.errors == {"ExtractionError": 4}
    assert report.cases == {"extracted": 3, "rejected": 1}
    rows = radiomics_of(store)
    for (_, sequence, _), row in rows.items():
        assert row["error"] == (TOO_LONG if sequence.startswith("hang") else None)
    assert control.case("case-a-p4").reasons == (f"extraction: hang_sleep/vertebral_body/all/both/primary: {TOO_LONG}",)
    assert control.case("case-a-p1").state == "extracted"
    assert len(control.case("case-a-p1").reasons) == 3
    again = extract(store, ExtractionSettings(encoder=None, limits=LIMITS), control)
    assert again.left_out == 7


def test_rois_that_crash_or_eat_memory_are_recorded_and_the_rest_is_done(store, monkeypatch):
    poison(
        monkeypatch,
        abort=("abort", "radiomics"),
        segfault=("segfault", "read"),
        memory=("memory", "radiomics"),
        memory_read=("memory", "read"),
    )
    for patient in ("p1", "p2", "p3"):
        add_series(store, patient, "t2_sag", seed=int(patient[1]))
    for number, sequence in enumerate(("abort", "segfault", "memory", "memory_read")):
        add_series(store, "p1", sequence, seed=10 + number)
    report = extract(store, ExtractionSettings(limits=LIMITS.model_copy(update={"seconds": 60.0})))
    assert (report.done, report.failed) == (3, 4)
    radiomics = radiomics_of(store)
    assert {sequence: radiomics["p1", sequence, "all"]["error"] for sequence in ("t2_sag", "abort", "segfault")} == {
        "t2_sag": None,
        "abort": "ExtractionError: its worker process died (SIGABRT).",
        "segfault": "ExtractionError: its worker process died (SIGSEGV).",
    }
    for sequence in ("memory", "memory_read"):
        assert radiomics["p1", sequence, "all"]["error"] == "ExtractionError: ran out of memory."
    # what kills the radiomics does not cost the ROI its embedding
    assert all(row["values"] for row in rows_of(store, "embeddings").values())
    assert len(rows_of(store, "embeddings")) == 7


class Killer(threading.Thread):
    """Sends SIGKILL to one worker of each step, each as soon as it is seen at work."""

    def __init__(self, *steps: str) -> None:
        super().__init__(daemon=True)
        self.killed: list[str] = []
        self._left = list(steps)
        self._over = threading.Event()

    def run(self) -> None:
        while self._left and not self._over.wait(0.05):
            for process in psutil.process_iter(["cmdline"]):
                title = (process.info["cmdline"] or [""])[0]
                step = next((s for s in self._left if title.startswith("ray::") and s in title), None)
                if step is not None and "__init__" not in title and self._ours(process):
                    process.kill()
                    self._left.remove(step)
                    self.killed.append(step)

    def _ours(self, process: psutil.Process) -> bool:
        return psutil.Process().pid in (parent.pid for parent in process.parents())

    def stop(self) -> None:
        self._over.set()
        self.join()


def test_workers_of_every_step_killed_in_the_middle_cost_nothing(store, tmp_path, monkeypatch):
    poison(monkeypatch, t2_sag=("slow", "read"), t1_sag=("slow", "read"))
    for number in range(12):
        add_series(store, f"p{number}", ("t2_sag", "t1_sag")[number % 2], seed=number)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(store.uri.removeprefix("file://"), undisturbed)
    settings = ExtractionSettings(batch_rows=4)

    killer = Killer("ReadStep", "RadiomicsStep", "EmbeddingStep")
    killer.start()
    try:
        report = extract(store, settings)
    finally:
        killer.stop()
    assert sorted(killer.killed) == ["EmbeddingStep", "RadiomicsStep", "ReadStep"]
    assert (report.done, report.failed) == (12, 0)
    assert report.alone > 0

    other = FeatureStore.open(undisturbed)
    extract(other, settings)
    assert same_values(store, other)
    assert same_values(store, other, "embeddings")
    for table in ("radiomics", "embeddings"):
        assert len(store.snapshot().revisions(table, columns=["error"])) == 12  # none twice
