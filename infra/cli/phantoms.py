"""``asdeg demo`` and ``asdeg phantom``: data made on the spot, without clinical meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.command import command
from infra.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "demo", example="asdeg demo")(demo)
    command(app, "phantom", example="asdeg phantom ./phantoms --patients 12 --sites 3")(phantom)


def demo(session: Session) -> None:
    """The main job end to end, on a phantom cohort made on the spot."""
    from infra.demo import run_demo

    run_demo(session)


def phantom(
    session: Session,
    out: Annotated[Path, typer.Argument(help="New or empty folder.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 60,
    sites: Annotated[int, typer.Option(min=1, help="Number of sites, each with its own scanners.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    no_effect: Annotated[bool, typer.Option("--no-effect", help="Draw outcomes by lot: nothing to learn.")] = False,
) -> None:
    """Write a phantom cohort: case folders and outcome files of several sites."""
    from pipelines.phantom import write_phantom_cohort

    with session.progress("phantoms") as progress:
        cohort = write_phantom_cohort(out, patients, sites, seed, effect=not no_effect, progress=progress)
    first = cohort.sites[0]
    session.result(
        {
            "folder": str(out),
            "cases": len(cohort.cases),
            "sites": list(cohort.sites),
            "outcome_files": {site: str(path) for site, path in cohort.outcome_files.items()},
        },
        f"{len(cohort.cases)} phantom cases of {len(cohort.sites)} sites are in {out}.",
        f"Next: asdeg ingest {out / first} --site {first}",
        f"      asdeg outcomes {cohort.outcome_files[first]} --site {first}",
    )
