"""``asdeg store erase`` and ``asdeg store readmit``: a patient goes for good, and may come back by consent."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from feature_store.errors import UsageError
from feature_store.plain_words import plain_reason
from infra.cli.command import command
from infra.cli.pseudonyms import stored_as
from infra.cli.session import Session

if TYPE_CHECKING:
    from feature_store.control import ControlDatabase
    from feature_store.erasure import Door


def register(store: typer.Typer) -> None:
    """Add the commands of this file to ``asdeg store``."""
    example = 'asdeg store erase p001 --site site_a --reason "request of the patient"'
    command(store, "erase", example=example, patients=True)(erase)
    example = 'asdeg store readmit p001 --site site_a --consent "signed anew"'
    command(store, "readmit", example=example, patients=True)(readmit)


def erase(
    session: Session,
    patient_id: Annotated[str, typer.Argument(help="The patient's pseudonym, or with the site's key its own id.")],
    site: Annotated[str, typer.Option(help="The patient's site.")],
    reason: Annotated[str, typer.Option(help="For the record; no patient's name in it.")] = "request",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="What nobody has committed for so long is a killed writer's.")
    ] = 1.0,
) -> None:
    """Erase a patient from every table, version, file and image, from what waits in the inbox and among staged DICOM
    instances, and from what was made of them; it cannot be undone.

    Frozen cohorts lose the patient; cohorts, runs and signatures that had used the patient are named, here and by
    `asdeg withdrawals`. Sites may push meanwhile. Called again it goes on where it was stopped. Later pushes of the
    patient are refused, until `asdeg store readmit`. Backups are erased by making them again, or with --store BACKUP.
    """
    from feature_store.control import Credential
    from feature_store.erasure import EraseSettings, erase_patient
    from feature_store.store import FeatureStore
    from infra.bootstrap import House
    from infra.dicom import StagedPatients

    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("Erasing cannot be undone.", action="Add --yes to do it without being asked.")
        typer.confirm("Erase this patient, for good?", abort=True, err=True)
    store = FeatureStore.open(session.settings.store)
    patient = stored_as(session, site, patient_id)
    by = Credential(getpass.getuser(), "operator", None)
    settings, control = EraseSettings(grace_hours=grace_hours), _control(session)
    doors: list[Door] = [StagedPatients(session.settings)]
    if control is not None:
        doors.append(House(session.settings, store, control).intake)
    with session.progress("erase") as progress:
        done = erase_patient(
            store,
            control,
            site,
            patient,
            reason=plain_reason(reason),
            erased_by=by,
            settings=settings,
            progress=progress,
            doors=doors,
        )
    touched = [
        f"{name}: {', '.join(found)}" for name, found in done.touched.items() if isinstance(found, list) and found
    ]
    lines = [
        f"{sum(done.rows.values())} rows, {sum(done.blobs.values())} images and pictures, {done.files} files are gone.",
        *(f"had used the patient: {line}" for line in touched),
        "Backups hold the patient until they are made again (`asdeg store backup`), or with --store BACKUP. Versions "
        "that a bucket keeps, PostgreSQL's own log and backups, and other machines' caches are beyond reach.",
    ]
    if done.state != "finished":
        when = f" after {done.after:%Y-%m-%d %H:%M} UTC" if done.after else ""
        lines.insert(0, f"Not finished: files of writers that may still be at work are left. Run this again{when}.")
    session.result(vars(done), *lines)


def readmit(
    session: Session,
    patient_id: Annotated[str, typer.Argument(help="The patient's pseudonym, or with the site's key its own id.")],
    site: Annotated[str, typer.Option(help="The patient's site.")],
    consent: Annotated[str, typer.Option(help="What the patient consented to, and when; no name in it.")],
) -> None:
    """Let a patient who was erased be pushed again, by a new consent. What was erased stays erased."""
    from feature_store.erasure import readmit
    from feature_store.store import FeatureStore

    store = FeatureStore.open(session.settings.store)
    patient = stored_as(session, site, patient_id)
    done = readmit(store, site, patient, plain_reason(consent), getpass.getuser())
    session.result({"erasure": done.erasure, "state": done.state}, "The patient may be pushed again.")


def _control(session: Session) -> ControlDatabase | None:
    """The control database; a backup has none, and gets none."""
    from pathlib import Path

    from feature_store.control import ControlDatabase, default_url
    from feature_store.location import Location

    if session.settings.control:
        return ControlDatabase.open(session.settings.control)
    if Location.parse(session.settings.store).folder is None:
        return None
    url = default_url(session.settings.store)
    return ControlDatabase.open(url) if Path(url.removeprefix("sqlite:///")).exists() else None
