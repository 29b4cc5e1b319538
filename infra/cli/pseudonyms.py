"""Patient ids behind a site's key: ``pseudonym``, ``keys pseudonym``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from feature_store.errors import UsageError
from infra.cli.command import command
from infra.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    example = "asdeg pseudonym - --pseudonym-key-file site_a.key"
    command(app, "pseudonym", example=example, patients=True)(pseudonym)


def pseudonym(
    session: Session,
    patient_id: Annotated[str, typer.Argument(help="The hospital's own id; - reads ids from stdin, one a line.")],
    site: Annotated[str, typer.Option(help="Whose key, where the keys of several sites are configured.")] = "",
) -> None:
    """Say what the store knows a patient by: what applications ask with. No store is needed, and nothing is kept.

    With - the id does not get into the shell's history.
    """
    from infra.bootstrap import site_keys
    from services.ingest.deidentification import pseudonym as tokens

    key = site_keys(session.settings).of(site)
    if key is None:
        raise UsageError(
            "No pseudonym key is configured.", action="Name it: --pseudonym-key-file FILE or ASDEG_PSEUDONYM_KEY_FILE."
        )
    ids = [line for line in sys.stdin.read().splitlines() if line.strip()] if patient_id == "-" else [patient_id]
    found = [tokens.pseudonym(key, one) for one in ids]
    session.result({"pseudonyms": found}, *found)


def new_key(session: Session, file: Annotated[Path, typer.Argument(help="A new file, outside the store.")]) -> None:
    """Make a site's pseudonym key: a file that only you may read.

    Keep a copy in a safe place: without it nobody finds a patient again, and another key makes other pseudonyms.
    """
    from services.ingest.deidentification.site_key import new_key_file

    new_key_file(file, session.settings.store)
    session.result({"file": str(file)}, f"{file} is made. Keep a copy in a safe place, never beside the store.")


def stored_as(session: Session, site: str, patient_id: str) -> str:
    """What the store knows a site's patient by, where no store has to be open. Raises UsageError, SettingsError."""
    from infra.bootstrap import site_keys
    from services.ingest.deidentification.pseudonym import pseudonymous

    return pseudonymous(site_keys(session.settings), site, patient_id)
