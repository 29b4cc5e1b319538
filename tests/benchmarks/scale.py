"""What a case costs, and how much memory a run takes, as the number of cases grows.

    python tests/benchmarks/scale.py --cases 300 --json        one size
    python tests/benchmarks/scale.py --out FOLDER              10, 30, 100, 300 and 1,000 cases: scale.csv and scale.png

Phantom cases: one MR series of 48×48×20 voxels of smoothed noise (no two alike) with one vertebral body of about
3,000 voxels, the study's feature set; with ``--encoder vit_small`` a cube of 8 MB an ROI flows as well. Nothing is
measured but extraction itself: the cases are in the store before.

Memory is sampled twice a second over the driver and every process below it. ``driver_mib`` and ``workers_mib`` are
private memory (what is mapped from the object store is counted once, as ``object_store_mib``). CPU seconds are
those of all processes together, which other programs on the machine disturb less than wall time.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import SimpleITK as sitk

REPOSITORY = Path(__file__).resolve().parents[2]
SIZES = (10, 30, 100, 300, 1000)
SHAPE = (20, 48, 48)
PUSH_OF = 200  # cases a push while the store is filled
MIB = 1024**2


def fill(uri: Path, cases: int) -> Any:
    """A store with that many cases of one series and one ROI."""
    from feature_store.store import FeatureStore
    from pipelines.imaging.images import content_hash, write_canonical

    store = FeatureStore.open(uri, create=True)
    draw = np.random.default_rng(0)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = ((z - 10) / 7) ** 2 + ((y - 24) / 10) ** 2 + ((x - 24) / 10) ** 2 <= 1
    mask = sitk.GetImageFromArray(body.astype(np.uint8))
    mask.SetSpacing((1.0, 1.0, 3.0))
    file = uri / "image.nrrd"

    def keep(kind: str, image: sitk.Image) -> str:
        write_canonical(image, file)
        return store.blobs.put_file(kind, file, content_hash(image))

    mask_hash = keep("masks", mask)
    series: list[dict[str, Any]] = []
    rois: list[dict[str, Any]] = []
    for number in range(cases):
        image = sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(draw.normal(0, 1, SHAPE)), 1.0) * 300 + 400
        image = sitk.Cast(image, sitk.sitkInt16)
        image.CopyInformation(mask)
        case = {"site": f"s{number % 3}", "patient_id": f"p{number:05d}", "case_id": f"c{number:05d}"}
        image_hash = keep("images", image)
        geometry = {"size": image.GetSize(), "spacing": image.GetSpacing(), "origin": image.GetOrigin()}
        series.append(
            {**case, "sequence": "t2_sag", "image_hash": image_hash}
            | {name: list(value) for name, value in geometry.items()}
            | {"direction": list(image.GetDirection())}
        )
        roi = {"structure": "vertebral_body", "level": "all", "side": "both", "segmentation": "primary"}
        counts = {"labels": [1], "levels": ["L4"], "voxel_count": int(body.sum()), "volume_mm3": 3.0 * body.sum()}
        rois.append({**case, "sequence": "t2_sag", **roi, "image_hash": image_hash, "mask_hash": mask_hash, **counts})
        if len(series) == PUSH_OF or number == cases - 1:
            assert not store.push({"series": series, "rois": rois}, kind="case", source="benchmark").rejected
            series, rois = [], []
    file.unlink()
    return store


class Sampler(threading.Thread):
    """Peaks of memory and sums of CPU time over this process and all below it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = {"driver_mib": 0.0, "workers_mib": 0.0, "object_store_mib": 0.0, "all_mib": 0.0}
        self.cpu: dict[int, tuple[str, float]] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.5):
            self.sample()

    def sample(self) -> None:
        now = dict.fromkeys(self.peak, 0.0)
        own = psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            try:
                memory, times, name = process.memory_info(), process.cpu_times(), process.name()
            except psutil.NoSuchProcess:
                continue
            private = (memory.rss - memory.shared) / MIB
            place = "driver_mib" if process == own else "workers_mib"
            now[place] += private
            if name == "raylet":
                now["object_store_mib"] += memory.shared / MIB
            role = "driver" if process == own else "ray" if name in ("raylet", "gcs_server") else "workers"
            self.cpu[process.pid] = (role, times.user + times.system)
        now["all_mib"] = now["driver_mib"] + now["workers_mib"] + now["object_store_mib"]
        self.peak = {place: max(most, now[place]) for place, most in self.peak.items()}

    def stop(self) -> None:
        self._over.set()
        self.join()
        self.sample()


