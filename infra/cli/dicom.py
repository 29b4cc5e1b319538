"""The DICOM door by itself: ``dicom listen``, ``dicom staged``."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli.command import command
from infra.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    dicom = typer.Typer(
        help="Studies as PACS send them.\n\nExample: asdeg dicom listen --port 11112", no_args_is_help=True
    )
    app.add_typer(dicom, name="dicom")
    command(dicom, "listen", example="asdeg dicom listen --port 11112")(listen)
    command(dicom, "staged", example="asdeg dicom staged --site hospital_a")(staged)


def listen(
    session: Session,
    host: Annotated[str | None, typer.Option(help="Interface to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.  [default: 11112]")] = None,
) -> None:
    """Take studies by C-STORE and make cases of them, until Ctrl-C; `asdeg serve` does so with ASDEG_DICOM_PORT."""
    import signal
    import threading

    from infra.dicom_process import DEFAULT_PORT
    from infra.dicom_process import listen as take

    settings = session.settings.but(host=host, dicom_port=port)
    house = Session(settings, session.as_json).house(create=True)
    chosen = settings.dicom_port if settings.dicom_port is not None else DEFAULT_PORT
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    sites = [site.name for site in house.dicom.sites.sites.values() if site.ae_titles]
    session.result(
        {"host": settings.host, "port": chosen, "sites": sites, "store": house.store.uri},
        f"Listening on {settings.host}:{chosen} for {', '.join(sites) or 'nobody (set ASDEG_DICOM_SITES)'}",
        "Ctrl-C stops.",
    )
    take(house, settings.host, chosen, stopped)


def staged(session: Session, site: Annotated[str, typer.Option(help="Whose cases.")]) -> None:
    """List the cases of which instances are staged."""
    rows = [
        {"case_id": case, "instances": instances, "assembled": done}
        for case, instances, done in session.house().dicom.assembler.staged(site)
    ]
    session.table("Staged", ("case_id", "instances", "assembled"), rows)
