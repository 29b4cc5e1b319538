"""The feature store's speed, against Feast and against a bare scan of the same files.

    python tests/benchmarks/store.py [--patients 10000] [--json]
    python tests/benchmarks/store.py --patients 1000 --no-feast --json       a point of a curve

One patient is 8 ROIs of 851 float64 values (and of 384 float32, of an encoder), 4 series, and a row or more in every
other table of a case; all values are random, so nothing compresses. Everything stands in one folder.

``bare_scan_ratio``: seconds of ``training_table`` over those of ``SELECT *`` by DuckDB on the Parquet files of
``radiomics`` (all columns, ``read_parquet``, as many threads as cores) into an Arrow table; best of three each, file
cache warm, in turns. The training table also finds the newest revisions, checks regions and surgery dates and puts
the values into a matrix of one row a patient.
``feast_ratio``, ``feast_array_ratio``: how many times as long Feast takes for one value. ``get_historical_features``
of a file in Feast's own environment (made on first use, in ``--cache``), with a field a feature (8 feature views of
851 fields) and with one array field (8 views), at the largest of FEAST_SIZES that it finishes within FEAST_LIMIT_S;
its time ends with the data frame, as ours does, and is the best of three too.
``one_patient_ms``: a new process's ``FeatureStore.open`` and ``patient_features`` (imports done, file cache warm),
median over patients drawn at random. ``one_patient_snapshot_ms``: the same question to an index that is held.
``push_ms_p50``, ``push_ms_p95``: eight processes, a site each, push one whole case after another (ten tables, 8 × 851
and 8 × 384 values) as fast as they can into the store that has all the patients; from the call until it is visible.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing as mp
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
FEAST = "feast[duckdb]==0.67.0"
FEAST_SIZES = {"fields": (30, 100, 300), "array": (300, 1000, 3000, 10000)}
FEAST_LIMIT_S = 150.0
SITES = tuple(f"site-{letter}" for letter in "abcdefgh")
PUSHES_EACH = 40
CASES_A_PUSH = 250
FEATURES, DIMENSION = 851, 384
SET, ENCODER = "study-0a1b2c3d", "vit_small-0a1b2c3d"
ROIS = (
    ("ct", "vertebral_body"), ("t1_sag", "vertebral_body"), ("t1_sag", "intervertebral_disc"),
    ("t2_sag", "vertebral_body"), ("t2_sag", "intervertebral_disc"), ("t2_ax", "psoas_major"),
    ("t2_ax", "quadratus_lumborum"), ("t2_ax", "paraspinal_muscle"),
)  # fmt: skip
SEQUENCES = ("ct", "t1_sag", "t2_sag", "t2_ax")
VALUES = len(ROIS) * FEATURES

Tables = dict[str, list[dict[str, Any]]]


def declared() -> Tables:
    """The feature set and the encoder that the values belong to."""
    encoder = {
        "encoder": ENCODER, "architecture": "vit_small", "settings": "{}", "checkpoint_hash": "dd",
        "origin": "random:0", "outcomes_seen": False, "dimension": DIMENSION,
    }  # fmt: skip
    names = [f"feature_{i:03d}" for i in range(FEATURES)]
    features = {"feature_set": SET, "name": "study", "settings": "{}", "feature_names": names}
    return {"feature_sets": [features], "encoders": [encoder]}


def whole_case(site: str, patient: str, seed: int) -> Tables:
    """Rows of every table that a case has."""
    draw = np.random.default_rng(seed)
    who = {"site": site, "patient_id": patient}
    case = {**who, "case_id": f"case-{patient}"}
    image, mask = {"image_hash": f"{seed:064x}"}, {"mask_hash": f"{seed + 1:064x}"}
    run = {"software_version": "asdeg 0.1.0; benchmark"}
    verdict = {"verdict": "pass", "reasons": [], "measured": "{}", "quality_settings": "study-0a1b2c3d", **image, **run}
    geometry = {
        "size": [512, 512, 60], "spacing": [0.4, 0.4, 3.0], "origin": [0.0, 0.0, 0.0],
        "direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], "days_from_index": -3,
    }  # fmt: skip

    def roi(sequence: str, structure: str) -> dict[str, Any]:
        region = {"level": "all", "side": "both", "segmentation": "primary"}
        return {**case, "sequence": sequence, "structure": structure, **region}

    regions = [roi(*names) for names in ROIS]
    size = {"labels": [1], "levels": ["L4"], "voxel_count": 20000, "volume_mm3": 9600.0}
    cubes = draw.normal(size=(len(ROIS), DIMENSION)).astype(np.float32)
    follow_up = {**who, "days_from_index": 400, "rater": "first", "spondylolisthesis_mm": 1.0, "ucla": 1}
    return {
        "cases": [{**case, "manifest_hash": f"{seed:064x}", "sequences": sorted(SEQUENCES), "index_date_known": True}],
        "series": [{**case, "sequence": name, **image, **geometry} for name in SEQUENCES],
        "rois": [{**region, **image, **mask, **size} for region in regions],
        "quality": [{**roi(name, "image"), **verdict} for name in SEQUENCES]
        + [{**region, **verdict, **mask} for region in regions],
        "clinical": [{**case, "age": 50.0, "bmi": 25.0, "fused_levels": ["L4-L5"], "surgical_segments": 1}],
        "radiomics": [
            {**region, "feature_set": SET, **image, **mask, **run, "values": values}
            for region, values in zip(regions, draw.normal(size=(len(ROIS), FEATURES)), strict=True)
        ],
        "embeddings": [
            {**region, "encoder": ENCODER, **image, **mask, **run, "values": values}
            for region, values in zip(regions, cubes, strict=True)
        ],
        "follow_up": [{**follow_up, "level": level} for level in ("L3-L4", "L5-S1")],
        "labels": [
            {**who, "rule": "asdeg-v1-180d", "outcome": seed % 2, "criteria": [], "reason": "given", "last_day": 400}
        ],
        "surgeon_reads": [{**who, "surgeon": name, "prediction": 1} for name in "AB"],
    }


def patient_name(number: int) -> str:
    """A pseudonym, as sites have them: new ones fall anywhere among those that are there."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def fill(uri: str, patients: int) -> Any:
    """A store with that many patients of eight sites, not yet optimised."""
    from feature_store.store import FeatureStore

    store = FeatureStore.open(uri, create=True)
    store.push(declared(), kind="features", source="benchmark")
    for s, site in enumerate(SITES):
        mine = range(s, patients, len(SITES))
        for start in range(0, len(mine), CASES_A_PUSH):
            rows: Tables = {}
            for number in mine[start : start + CASES_A_PUSH]:
                for table, found in whole_case(site, patient_name(number), number).items():
                    rows.setdefault(table, []).extend(found)
            assert not store.push(rows, kind="case", source=site).rejected
    return store