def measure(cases: int, encoder: str | None) -> dict[str, Any]:
    """One run over that many cases."""
    from pipelines.extraction.plan import ExtractionSettings
    from pipelines.extraction.run import extract
    from pipelines.ray_session import ray_session

    with tempfile.TemporaryDirectory() as folder:
        store = fill(Path(folder) / "store", cases)
        with ray_session(cpus=2):  # its start is no cost of a case
            sampler = Sampler()
            sampler.sample()
            before = {pid: spent for pid, (_, spent) in sampler.cpu.items()}
            sampler.start()
            pushing = timed(store, "push")
            rows: list[tuple[float, int]] = []
            start = time.monotonic()
            report = extract(
                store,
                ExtractionSettings(encoder=encoder),
                progress=lambda done, total: rows.append((time.monotonic(), done)),
            )
            seconds = time.monotonic() - start
            sampler.stop()
        assert (report.done, report.failed) == (cases, 0), report
    cpu = dict.fromkeys(("driver", "ray", "workers"), 0.0)
    for pid, (role, spent) in sampler.cpu.items():
        cpu[role] += spent - before.get(pid, 0.0)
    first, last = rows[1], rows[-1]
    steady = (last[0] - first[0]) / max(last[1] - first[1], 1)
    return {
        "cases": cases,
        "encoder": encoder or "none",
        "seconds": seconds,
        "seconds_to_first_row": first[0] - start,
        "seconds_per_further_case": steady,
        "cpu_seconds_per_case": sum(cpu.values()) / cases,
        "driver_cpu_seconds_per_case": cpu["driver"] / cases,
        "push_seconds_per_case": pushing() / cases,
        "busy_workers": sum(report.stage_totals.values()) / (last[0] - first[0] or seconds),
        "stage_seconds": report.stage_seconds,
        **sampler.peak,
    }


def timed(thing: Any, name: str) -> Callable[[], float]:
    """Count the seconds spent in a method of this one object."""
    spent, method = [0.0], getattr(thing, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        try:
            return method(*args, **kwargs)
        finally:
            spent[0] += time.monotonic() - start

    setattr(thing, name, call)
    return lambda: spent[0]


def draw_curve(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    cases = [row["cases"] for row in rows]
    for name in ("seconds_per_further_case", "driver_cpu_seconds_per_case", "push_seconds_per_case"):
        left.plot(cases, [row[name] for row in rows], marker="o", label=name.replace("_", " "))
    for name in ("driver_mib", "workers_mib", "object_store_mib"):
        right.plot(cases, [row[name] for row in rows], marker="o", label=name.removesuffix("_mib").replace("_", " "))
    for axes, what in ((left, "seconds a case"), (right, "peak memory, MiB")):
        axes.set(xscale="log", xlabel="cases (phantoms)", ylabel=what, ylim=(0, None))
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, action="append", help="a size; several for a curve")
    parser.add_argument("--encoder", help="vit_small or vit_base; none by default")
    parser.add_argument("--out", type=Path, help="folder for scale.csv and scale.png; a size already there is kept")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    sizes = tuple(arguments.cases or SIZES)
    found = curve(sizes, arguments.encoder, arguments.out)
    if arguments.json:
        print(json.dumps(found if len(found) > 1 else found[0], indent=2))
    else:
        for row in found:
            print(", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))


def curve(sizes: tuple[int, ...], encoder: str | None, out: Path | None) -> list[dict[str, Any]]:
    """Each size in a process of its own, so that no peak is another's."""
    kept = out / "scale.csv" if out else None
    found: dict[int, dict[str, Any]] = {}
    if kept is not None and kept.is_file():
        with kept.open() as file:
            for row in csv.DictReader(file):
                found[int(row["cases"])] = {
                    name: value if name == "encoder" else int(value) if name == "cases" else float(value)
                    for name, value in row.items()
                }
    for size in sizes:
        if size in found:
            continue
        # By -c, because Ray hands this script's folder to its workers, where radiomics.py would hide PyRadiomics.
        code = (
            f"import json; from tests.benchmarks.scale import measure; print(json.dumps(measure({size}, {encoder!r})))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True
        )
        row = json.loads(done.stdout)
        row |= {f"{stage}_seconds": value for stage, value in row.pop("stage_seconds").items()}
        found[size] = row
        if out is not None and kept is not None:
            out.mkdir(parents=True, exist_ok=True)
            rows = [found[size] for size in sorted(found)]
            with kept.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            draw_curve(rows, out / "scale.png")
    return [found[size] for size in sizes]


if __name__ == "__main__":
    main()
