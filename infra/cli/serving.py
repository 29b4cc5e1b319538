"""The services and who may use them: ``serve``, ``keys``, ``score``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from feature_store.errors import NotFound, UsageError
from infra.cli.command import command
from infra.cli.pseudonyms import new_key
from infra.cli.session import Session

Role = Literal["site", "application", "scientist"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "score", example="asdeg score p001 --site site_a --kind combined", patients=True)(score)
    command(app, "serve", example="asdeg serve --port 8000")(serve)
    keys = typer.Typer(
        help="Keys of sites, applications and scientists.\n\nExample: asdeg keys list", no_args_is_help=True
    )
    app.add_typer(keys, name="keys")
    command(keys, "add", example="asdeg keys add pacs-a --role site --site site_a")(add_key)
    command(keys, "list", example="asdeg keys list")(list_keys)
    command(keys, "remove", example="asdeg keys remove pacs-a")(remove_key)
    command(keys, "pseudonym", example="asdeg keys pseudonym site_a.key")(new_key)


def score(
    session: Session,
    patient_id: Annotated[str, typer.Argument(help="The patient's pseudonym, or with the site's key its own id.")],
    site: Annotated[str, typer.Option(help="The patient's site.")],
    kind: Annotated[Literal["rad", "dl", "combined"], typer.Option(help="Which signature.")] = "combined",
) -> None:
    """Ask a current signature for a patient's risk; the answer is kept, as over HTTP."""
    house = session.house()
    answer = house.scoring.score(kind, site, house.pseudonym(site, patient_id), asked_by="command line")
    house.score_log.flush()
    if session.as_json:
        session.json(answer)
        return
    verdict = "high risk" if answer.high_risk else "not high risk"
    print(f"{answer.probability:.1%} ({verdict} at the threshold of {answer.threshold:.1%})")
    if answer.risk_interval is not None:
        low, high = answer.risk_interval
        print(f"uncertainty of the risk: {low:.1%} to {high:.1%} (95 % of refits on redrawn patients)")
    print(f"signature {answer.kind} {answer.signature[:16]}; answer {answer.score_id}")
    for mover in answer.moved_by:
        print(f"  {mover.effect:+.3f}  {mover.name}")
    print(answer.research_use)


def serve(
    session: Session,
    host: Annotated[str | None, typer.Option(help="Interface to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.  [default: 8000]")] = None,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster.  [default: in-process]")] = None,
) -> None:
    """Start ingest, selection, training and scoring over HTTP, until Ctrl-C."""
    import signal
    import threading

    from infra.dicom import takes_dicom
    from infra.dicom_process import DicomProcess
    from infra.serve import start, stop

    settings = session.settings.but(host=host, port=port, ray_address=ray_address)
    house = Session(settings, session.as_json).house(create=True)
    dicom = None
    if takes_dicom(settings):
        _ = house.dicom.sites  # what is wrong with that file is said now
        dicom = DicomProcess(settings)
    stopped = threading.Event()
    session.note("Starting the services (about 15 seconds) …")
    door = start(settings)
    # After Ray has started: it puts a handler of its own on SIGTERM, which aborts the process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        keys = house.control.credentials()
        hint = 'curl -s -X POST -H "Authorization: Bearer $KEY" -H "Content-Type: application/json"'
        session.result(
            {"url": door.url, "docs": f"{door.url}/docs", "store": house.store.uri, "keys": len(keys)},
            f"Serving {house.store.uri}",
            f"  {door.url}/docs    what can be asked",
            f"  {door.url}/readyz  which signatures answer",
            f'  {hint} -d \'{{"site": "SITE", "patient_id": "PATIENT"}}\' {door.url}/v1/scores/combined',
            *(() if keys else ("No key exists yet. Make one: asdeg keys add my-app --role application",)),
            "Ctrl-C stops.",
        )
        while not stopped.wait(1.0):
            if dicom is not None:
                dicom.keep_alive()
    finally:
        session.note("Stopping …")
        if dicom is not None:
            dicom.stop()
        stop(door)


def add_key(
    session: Session,
    name: Annotated[str, typer.Argument(help="Whose key it is, for the records.")],
    role: Annotated[Role, typer.Option(help="What the key may do.")],
    site: Annotated[str | None, typer.Option(help="Needed for role site; narrows an application.")] = None,
) -> None:
    """Make a key. It is shown once; only its hash is kept."""
    if role == "site" and not site:
        raise UsageError("A key of role site needs its site.", action="Add --site SITE.")
    if role == "scientist" and site:
        raise UsageError("A scientist's key belongs to no site.", action="Leave --site out.")
    key = session.house(create=True).control.add_credential(name, role, site)
    session.result({"name": name, "role": role, "site": site, "key": key}, key)


def remove_key(
    session: Session, name: Annotated[str, typer.Argument(help="Whose key, as `asdeg keys list` has it.")]
) -> None:
    """Take a key away (lost, or seen by others): from now on nobody is let in with it."""
    if not session.house().control.remove_credential(name):
        raise NotFound("There is no key of that name.", action="`asdeg keys list` lists whose keys exist.")
    session.result({"name": name, "removed": True}, f"The key of {name} opens nothing any more.")


def list_keys(session: Session) -> None:
    """List whose keys exist (never the keys)."""
    found = session.house().control.credentials()
    rows = [{"name": entry.name, "role": entry.role, "site": entry.site} for entry in found]
    session.table("Keys", ("name", "role", "site"), rows)
