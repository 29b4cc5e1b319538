"""Retraining on what is new, by hand or by the clock: ``retrain``, ``schedule``, ``cancel``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.command import command
from infra.cli.runs import CohortFile, Grid, Permutations, RunId, Seed, cohort_settings, study_settings
from infra.cli.session import Session
from infra.cli.studies import Harmonise, RayAddress, UnseenScanner, harmonised, titled

if TYPE_CHECKING:
    from services.training.messages import RetrainAnswer, RetrainRequest

ReleaseIt = Annotated[
    bool, typer.Option("--release", help="Release what is through every gate.  [default: leave it as a candidate]")
]
First = Annotated[
    bool, typer.Option("--first-release", help="With --release: also where nothing is released yet to compare with.")
]
ScheduleName = Annotated[str, typer.Argument(help="As `asdeg schedule list` shows it.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "retrain", example="asdeg retrain --cohort cohort.yaml --release")(retrain)
    command(app, "cancel", example="asdeg cancel RUN_ID")(cancel)
    schedule = typer.Typer(
        help="Retraining by the clock, while `asdeg serve` runs.\n\nExample: asdeg schedule list", no_args_is_help=True
    )
    app.add_typer(schedule, name="schedule")
    command(schedule, "add", example='asdeg schedule add weekly --cron "0 3 * * 0" --cohort cohort.yaml')(add)
    command(schedule, "list", example="asdeg schedule list")(list_schedules)
    command(schedule, "run", example="asdeg schedule run weekly")(run)
    command(schedule, "remove", example="asdeg schedule remove weekly")(remove)


def retrain(
    session: Session,
    cohort: CohortFile = None,
    release: ReleaseIt = False,
    first_release: First = False,
    grid: Grid = None,
    permutations: Permutations = None,
    seed: Seed = None,
    harmonisation: Harmonise = None,
    unseen_scanner: UnseenScanner = None,
    by: Annotated[str, typer.Option("--by", help="Who calls, for the records.")] = "command line",
    ray_address: RayAddress = None,
) -> None:
    """Train on what is new since the last run and judge it at the gates; with nothing new, say so and stop.

    May be called at any time, by anybody, at once: one works, the others say so. What was killed is taken up.
    """
    harmonising = harmonised(harmonisation, unseen_scanner)
    request = _request(session, cohort, release, first_release, grid, permutations, seed, harmonising)
    with session.progress("retrain") as progress:
        house = session.but(ray_address=ray_address).house()
        answer = house.retraining.retrain(request, by=by, progress=progress)
    _say(session, answer)


def cancel(session: Session, run_id: RunId) -> None:
    """Ask a run that is under way to stop; it does at its next step."""
    house = session.house()
    handler = house.selection if run_id.startswith(f"{house.selection.kind}-") else house.training
    status = handler.cancel(run_id)
    session.result({"run_id": status.run_id, "state": status.state}, f"{run_id} will stop at its next step.")


def add(
    session: Session,
    name: Annotated[str, typer.Argument(help="Of your choice.")],
    cron: Annotated[str, typer.Option(help='When, in UTC: minute hour day month weekday, e.g. "0 3 * * 0".')],
    cohort: CohortFile = None,
    release: ReleaseIt = False,
    first_release: First = False,
    grid: Grid = None,
    permutations: Permutations = None,
    seed: Seed = None,
    harmonisation: Harmonise = None,
    unseen_scanner: UnseenScanner = None,
    by: Annotated[str, typer.Option("--by", help="Who adds it, for the records.")] = "command line",
) -> None:
    """Have a retraining called by the clock. The cohort's settings are kept as they are now."""
    from services.training.cron import trigger

    now = datetime.now(UTC)
    first = trigger(cron).get_next_fire_time(None, now)
    harmonising = harmonised(harmonisation, unseen_scanner)
    request = _request(session, cohort, release, first_release, grid, permutations, seed, harmonising)
    session.house().schedules.add(name, cron, request.model_dump(mode="json"), by=by)
    session.result({"name": name, "cron": cron, "next": first}, f"{name}: next at {first:%Y-%m-%d %H:%M} UTC.")


def list_schedules(session: Session) -> None:
    """List schedules: when, for which cohort, and what the last call did."""
    from services.training.cron import trigger

    rows: list[dict[str, Any]] = []
    for found in session.house().schedules.all():
        row = {**vars(found), "cohort": found.request["cohort"]["name"], "release": found.request["release"]}
        row["next"] = trigger(found.cron).get_next_fire_time(None, datetime.now(UTC))
        for moment in ("added_at", "last_at"):
            row[moment] = None if row[moment] is None else datetime.fromtimestamp(row[moment], UTC)
        rows.append(row)
    session.table("Schedules", ("name", "cron", "cohort", "release", "next", "last_at", "last_decision"), rows)


def run(session: Session, name: ScheduleName) -> None:
    """Call a schedule now, here."""
    from services.training.scheduler import retrain_here, run_schedule

    house = session.house()
    with session.progress("retrain") as progress:
        answer = run_schedule(house.schedules, name, retrain_here(house.retraining, progress))
    _say(session, answer)


def remove(session: Session, name: ScheduleName) -> None:
    """Remove a schedule; a retraining that runs already goes on."""
    session.house().schedules.remove(name)
    session.result({"removed": name}, f"{name} is removed.")


def _request(
    session: Session,
    cohort: Any,
    release: bool,
    first: bool,
    grid: Any,
    permutations: int | None,
    seed: int | None,
    harmonising: dict[str, Any],
) -> RetrainRequest:
    from services.training.messages import RetrainRequest

    study = study_settings(session, grid, permutations, seed, harmonising)
    by_gates = "gates" if first else "person"
    return RetrainRequest(cohort=cohort_settings(cohort), study=study, release=release, first_release=by_gates)


def _say(session: Session, answer: RetrainAnswer) -> None:
    from services.training.looks import Looks

    if session.as_json:
        session.json(answer)
        return
    print(f"{answer.decision.replace('_', ' ')}: {answer.reason}")
    rows = [{"signature": kind, **gate} for kind, found in answer.gates.items() for gate in found]
    if rows:
        session.table(titled("Gates", answer.phantom), ("signature", "name", "verdict", "bound", "reason"), rows)
        print(Looks(answer.looks or 0, answer.looks_by_partition))
    if answer.run_id is not None:
        print(f"Run: {answer.run_id}")
    if answer.decision == "candidate":
        print(f"Next: asdeg report {answer.run_id} --out ./report; asdeg release {answer.run_id}")