def files_of(store: Any) -> dict[str, int]:
    """Files and bytes of all tables, as listed now."""
    from feature_store.schemas import TABLES

    listings = [files.listing for name in TABLES if (files := store.log(name).files()) is not None]
    sizes = [size for listing in listings for size in listing["size_bytes"].to_pylist()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def best(work: Callable[[], Any], times: int) -> float:
    """Seconds of the quickest run."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        kept = work()
        found.append(time.perf_counter() - start)
        del kept
    return min(found)


def measure_tables(store: Any) -> dict[str, float]:
    """The training table and the bare scan, in turns."""
    import duckdb

    from feature_store.retrieval import training_table

    names = store.log("radiomics").files().listing["path"].to_pylist()
    paths = [str(Path(store.uri) / "tables" / "radiomics" / name) for name in names]
    seconds: dict[str, list[float]] = {"training_table_s": [], "bare_scan_s": [], "bare_values_s": []}

    def bare(columns: str) -> Any:
        with duckdb.connect() as connection:
            return connection.sql(f"SELECT {columns} FROM read_parquet({paths})").to_arrow_table()

    def table() -> Any:
        found = training_table(store.snapshot(), "benchmark", [SET])
        assert found.features.shape[1] == VALUES
        return found

    works: dict[str, Callable[[], Any]] = {
        "training_table_s": table, "bare_scan_s": lambda: bare("*"), "bare_values_s": lambda: bare('"values"'),
    }  # fmt: skip
    for _ in range(3):
        for name, work in works.items():
            seconds[name].append(best(work, 1))
    found = {name: min(times) for name, times in seconds.items()}
    return found | {"bare_scan_ratio": found["training_table_s"] / found["bare_scan_s"]}


# --- processes of their own --------------------------------------------------------------------
def look(uri: str, patients: int, answer: Any) -> None:
    """Ask for single patients: each from a store just opened, then from an index that is held."""
    from feature_store.patient_index import PatientIndex
    from feature_store.retrieval import patient_features
    from feature_store.store import FeatureStore

    numbers = np.random.default_rng(1).permutation(patients)[:40].tolist()

    def who(number: int) -> tuple[str, str]:
        return SITES[number % len(SITES)], patient_name(number)

    fresh, held = [], []
    for number in numbers:
        start = time.perf_counter()
        found = patient_features(FeatureStore.open(uri).snapshot(), *who(number), [SET])
        fresh.append((time.perf_counter() - start) * 1000)
        assert len(found) == VALUES
    store = FeatureStore.open(uri)
    start = time.perf_counter()
    index = PatientIndex(store.snapshot(), [SET])
    index.features(*who(numbers[0]))
    build = time.perf_counter() - start
    for number in numbers:
        start = time.perf_counter()
        found = index.features(*who(number))
        held.append((time.perf_counter() - start) * 1000)
        assert len(found) == VALUES
    answer.put(
        {
            "one_patient_ms": statistics.median(fresh[3:]),
            "one_patient_ms_p95": float(np.percentile(fresh[3:], 95)),
            "one_patient_snapshot_ms": statistics.median(held),
            "one_patient_snapshot_ms_p95": float(np.percentile(held, 95)),
            "snapshot_index_s": build,
        }
    )


def push_cases(uri: str, site: str, first: int, count: int, ready: Any, go: Any, answer: Any) -> None:
    """One site: ``count`` whole cases, one after another."""
    from feature_store.store import FeatureStore

    store = FeatureStore.open(uri)
    store.snapshot()
    cases = [whole_case(site, patient_name(first + i), first + i) for i in range(count)]
    store.push(
        whole_case(site, patient_name(first + count), first), kind="case", source=site
    )  # a service has run before
    ready.put(site)
    go.wait()
    seconds, began = [], os.times()
    for case in cases:
        start = time.perf_counter()
        receipt = store.push(case, kind="case", source=site)
        seconds.append(time.perf_counter() - start)
        assert receipt.sequence is not None
        assert len(receipt.written) == len(case)
    spent = os.times()
    answer.put((seconds, (spent.user + spent.system - began.user - began.system) / count))


SPAWN = mp.get_context("spawn")


def in_process(target: Any, *args: Any) -> Any:
    """What ``target`` puts into a queue, from a process of its own."""
    answer = SPAWN.Queue()
    process = SPAWN.Process(target=target, args=(*args, answer))
    process.start()
    found = answer.get(timeout=600)
    process.join()
    return found


def measure_pushes(uri: str, writers: int, count: int, first: int) -> dict[str, float]:
    """``writers`` sites push ``count`` whole cases each at once."""
    ready, answer, go = SPAWN.Queue(), SPAWN.Queue(), SPAWN.Event()
    processes = [
        SPAWN.Process(target=push_cases, args=(uri, SITES[w], first + w * 1000, count, ready, go, answer))
        for w in range(writers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.get(timeout=120)
    start = time.perf_counter()
    go.set()
    found = [answer.get(timeout=300) for _ in processes]
    wall = time.perf_counter() - start
    for process in processes:
        process.join()
    milliseconds = np.array([s for seconds, _ in found for s in seconds]) * 1000
    return {
        "p50": float(np.percentile(milliseconds, 50)),
        "p95": float(np.percentile(milliseconds, 95)),
        "max": float(milliseconds.max()),
        "cpu": float(np.mean([cpu for _, cpu in found]) * 1000),
        "per_second": writers * count / wall,
    }


# --- Feast -------------------------------------------------------------------------------------
def measure_feast(cache: Path) -> dict[str, Any]:
    """Seconds a value of both ways to keep features, at the largest size that is finished in time."""
    python = feast_python(cache)
    found: dict[str, Any] = {}
    for way, sizes in FEAST_SIZES.items():
        for patients in sizes:
            with tempfile.TemporaryDirectory() as folder:
                command = [str(python), str(Path(__file__).resolve()), "--in-feast", way, str(patients), folder]
                try:
                    done = subprocess.run(
                        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=FEAST_LIMIT_S, check=True
                    )
                except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
                    found[f"feast_{way}_not_finished"] = f"{patients} patients: {type(error).__name__}"
                    break
            seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
            found |= {f"feast_{way}_patients": patients, f"feast_{way}_s": seconds}
    return found


def feast_python(cache: Path) -> Path:
    """The interpreter of Feast's own environment."""
    home = cache / "feast"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", FEAST], check=True, stdout=sys.stderr)
        (home / "ready").touch()
    return python


def in_feast(way: str, patients: int, folder: Path) -> float:
    """Runs in Feast's environment: seconds of ``get_historical_features`` to a data frame."""
    from datetime import UTC, datetime, timedelta

    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource
    from feast.types import Array, Float64

    os.chdir(folder)
    Path("feature_store.yaml").write_text(
        "project: benchmark\nregistry: registry.db\nprovider: local\noffline_store:\n  type: duckdb\n"
        "online_store:\n  type: sqlite\n  path: online.db\nentity_key_serialization_version: 3\n"
    )
    patient = Entity(name="patient", join_keys=["patient_id"])
    made, asked = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    ids = [f"p{i:06d}" for i in range(patients)]
    draw = np.random.default_rng(0)
    views, wanted = [], []
    for number, names in enumerate(ROIS):
        view = "_".join(names)
        values = draw.normal(size=(patients, FEATURES))
        columns: dict[str, Any] = {"patient_id": ids, "event_timestamp": pa.array([made] * patients)}
        if way == "fields":
            fields = {f"f{i:03d}": values[:, i] for i in range(FEATURES)}
            kind: Any = Float64
        else:
            flat = pa.array(values.ravel())
            fields = {"values": pa.ListArray.from_arrays(np.arange(0, len(flat) + 1, FEATURES, dtype=np.int32), flat)}
            kind = Array(Float64)
        path = str(folder / f"{number}.parquet")
        pq.write_table(pa.table({**columns, **fields}), path)
        schema = [Field(name=name, dtype=kind) for name in fields]
        source = FileSource(path=path, timestamp_field="event_timestamp")
        views.append(FeatureView(name=view, entities=[patient], ttl=timedelta(days=3650), schema=schema, source=source))
        wanted += [f"{view}:{name}" for name in fields]
    store = FeatureStore(repo_path=str(folder))
    store.apply([patient, *views])
    entities = pd.DataFrame({"patient_id": ids, "event_timestamp": [asked] * patients})

    def ask() -> None:
        table = store.get_historical_features(entity_df=entities, features=wanted, full_feature_names=True).to_df()
        assert table.shape == (patients, len(wanted) + 2)

    return best(ask, 3)


@contextmanager
def place(given: Path | None) -> Iterator[Path]:
    """The folder named, which is kept, or one of its own."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def measure(patients: int, folder: Path, feast: Path | None) -> dict[str, Any]:
    """Everything, at one size."""
    from feature_store.cohort_settings import CohortSettings
    from feature_store.cohorts import freeze_cohort

    uri = str(folder / "store")
    shutil.rmtree(uri, ignore_errors=True)
    found: dict[str, Any] = {"patients": patients}
    start = time.perf_counter()
    store = fill(uri, patients)
    found["fill_s"] = time.perf_counter() - start
    freeze_cohort(store, CohortSettings(name="benchmark"))
    found |= {f"{name}_before_optimize": count for name, count in files_of(store).items()}
    start = time.perf_counter()
    store.optimize()
    found["optimize_s"] = time.perf_counter() - start
    found |= files_of(store)
    found |= measure_tables(store)
    found |= in_process(look, uri, patients)
    ours = found["training_table_s"] / (patients * VALUES)
    if feast is not None:
        found |= measure_feast(feast)
        for way, name in (("fields", "feast_ratio"), ("array", "feast_array_ratio")):
            if f"feast_{way}_s" in found:
                found[name] = found[f"feast_{way}_s"] / (found[f"feast_{way}_patients"] * VALUES) / ours
    found |= {f"push_ms_{name}": value for name, value in measure_pushes(uri, 8, PUSHES_EACH, 100_000).items()}
    one = measure_pushes(uri, 1, PUSHES_EACH, 200_000)
    found |= {f"one_writer_push_ms_{name}": one[name] for name in ("p50", "p95")}
    found |= {f"{name}_after_pushes": count for name, count in files_of(store).items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=10_000)
    parser.add_argument("--no-feast", action="store_true", help="leave Feast out")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "asdeg-benchmark")
    parser.add_argument("--folder", type=Path, help="where to put the store, and leave it; default: nowhere")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--in-feast", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_feast:
        way, patients, folder = options.in_feast
        print(json.dumps({"seconds": in_feast(way, int(patients), Path(folder))}))
        return
    sys.path.insert(0, str(REPOSITORY))
    with place(options.folder) as folder:
        found = measure(options.patients, folder, None if options.no_feast else options.cache)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:32} {value:.4g}" if isinstance(value, float) else f"{name:32} {value}")


if __name__ == "__main__":
    main()
