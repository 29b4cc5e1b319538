"""``asdeg store …``: look into the store and care for it; and ``asdeg doctor``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feature_store.errors import AsdegError, NotReady, StoreError, UsageError
from infra.cli import erasure
from infra.cli.command import command
from infra.cli.session import Session

if TYPE_CHECKING:
    from feature_store.store import FeatureStore

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

AsOf = Annotated[
    str | None,
    typer.Option(metavar="PUSH|TIME", help="A push's number, or a time: 2026-01-31T12:00:00+00:00.  [default: newest]"),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    store = typer.Typer(
        help='Look into the store, and care for it.\n\nExample: asdeg store sql "select * from cases"',
        no_args_is_help=True,
    )
    app.add_typer(store, name="store")
    example = (
        'asdeg store sql "select site, count(*) as cases from cases group by site" --as-of 2026-01-31T12:00:00+00:00'
    )
    command(store, "sql", example=example)(sql)
    example = "asdeg store explain p001 ct.vertebral_body.all.original_shape_MeshVolume --site site_a"
    command(store, "explain", example=example, patients=True)(explain)
    command(store, "check", example="asdeg store check --blobs, and every night: asdeg store check --since-last")(check)
    command(store, "optimize", example="asdeg store optimize")(optimize)
    command(store, "backup", example="asdeg store backup /backups/asdeg")(backup)
    command(store, "restore", example="asdeg store restore /backups/asdeg --store ./asdeg-store")(restore)
    command(store, "export", example="asdeg store export study --out study.parquet")(export)
    erasure.register(store)
    command(app, "doctor", example="asdeg doctor")(doctor)


def sql(
    session: Session,
    query: Annotated[str, typer.Argument(help="DuckDB SQL over the store's tables and wide views.")],
    as_of: AsOf = None,
) -> None:
    """Answer a query over the store's tables (latest revisions) and wide views."""
    from feature_store.sql import ask

    found = ask(session.house().store.snapshot(_moment(as_of)), query)
    session.table("Answer", found.column_names, found.to_pylist())


def _moment(as_of: str | None) -> int | datetime | None:
    if as_of is None or as_of.isdecimal():
        return None if as_of is None else int(as_of)
    try:
        return datetime.fromisoformat(as_of)
    except ValueError:
        raise UsageError(
            f"{as_of} is neither a push's number nor a time.", action="Write 12, or 2026-01-31T12:00:00+00:00."
        ) from None


def explain(
    session: Session,
    patient_id: Annotated[str, typer.Argument(help="The patient's pseudonym, or with the site's key its own id.")],
    feature: Annotated[str, typer.Argument(help="Full name: sequence.structure.level.feature.")],
    site: Annotated[str, typer.Option(help="The patient's site.")],
    as_of: AsOf = None,
) -> None:
    """Say where a feature's value came from: image, mask, settings, software, push; and its earlier revisions."""
    from feature_store.lineage import explain

    house = session.house()
    found = explain(house.store.snapshot(_moment(as_of)), site, house.pseudonym(site, patient_id), feature)
    if session.as_json:
        session.json([vars(origin) for origin in found])
        return
    newest = found[0]
    session.result(
        {name: value for name, value in vars(newest).items() if name not in ("region", "image")}
        | {f"region {name}": (newest.region or {}).get(name) for name in ("labels", "levels", "voxel_count")}
        | {f"image {name}": (newest.image or {}).get(name) for name in ("spacing", "scanner_vendor", "scanner_model")}
    )
    if len(found) > 1:
        columns = ("push_sequence", "committed_at", "value", "made_with", "image_hash", "mask_hash")
        session.table("Earlier revisions", columns, [vars(origin) for origin in found[1:]])


def check(
    session: Session,
    blobs: Annotated[bool, typer.Option("--blobs", help="Read every image, mask and artefact as well.")] = False,
    since_last: Annotated[
        bool, typer.Option("--since-last", help="Read only what is new since the last check; of the rest, see below.")
    ] = False,
) -> None:
    """Look whether every promise of the store holds over all its data; nothing is repaired.

    With --since-last what an earlier check found whole is taken over, because files are never changed: of it only
    presence and length of files, presence of blobs, keys and references are looked at. Bits that flipped in a file
    whose length stayed the same are not seen, nor with --blobs an image that changed without a new time of writing.
    Run it every night, and every week the whole check. Without an earlier check it is the whole one."""
    store = session.house().store
    last = store.last_checked() if since_last else None

    def verify(kind: str, name: str) -> None:
        from feature_store.blobs import NAMED_BY_BYTES
        from pipelines.imaging.images import read_canonical

        if kind in NAMED_BY_BYTES:
            store.blobs.read_bytes(kind, name)
        else:
            read_canonical(store.blobs.local_path(kind, name), name)

    found = [vars(promise) for promise in store.check(verify if blobs else None, last)]
    session.table("Promises", ("promise", "table", "looked_at", "taken_over", "broken"), found)
    if since_last:
        at = "" if last is None else f"{datetime.fromtimestamp(last.checked_at, UTC):%Y-%m-%d %H:%M} UTC"
        since = f"push {last.sequence}, checked {at}" if last else "nothing: no check was here before, all was read"
        session.note(f"Taken over from {since}.")
    if broken := sum(bool(row["broken"]) for row in found):
        raise StoreError(f"{broken} promises are broken.", action="Restore a backup, and look at what wrote there.")


