"""``asdeg store sql`` and ``asdeg doctor``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from feature_store.errors import AsdegError, NotReady
from infra.cli.command import command
from infra.cli.session import Session

NEEDED = (
    "ray",
    "deltalake",
    "duckdb",
    "pyarrow",
    "SimpleITK",
    "pyradiomics",
    "torch",
    "monai",
    "scikit-learn",
    "bentoml",
)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    store = typer.Typer(
        help='Look into the store.\n\nExample: asdeg store sql "select * from cases"', no_args_is_help=True
    )
    app.add_typer(store, name="store")
    example = 'asdeg store sql "select site, count(*) as cases from cases group by site"'
    command(store, "sql", example=example)(sql)
    command(app, "doctor", example="asdeg doctor")(doctor)


def sql(
    session: Session,
    query: Annotated[str, typer.Argument(help="DuckDB SQL over the store's tables and wide views.")],
    as_of: Annotated[int | None, typer.Option(help="Push sequence to look at.  [default: newest]")] = None,
) -> None:
    """Answer a query over the store's tables (latest revisions) and wide views."""
    found = session.house().store.snapshot(as_of).sql(query)
    session.table("Answer", found.column_names, found.to_pylist())


def doctor(session: Session) -> None:
    """Check versions, PyRadiomics' compiled part, Ray and the store."""
    checks = [_package(name) for name in NEEDED]
    checks += [_checked("pyradiomics' compiled part", _compiled), _checked("ray starts", lambda: _ray(session))]
    checks += [_checked("store", lambda: _store(session))]
    session.table("Doctor", ("what", "ok", "found"), checks)
    bad = [check["what"] for check in checks if not check["ok"]]
    if bad:
        raise NotReady(f"Not in order: {', '.join(bad)}.", action="`make env` installs the pinned versions.")


def _package(name: str) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        found = version(name)
    except PackageNotFoundError:
        return {"what": name, "ok": False, "found": "not installed"}
    pinned = [line for line in requires("asdeg") or [] if line.startswith((f"{name}==", f"{name}[")) and "==" in line]
    pins = [line.split("==")[1].split(";")[0].strip() for line in pinned]
    wrong = [pin for pin in pins if found.split("+")[0] != pin]
    return {"what": name, "ok": not wrong, "found": found + (f" (pinned: {wrong[0]})" if wrong else "")}


def _checked(what: str, look: Any) -> dict[str, Any]:
    try:
        return {"what": what, "ok": True, "found": look()}
    except AsdegError as error:
        return {"what": what, "ok": False, "found": error.line()}
    except Exception as error:
        return {"what": what, "ok": False, "found": type(error).__name__}


def _compiled() -> str:
    from radiomics import cMatrices, cShape

    return f"{cMatrices.__name__}, {cShape.__name__}"


def _ray(session: Session) -> str:
    import ray

    from infra.serve import start_ray

    started = start_ray(session.settings)
    resources = ray.cluster_resources()
    if started:
        ray.shutdown()
    return f"{resources.get('CPU', 0):.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs"


def _store(session: Session) -> str:
    from feature_store.errors import StoreNotFound

    try:
        snapshot = session.house().store.snapshot()
    except StoreNotFound:
        return "none yet at this address (it is made by the first ingest)"
    return f"{snapshot.sequence} pushes, {len(snapshot.table('cases', columns=['case_id']))} cases"
