"""Training and what comes of it: ``select``, ``train``, ``runs``, ``report``, ``releases``, ``release``, …"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from feature_store.vocabulary import PHANTOM_NOTICE
from infra.cli.command import command
from infra.cli.session import Session
from infra.cli.studies import (
    SUMMARY_COLUMNS,
    Bootstraps,
    Harmonise,
    Icc,
    MaxCv,
    MinIcc,
    Pdf,
    RayAddress,
    RobustnessFile,
    Unmeasured,
    UnseenScanner,
    harmonised,
    robustness_settings,
    summary,
    titled,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.cohort_settings import CohortSettings
    from models.study_settings import StudySettings
    from services.training.messages import ReleaseEntry

CohortFile = Annotated[Path | None, typer.Option("--cohort", help="cohort.yaml; without it every labelled patient.")]
Grid = Annotated[Literal["quick", "standard"] | None, typer.Option(help="Grids.  [default: standard]")]
Permutations = Annotated[int | None, typer.Option(min=0, help="Permuted-outcome runs.  [default: 20]")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything that draws.  [default: 0]")]
RunId = Annotated[str, typer.Argument(help="As `asdeg runs` lists it.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the records.")]
Name = Annotated[str, typer.Option("--by", help="Who decides, for the records.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "select", example="asdeg select --cohort cohort.yaml")(select)
    command(app, "train", example="asdeg train --cohort cohort.yaml --grid quick")(train)
    command(app, "runs", example="asdeg runs")(runs)
    command(app, "report", example="asdeg report RUN_ID --out ./report")(report)
    command(app, "release", example="asdeg release RUN_ID --reason 'first release'")(release)
    command(app, "rollback", example="asdeg rollback --kind combined")(rollback)
    command(app, "recall", example="asdeg recall 8f3a1c9b --reason 'trained on a wrong label'")(recall)
    command(app, "releases", example="asdeg releases")(releases)
    command(app, "locked-test", example="asdeg locked-test RUN_ID --reason 'final figures of the paper'")(locked_test)


def select(
    session: Session,
    cohort: CohortFile = None,
    grid: Grid = None,
    seed: Seed = None,
    robustness: RobustnessFile = None,
    min_icc: MinIcc = None,
    icc: Icc = None,
    max_cv: MaxCv = None,
    unmeasured: Unmeasured = None,
    harmonisation: Harmonise = None,
    unseen_scanner: UnseenScanner = None,
) -> None:
    """Fit the selectors of Rad-sign and DL-sign on the cohort's training patients."""
    from services.selection.messages import SelectRequest

    filters = robustness_settings(min_icc, icc, max_cv, unmeasured, anything=robustness is not None)
    study = study_settings(session, grid, None, seed, filters | harmonised(harmonisation, unseen_scanner))
    kept = _kept(session, robustness)
    request = SelectRequest(cohort=cohort_settings(cohort), study=study, robustness=kept)
    handler = session.house().selection
    run_id = handler.begin(request)
    with session.progress("select") as progress:
        status = handler.execute(run_id, progress)
    _note_tuned(session, status.metrics)
    selected = (status.metrics or {}).get("selectors", {})
    lines = [PHANTOM_NOTICE] if (status.metrics or {}).get("phantom") else []
    lines += [f"{kind}: {found['n_features']} features" for kind, found in selected.items()]
    session.result(status.model_dump(), *lines, f"Run: {status.run_id}")


def train(
    session: Session,
    cohort: CohortFile = None,
    selection_run: Annotated[str | None, typer.Option(help="Take over this run's cohort and recipe.")] = None,
    grid: Grid = None,
    permutations: Permutations = None,
    bootstraps: Bootstraps = None,
    seed: Seed = None,
    robustness: RobustnessFile = None,
    min_icc: MinIcc = None,
    icc: Icc = None,
    max_cv: MaxCv = None,
    unmeasured: Unmeasured = None,
    harmonisation: Harmonise = None,
    unseen_scanner: UnseenScanner = None,
    ray_address: RayAddress = None,
) -> None:
    """Train the three signatures and write the report; nothing is released by it."""
    from services.training.messages import TrainRequest

    filters = robustness_settings(min_icc, icc, max_cv, unmeasured, anything=robustness is not None)
    more = harmonised(harmonisation, unseen_scanner) | ({} if bootstraps is None else {"bootstraps": bootstraps})
    study = study_settings(session, grid, permutations, seed, filters | more)
    kept = _kept(session, robustness)
    request = TrainRequest(cohort=cohort_settings(cohort), study=study, selection_run=selection_run, robustness=kept)
    handler = session.but(ray_address=ray_address).house().training
    run_id = handler.begin(request)
    with session.progress("train") as progress:
        status = handler.execute(run_id, progress)
    _note_tuned(session, status.metrics)
    if session.as_json:
        session.json(status)
        return
    metrics = status.metrics or {}
    session.table(titled("Signatures", metrics.get("phantom", False)), SUMMARY_COLUMNS, summary(metrics))
    print(handler.looks(run_id))
    print(f"Run: {status.run_id}")
    print(f"Next: asdeg report {status.run_id} --out ./report; asdeg release {status.run_id}")


