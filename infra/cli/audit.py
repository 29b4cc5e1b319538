"""``asdeg audit …``: who did what to which case, and whether the log of it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.command import command
from infra.cli.session import Session

if TYPE_CHECKING:
    from feature_store.audit import AuditLog


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    audit = typer.Typer(
        help="The append-only log of who did what to which case.\n\nExample: asdeg audit verify", no_args_is_help=True
    )
    app.add_typer(audit, name="audit")
    command(audit, "list", example="asdeg audit list --site site_a --newest 20")(entries)
    command(audit, "verify", example="asdeg audit verify")(verify)


def entries(
    session: Session,
    site: Annotated[str | None, typer.Option(help="Only what was about this site's cases.")] = None,
    patient: Annotated[str | None, typer.Option(help="Only what was about this pseudonym.")] = None,
    newest: Annotated[int, typer.Option(min=1, help="So many rows, the newest ones.")] = 100,
) -> None:
    """List what was done, oldest first: who (and of which site), what, to which case, when, and how it ended."""
    found = _log(session).entries(site=site, patient_id=patient, newest=newest)
    columns = ("number", "at", "name", "role", "action", "site", "patient_id", "case_id", "outcome", "forgotten")
    session.table("Audit log", columns, [vars(entry) for entry in found])


def verify(
    session: Session,
    head: Annotated[str | None, typer.Option(help="NUMBER:HASH as an earlier verify said it.")] = None,
) -> None:
    """Look whether a row was changed, removed or put in; with an earlier head, also whether the end was cut off."""
    from feature_store.audit import Head

    last = _log(session).verify(None if head is None else Head.parse(head))
    session.result(
        {"rows": last.number, "head": str(last)},
        f"{last.number} rows, each in its place and as it was written.",
        f"head: {last}",
        "Keep the head elsewhere: `asdeg audit verify --head …` then shows that nothing was cut off.",
    )


def _log(session: Session) -> AuditLog:
    from feature_store.audit import AuditLog

    return AuditLog(session.house().control)
