"""Writes a phantom cohort of several sites to disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feature_store.errors import UsageError
from feature_store.vocabulary import PHANTOM_PREFIX
from pipelines.phantom.broken import write_broken_case
from pipelines.phantom.case_folder import write_case
from pipelines.phantom.effect import describe
from pipelines.phantom.follow_up import follow_up_rows, write_outcomes
from pipelines.phantom.patient import draw_patient
from pipelines.phantom.scanner import sites as make_sites

Progress = Callable[[str, float], None]
BROKEN_ID = f"{PHANTOM_PREFIX}broken"


@dataclass(frozen=True)
class PhantomCase:
    """One case folder. ``outcome`` is what the label rule finds in the follow-up: None while the window is open."""

    site: str
    patient_id: str
    folder: Path
    outcome: int | None


@dataclass(frozen=True)
class PhantomCohort:
    """What was written: sound cases in order of patient number, broken ones apart, the outcome file of each site."""

    folder: Path
    cases: tuple[PhantomCase, ...]
    broken: tuple[PhantomCase, ...]
    outcome_files: dict[str, Path]

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.outcome_files)

    @property
    def open_window(self) -> tuple[PhantomCase, ...]:
        """Cases without a visit at six months or later."""
        return tuple(case for case in self.cases if case.outcome is None)


def write_phantom_cohort(
    out: Path,
    patients: int = 60,
    sites: int = 3,
    seed: int = 0,
    effect: bool = True,
    progress: Progress | None = None,
    broken: bool = False,
) -> PhantomCohort:
    """``out/<site>/<patient>/case.yaml`` with images and masks, ``out/<site>/outcomes.csv``, ``out/README.txt``.

    Patients go to the sites in turn. A patient's data follow from ``seed``, number and site alone: more patients
    leave the first ones as they are. ``effect=False`` keeps every image and draws the outcomes by lot.
    ``broken=True`` adds one case that cannot be used whole. ``progress(message, share done)`` is called once a
    patient. Raises UsageError where ``out`` holds something already, or a count is out of range.
    """
    if not 1 <= patients < 9999:
        raise UsageError(f"{patients} patients were asked for.", action="Ask for 1 to 9998 patients.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("The folder for the phantom cohort is not empty.", action="Name a new or empty folder.")
    places = make_sites(sites)
    out.mkdir(parents=True, exist_ok=True)
    (out / "README.txt").write_text(_readme(patients, sites, seed, effect), encoding="utf-8")

    cases = []
    rows = {site.name: list[dict[str, object]]() for site in places}
    for number in range(1, patients + 1):
        site = places[(number - 1) % len(places)]
        patient = draw_patient(seed, number, effect)
        folder = out / site.name / patient.patient_id
        write_case(patient, site, folder)
        rows[site.name] += follow_up_rows(patient)
        outcome = None if patient.open_window else patient.outcome
        cases.append(PhantomCase(site.name, patient.patient_id, folder, outcome))
        if progress is not None:
            progress(f"phantom {number} of {patients}", number / patients)

    bad = []
    if broken:
        bad.append(PhantomCase(places[0].name, BROKEN_ID, out / places[0].name / BROKEN_ID, None))
        write_broken_case(seed, places[0], bad[0].folder, BROKEN_ID)

    files = {name: out / name / "outcomes.csv" for name in rows}
    for name, path in files.items():
        path.parent.mkdir(exist_ok=True)  # a site without patients still sends its (empty) file
        write_outcomes(path, rows[name])
    return PhantomCohort(out, tuple(cases), tuple(bad), files)


def _readme(patients: int, sites: int, seed: int, effect: bool) -> str:
    return f"""\
PHANTOM COHORT: SYNTHETIC, WITHOUT CLINICAL MEANING

{patients} phantom patients of {sites} sites, made by asdeg with seed {seed}. No image, variable or outcome here
comes from a person. What a model learns from this folder says that the software runs, and nothing about
adjacent segment degeneration.

<site>/<patient>/case.yaml  with images and masks, as `asdeg ingest` takes them
<site>/outcomes.csv         follow-up measurements, as `asdeg outcomes` takes them

{describe(effect)}
"""