def optimize(
    session: Session,
    dead_after_hours: Annotated[float, typer.Option(min=0, help="Give pushes up that hang for so long.")] = 24.0,
    keep_files_hours: Annotated[float, typer.Option(min=1, help="Delete replaced files after so long.")] = 168.0,
) -> None:
    """Fewer files, sorted by patient; what killed writers left goes. Nothing that can be read changes, now or as of
    any earlier push; sites may push and extractions may run meanwhile. One optimises at a time: where another is at it,
    that is said and nothing is done (exit code 0, with --json an empty list)."""
    from feature_store.leases import Leases
    from feature_store.optimize import OptimizeSettings
    from feature_store.optimize_alone import LEASE, optimize_alone

    settings, house = (
        OptimizeSettings(dead_after_hours=dead_after_hours, keep_files_hours=keep_files_hours),
        session.house(),
    )
    with session.progress("optimize") as progress:
        done = optimize_alone(house.store, house.control, settings, progress)
        progress("done", 1.0)
    if done is None:
        who = Leases(house.control).holder(LEASE) or "another process, done by now"
        session.note(f"Nothing was done: this store is being optimised by {who}.")
    session.table(
        "Optimised",
        ("table", "dead_rows", "files_before", "files", "files_deleted"),
        [vars(table) for table in done or ()],
    )


def backup(
    session: Session, place: Annotated[str, typer.Argument(help="A folder or s3:// address; made if it is not there.")]
) -> None:
    """Copy every committed push and every blob to a store elsewhere; again, only what is new. Sites may push meanwhile.

    The copy is a store: any command reads it with --store. The control database (keys, case states, schedules) is
    not in it: copy control.sqlite, or use PostgreSQL's own tools."""
    from feature_store.store import FeatureStore

    _copy(session, "backup", session.house().store, FeatureStore.open(place, create=True))


def restore(session: Session, place: Annotated[str, typer.Argument(help="The backup's address.")]) -> None:
    """Bring a backup back into --store, which must be empty or hold the backup's first pushes."""
    from feature_store.store import FeatureStore

    source = FeatureStore.open(place)
    _copy(session, "restore", source, session.house(create=True).store)


def _copy(session: Session, title: str, source: FeatureStore, target: FeatureStore) -> None:
    from feature_store.backup import backup

    with session.progress(title) as progress:
        report = backup(source, target, progress)
        progress("done", 1.0)
    session.result(
        vars(report),
        f"{report.pushes} pushes and {report.blobs} blobs copied; the copy ends at push {report.sequence}.",
    )


def export(
    session: Session,
    cohort: Annotated[str, typer.Argument(help="Name of a frozen cohort.")],
    out: Annotated[Path, typer.Option(help="One .parquet file; replaced if it exists.")],
    version: Annotated[int | None, typer.Option(help="The cohort's version.  [default: the latest]")] = None,
    feature_set: Annotated[list[str] | None, typer.Option(help="Ids of feature sets and encoders.")] = None,
) -> None:
    """Write a cohort to one Parquet file: a row a patient with partition, outcome, clinical variables and features."""
    from feature_store.cohorts import load_cohort
    from feature_store.retrieval import export_cohort

    if out.suffix != ".parquet":
        raise UsageError("A cohort is exported as Parquet.", action="Give --out a name that ends in .parquet.")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is no folder.", action="Make it, or give --out another one.")
    snapshot = session.house().store.snapshot()
    table = export_cohort(snapshot, cohort, feature_set, version=version)
    table.to_parquet(out, index=False)
    if erased := load_cohort(snapshot, cohort, version).erased:
        session.note(f"{len(erased)} members were erased since it was frozen: this is no longer the table it was.")
    session.result(
        {"out": str(out), "patients": len(table), "columns": len(table.columns)},
        f"{len(table)} patients, {len(table.columns)} columns: {out}",
    )


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
