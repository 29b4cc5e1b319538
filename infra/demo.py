"""The main job end to end on a phantom cohort: from images to a served risk, over HTTP.

Stages, each timed: phantoms, services, cases, outcomes, extraction, selection, training, release, scores.
The store that it leaves is a whole one: `asdeg serve --store demo-store` starts on it again.
"""

from __future__ import annotations

import csv
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feature_store.errors import ExtractionError, UsageError
from feature_store.vocabulary import RESEARCH_USE
from infra import serve
from infra.bootstrap import House
from infra.cli.session import Session
from infra.site_client import SiteClient

PATIENTS, SITES, SEED = 60, 3, 0
EXTERNAL_SITE = "site_c"
GRID, PERMUTATIONS = "quick", 4
"""Smaller than a study's defaults (standard, 20), so that the demo is short; the report states both."""
DEFAULT_STORE = "demo-store"
MARK = "PHANTOM.txt"
UPLOADS_AT_ONCE = 4
KINDS = {"rad": "rad-sign", "dl": "dl-sign", "combined": "combined"}


@dataclass
class Stages:
    """Shows each stage as it runs and keeps how long it took, in seconds."""

    session: Session
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Any]:
        """Yields a progress callback ``(what, share done)``."""
        start = time.monotonic()
        with self.session.progress(name) as progress:
            yield progress
        self.seconds[name] = round(time.monotonic() - start, 1)
        self.session.note(f"{name}: {self.seconds[name]:.1f} s")


@dataclass(frozen=True)
class Keys:
    """The demo's credentials: one a site, a scientist, an application."""

    sites: dict[str, str]
    scientist: str
    application: str


def run_demo(session: Session) -> None:
    """Runs every stage, prints a table, the report's place and a curl command. Raises what a stage raises."""
    store = _fresh_store(session.settings.store)
    # Extraction is a stage of its own here, so it does not begin by itself.
    settings = session.settings.but(store=store, inbox=f"{store}/inbox", auto_extract=False)
    session = Session(settings, session.as_json)
    folder = Path(session.settings.store)
    stages = Stages(session)
    house = session.house(create=True)
    cohort = _make_phantoms(stages, folder / "phantoms")
    keys = _make_keys(house, cohort.sites)
    with stages.stage("services"):
        door = serve.start(session.settings)
    try:
        case_ids = _push_cases(stages, door.url, keys, cohort)
        _push_outcomes(stages, door.url, keys, cohort, case_ids)
        _extract(stages, house)
        run = _train(stages, door.url, keys)
        answers = _ask(stages, door.url, keys, cohort)
    finally:
        serve.stop(door)
    report = _write_report(house, run["run_id"], folder / "report")
    _finish(session, stages, run, answers, report, keys)


