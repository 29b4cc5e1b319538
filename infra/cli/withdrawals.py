"""Cases taken back, and what had used them: ``withdraw``, ``withdrawals``."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from infra.cli.command import command
from infra.cli.pushes import record
from infra.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    example = 'asdeg withdraw p001 --site site_a --reason "wrong patient"'
    command(app, "withdraw", example=example, patients=True)(withdraw)
    command(app, "withdrawals", example="asdeg withdrawals --site site_a")(withdrawals)


def withdraw(
    session: Session,
    patient_id: Annotated[str, typer.Argument(help="The patient's pseudonym, or with the site's key its own id.")],
    site: Annotated[str, typer.Option(help="The site that takes the case back.")],
    reason: Annotated[str, typer.Option(help="For the record; no patient's name in it.")],
) -> None:
    """Take a case back: nothing of it counts from now on. Older views stay as they were; ingest brings it back."""
    house = session.house()
    patient = house.pseudonym(site, patient_id)
    status = house.ingest.withdraw_patient(site, patient, reason, getpass.getuser())
    record(house, "asdeg withdraw", site, status.case_id)
    session.result(
        status.model_dump(),
        f"Case {status.case_id} is withdrawn.",
        "`asdeg withdrawals` says which scores, cohorts and runs had used it.",
    )


def withdrawals(session: Session, site: Annotated[str | None, typer.Option(help="Only this site's.")] = None) -> None:
    """List cases withdrawn, corrected after use, or erased, with the scores, cohorts, runs, signatures and nets that
    had used them."""
    from feature_store.touched import touched

    rows = [vars(found) for found in touched(session.house().store.snapshot(), site)]
    session.table(
        "Withdrawn, corrected, erased",
        ("change", "site", "case_id", "reason", "changed_at", "scores", "cohorts", "runs", "signatures", "nets"),
        rows,
    )