def _note_tuned(session: Session, metrics: dict[str, Any] | None) -> None:
    """Say so where an encoder was tuned to outcomes of the cohort's patients."""
    from models.in_sample import sentence

    if tuned := (metrics or {}).get("in_sample"):
        session.note(f"Note: {sentence(tuned)}")


def runs(session: Session) -> None:
    """List selection and training runs; changes since: how often a case it had used was withdrawn, corrected or erased.
    `asdeg withdrawals` names them."""
    from feature_store.touched import touched
    from services.runs import list_runs

    store = session.house().store
    changes = Counter(run_id for change in touched(store.snapshot()) for run_id in change.runs)
    columns = ("run_id", "state", "cohort", "version", "wall_s", "changes_since", "error")
    rows = [{**status.model_dump(), "changes_since": changes[status.run_id]} for status in list_runs(store)]
    session.table("Runs", columns, rows)


def report(
    session: Session,
    run_id: RunId,
    out: Annotated[Path, typer.Option(help="Folder the report is written to; files of it are replaced.")] = Path(
        "report"
    ),
    pdf: Pdf = False,
) -> None:
    """Write a run's report: report.html, metrics.json, predictions.parquet and the figures."""
    handler = session.house().training
    files, looks = handler.write_report_files(run_id, out), handler.looks(run_id)
    if pdf:
        from models.report.pdf import write_pdf

        files.append(write_pdf(out / "report.html"))
    found = {"run_id": run_id, "files": [str(path) for path in files], "looks": looks.n}
    found["looks_by_partition"] = looks.by_partition
    session.result(found, f"Report: {out / 'report.html'}", str(looks))


def release(session: Session, run_id: RunId, reason: Reason = None, by: Name = "command line") -> None:
    """Make a run's signatures the ones that answer."""
    house = session.house()
    _entries(session, house.releases.release(run_id, by=by, reason=reason))
    session.note(str(house.training.looks(run_id)))


def rollback(
    session: Session,
    kind: Annotated[
        Literal["rad", "dl", "combined"] | None, typer.Option(help="Only this kind.  [default: all]")
    ] = None,
    reason: Reason = None,
    by: Name = "command line",
) -> None:
    """Go back to the signatures that were current before."""
    _entries(session, session.house().releases.rollback(kind, by=by, reason=reason))


def recall(
    session: Session,
    signature: Annotated[str, typer.Argument(help="Its content hash, or the first 8 digits or more.")],
    reason: Reason = None,
    by: Name = "command line",
) -> None:
    """Take a signature out for ever; the one before it answers again."""
    _entries(session, session.house().releases.recall(signature, by=by, reason=reason))


def releases(session: Session) -> None:
    """List the history of releases; `current` marks what answers now."""
    _entries(session, session.house().releases.entries())


def locked_test(
    session: Session,
    run_id: Annotated[str | None, typer.Argument(help="Whose signatures are asked; without it earlier looks.")] = None,
    reason: Reason = None,
    by: Name = "command line",
) -> None:
    """Look at the patients who were set aside: once, at the very end.

    Every look is recorded with its figures, who looked and why, and counted: the next one is worth less.
    """
    house = session.house()
    looks = (
        house.locked_test.looks() if run_id is None else [house.locked_test.look(run_id, by=by, reason=reason or "")]
    )
    if session.as_json:
        session.json([look.model_dump(mode="json") for look in looks])
        return
    figures = ("n", "events", "auc", "sensitivity", "specificity", "brier", "calibration_slope")
    rows = [
        {**look.model_dump(), "signature": kind, **{name: measured[name] for name in figures}}
        for look in looks
        for kind, measured in look.figures.items()
    ]
    title = titled("Looks at the locked patients", any(look.phantom for look in looks))
    session.table(title, ("look", "run_id", "signature", *figures, "looked_by", "reason"), rows)


def _entries(session: Session, entries: Sequence[ReleaseEntry]) -> None:
    columns = ("kind", "action", "signature", "run_id", "released_by", "reason", "current")
    rows = [entry.model_dump() for entry in entries]
    if not session.as_json:
        for row in rows:
            row["signature"] = (row["signature"] or "")[:16]
    session.table("Releases", columns, rows)


def study_settings(
    session: Session, grid: str | None, permutations: int | None, seed: int | None, filters: dict[str, Any]
) -> StudySettings:
    """The study's settings as the command line has them."""
    from models.study_settings import StudySettings

    chosen = session.settings.but(grid=grid, permutations=permutations, seed=seed)
    return StudySettings(seed=chosen.seed, grid=chosen.grid, permutations=chosen.permutations, **filters)


def _kept(session: Session, robustness: Path | None) -> str | None:
    """The robustness table among the store's artefacts, where the run's settings name it; its hash."""
    if robustness is None:
        return None
    from models.selection.robustness import read_robustness
    from services.study_inputs import keep_table

    return keep_table(session.house().store, read_robustness(robustness))


def cohort_settings(path: Path | None) -> CohortSettings:
    """Of cohort.yaml; without a file, every labelled patient. Raises SettingsError."""
    from feature_store.cohort_settings import CohortSettings

    return CohortSettings(name="default") if path is None else CohortSettings.load(path)