def _fresh_store(store: str) -> str:
    """The demo's own folder, emptied when an earlier demo made it. Raises UsageError for any other folder."""
    folder = Path(DEFAULT_STORE if store.endswith("asdeg-store") else store).resolve()
    if "://" in store:
        raise UsageError("The demo makes its store in a folder.", action="Give --store a new folder.")
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARK).exists():
            raise UsageError("That folder is no demo's store.", action="Give --store a new folder.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).write_text("A store of phantom patients: nothing here is a clinical result.\n", encoding="utf-8")
    return str(folder)


def _make_phantoms(stages: Stages, out: Path) -> Any:
    from pipelines.phantom import write_phantom_cohort

    with stages.stage("phantoms") as progress:
        return write_phantom_cohort(out, PATIENTS, SITES, SEED, progress=progress)


def _make_keys(house: House, sites: tuple[str, ...]) -> Keys:
    add = house.control.add_credential
    return Keys(
        sites={site: add(f"demo-{site}", "site", site) for site in sites},
        scientist=add("demo-scientist", "scientist"),
        application=add("demo-application", "application"),
    )


def _push_cases(stages: Stages, url: str, keys: Keys, cohort: Any) -> dict[tuple[str, str], str]:
    """Every case folder over HTTP, each site with its own key; case ids by site and patient."""
    ids: dict[tuple[str, str], str] = {}

    def push(case: Any) -> None:
        with SiteClient(url, keys.sites[case.site]) as client:
            receipt = client.push_case(case.folder)
        if receipt["findings"]:
            raise UsageError(f"A phantom case was not whole: {receipt['findings'][0]['message']}")
        ids[case.site, case.patient_id] = receipt["case_id"]

    with stages.stage("cases") as progress, ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        for done, _ in enumerate(pool.map(push, cohort.cases), 1):
            progress(f"{done} of {len(cohort.cases)} cases over HTTP", done / len(cohort.cases))
    return ids


def _push_outcomes(stages: Stages, url: str, keys: Keys, cohort: Any, case_ids: dict[tuple[str, str], str]) -> None:
    measured: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for site, path in cohort.outcome_files.items():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                patient_id = row.pop("patient_id")
                measured[site, patient_id].append({name: text or None for name, text in row.items()})

    def push(item: tuple[tuple[str, str], list[dict[str, Any]]]) -> None:
        (site, patient_id), rows = item
        with SiteClient(url, keys.sites[site]) as client:
            client.put_outcome(case_ids[site, patient_id], rows)

    with stages.stage("outcomes") as progress, ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        for done, _ in enumerate(pool.map(push, measured.items()), 1):
            progress(f"{done} of {len(measured)} patients over HTTP", done / len(measured))


def _extract(stages: Stages, house: House) -> None:
    from pipelines.extraction.plan import ExtractionSettings
    from pipelines.extraction.run import extract

    with stages.stage("extraction") as progress:
        report = extract(
            house.store,
            ExtractionSettings(),
            house.control,
            lambda done, total: progress(f"{done} of {total} ROIs", done / max(total, 1)),
        )
    if report.failed:
        raise ExtractionError(f"{report.failed} phantom ROIs have no features.", action="`asdeg cases` says why.")


def _train(stages: Stages, url: str, keys: Keys) -> dict[str, Any]:
    """Select, train on the selection's recipe, release; the finished training run."""
    request: dict[str, Any] = {
        "cohort": {"name": "demo", "external_sites": [EXTERNAL_SITE]},
        "study": {"grid": GRID, "permutations": PERMUTATIONS, "seed": SEED},
    }
    with SiteClient(url, keys.scientist) as client:
        with stages.stage("selection") as progress:
            selection = client.run("selection", request, lambda s: progress(f"selecting features, {s:.0f} s", 0.5))
        with stages.stage("training") as progress:
            request = {"study": request["study"], "selection_run": selection["run_id"]}
            run = client.run("training", request, lambda s: progress(f"fourteen classifiers, {s:.0f} s", 0.5))
        with stages.stage("release"):
            client.release(run["run_id"], "the demo's own")
    return run


def _ask(stages: Stages, url: str, keys: Keys, cohort: Any) -> list[dict[str, Any]]:
    """A score of every kind for two patients of the external site, over HTTP."""
    asked = [case for case in cohort.cases if case.site == EXTERNAL_SITE][:2]
    with stages.stage("scores"), SiteClient(url, keys.application) as client:
        return [client.score(kind, case.site, case.patient_id) for case in asked for kind in KINDS.values()]


def _write_report(house: House, run_id: str, out: Path) -> Path:
    house.training.write_report_files(run_id, out)
    return out / "report.html"


def _finish(
    session: Session,
    stages: Stages,
    run: dict[str, Any],
    answers: list[dict[str, Any]],
    report: Path,
    keys: Keys,
) -> None:
    from infra.cli.studies import SUMMARY_COLUMNS, summary

    store = session.settings.store
    asked = answers[-1]
    curl = (
        f"curl -s http://127.0.0.1:{session.settings.port}/v1/scores/combined "
        f"-H 'Authorization: Bearer {keys.application}' -H 'Content-Type: application/json' "
        f"""-d '{{"site": "{asked["site"]}", "patient_id": "{asked["patient_id"]}"}}'"""
    )
    if session.as_json:
        session.json(
            {
                "phantom": True,
                "seconds": stages.seconds,
                "run_id": run["run_id"],
                "signatures": summary(run["metrics"]),
                "scores": answers,
                "report": str(report),
                "store": store,
            }
        )
        return
    session.table("PHANTOM cohort, no clinical result", SUMMARY_COLUMNS, summary(run["metrics"]))
    session.table(
        "Scores asked for over HTTP",
        ("patient_id", "kind", "probability", "high_risk", "threshold", "first_reason"),
        [{**answer, "first_reason": (answer["moved_by"] or [{"name": None}])[0]["name"]} for answer in answers],
    )
    total = sum(stages.seconds.values())
    print("Time: " + ", ".join(f"{name} {s:.0f} s" for name, s in stages.seconds.items()) + f"; {total:.0f} s in all.")
    print(f"Report: {report}")
    print(f"Serve this store again:  .venv/bin/asdeg serve --store {store}")
    print(f"and ask for a risk:      {curl}")
    print(RESEARCH_USE)
