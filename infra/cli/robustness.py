"""``asdeg robustness``: which features come out the same when the region is drawn again, or changed a little."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from feature_store.errors import ExtractionError, NotReady, UsageError
from feature_store.vocabulary import is_phantom
from infra.cli.command import command
from infra.cli.session import Session
from infra.cli.studies import titled

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from infra.cli.session import Progress
    from pipelines.radiomics.perturbation import PerturbationSettings
    from pipelines.robustness.plan import RobustnessScope
    from pipelines.robustness.table import Measured
    from pipelines.robustness.versions import RoiValues

FEW = 5
"""Fewer subjects: intervals so wide that the filter does not judge by them."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "robustness", example="asdeg robustness --cohort default --patients 30 --out robustness.parquet")(
        robustness
    )


def robustness(
    session: Session,
    out: Annotated[Path, typer.Option(help=".csv or .parquet, one row a feature and kind; replaced if it exists.")],
    image: Annotated[Path | None, typer.Argument(help="Without a store: an image, and its mask after it.")] = None,
    mask: Annotated[Path | None, typer.Argument(help="Label map on the image's grid; labels are subjects.")] = None,
    labels: Annotated[str | None, typer.Option(help="Of the mask, with commas.  [default: all]")] = None,
    kind: Annotated[
        Literal["readers", "perturbation", "both"], typer.Option(help="Repeated segmentations, small changes, or both.")
    ] = "both",
    cohort: Annotated[str | None, typer.Option(help="Its training patients.  [default: all but test patients]")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Only this site; may be repeated.")] = None,
    sequence: Annotated[list[str] | None, typer.Option(help="Only this sequence; may be repeated.")] = None,
    patients: Annotated[int, typer.Option(min=2, help="Patients to change images of, drawn by the seed.")] = 30,
    segmentation: Annotated[list[str] | None, typer.Option(help="Readers to compare; may be repeated.")] = None,
    feature_set: Annotated[str | None, typer.Option(help="As of extract, or of radiomics for two files.")] = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Changed versions of each ROI.")] = 10,
    translation: Annotated[float, typer.Option(min=0, max=1.5, help="Most an image is moved, in voxels.")] = 0.5,
    growth: Annotated[float, typer.Option(min=0, max=0.9, help="Most a region grows or shrinks, by volume.")] = 0.15,
    contour: Annotated[float, typer.Option(min=0, max=2.5, help="SD by which a contour moves, in mm.")] = 0.5,
    noise: Annotated[float, typer.Option(min=0, help="Noise added, in SDs of the image's own.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of changes and of the patients drawn.")] = 0,
    figure: Annotated[Path | None, typer.Option(help="NAME.png; NAME.svg is written beside it.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster.  [default: in-process]")] = None,
) -> None:
    """Measure how robust each feature is: ICC(2,1), ICC(3,1) and variation within patients.

    `study`, `select` and `train` take the table by --robustness and leave unstable features out. No outcome is read.
    """
    _check_files(out, figure)
    if (image is None) != (mask is None):
        raise UsageError("An image needs its mask.", action="Give both, or neither for the store.")
    from pipelines.radiomics.perturbation import PerturbationSettings

    changes = PerturbationSettings(
        repeats=repeats, seed=seed, translation=translation, growth=growth, contour_mm=contour, noise=noise
    )
    if image is not None and mask is not None:
        from models.selection.robustness import UNKNOWN
        from pipelines.robustness.run import vary_files

        numbers, found = vary_files(image, mask, _labels(labels), feature_set or "pyradiomics-default", changes)
        with session.progress("robustness") as progress:
            measured, stopped = _collected(found, len(numbers), UNKNOWN, progress)
        _finish(session, [measured.table], measured, changes, out, figure, stopped, phantom=False)
        return
    if labels is not None:
        raise UsageError("--labels are of a mask.", action="Give IMAGE and MASK, or leave --labels out.")
    from pipelines.robustness.plan import RobustnessScope

    scope = RobustnessScope(
        cohort=cohort,
        sites=tuple(site) if site else None,
        sequences=tuple(sequence) if sequence else None,
        feature_set=feature_set,
        patients=patients,
        seed=seed,
    )
    _of_store(session, scope, changes, kind, segmentation or [], out, figure, ray_address)


def _of_store(
    session: Session,
    scope: RobustnessScope,
    changes: PerturbationSettings,
    kind: str,
    segmentations: list[str],
    out: Path,
    figure: Path | None,
    ray_address: str | None,
) -> None:
    from pipelines.robustness.plan import plan_robustness, population
    from pipelines.robustness.readers import readers_table
    from pipelines.robustness.run import vary_store

    if not scope.regions():
        raise UsageError("No sequence of the study has that name.", action="Name ct, t1_sag, t2_sag or t2_ax.")
    store = session.house().store
    people = population(store.snapshot(), scope)
    tables: list[pd.DataFrame] = []
    if kind != "perturbation":
        try:
            tables.append(readers_table(people, scope, segmentations))
        except NotReady as error:
            if kind == "readers" or segmentations:
                raise
            session.note(f"Not measured between readers: {error.message}")
    measured, stopped = None, None
    if kind != "readers":
        plan = plan_robustness(people, scope)
        address = ray_address or session.settings.ray_address or None
        found = vary_store(store.uri, plan, changes, session.settings.num_cpus, address)
        with session.progress("robustness") as progress:
            total = sum(len(series.rois) for series in plan)
            measured, stopped = _collected(found, total, people.partitions, progress)
        tables.append(measured.table)
    phantom = any(is_phantom(patient) for _, patient, _ in people.cases)
    _finish(session, tables, measured, changes, out, figure, stopped, phantom=phantom)


def _collected(
    found: Iterator[RoiValues], total: int, partitions: str, progress: Progress
) -> tuple[Measured, BaseException | None]:
    """The table of what was finished, and what stopped the rest, if anything did."""
    from pipelines.robustness.table import perturbation_table

    done: list[RoiValues] = []
    stopped: BaseException | None = None
    progress(f"0 of {total} ROIs", 0.0)
    try:
        for roi in found:
            done.append(roi)
            progress(f"{len(done)} of {total} ROIs", len(done) / total)
    except (KeyboardInterrupt, ExtractionError) as error:
        stopped = error
    return perturbation_table(done, partitions), stopped


def _finish(
    session: Session,
    tables: list[pd.DataFrame],
    measured: Measured | None,
    changes: PerturbationSettings,
    out: Path,
    figure: Path | None,
    stopped: BaseException | None,
    *,
    phantom: bool,
) -> None:
    """Write what there is, say what it is, and pass on what stopped it."""
    import pandas as pd

    from pipelines.radiomics.table import write_table
    from pipelines.robustness.table import SUMMARY_COLUMNS, summary

    there = [table for table in tables if len(table)]
    if not there:
        if stopped is not None:
            raise stopped
        codes = ", ".join(f"{code} {count}" for code, count in (measured.failed if measured else {}).items())
        raise ExtractionError(f"No ROI could be measured ({codes}).", action="Look at the image and mask.")
    table = pd.concat(there, ignore_index=True)
    write_table(table, out)
    if figure is not None:
        from models.report.robustness_figure import robustness_figure

        robustness_figure(table, figure.parent, figure.stem, phantom=phantom)
    rows = summary(table)
    counts: dict[str, Any] = {"rois": 0, "versions": 0, "refused": {}, "failed": {}}
    if measured is not None:
        counts = {name: getattr(measured, name) for name in counts}
    if session.as_json:
        made = {"phantom": phantom, "changes": changes.model_dump()}
        session.json({"out": str(out), "rows": len(table), **counts, **made, "summary": rows})
    else:
        session.table(titled("Share of features that reach an ICC(2,1)", phantom), SUMMARY_COLUMNS, rows)
        if counts["versions"]:
            print(f"{counts['rois']} ROIs, {counts['versions']} changed versions.")
        for name in ("refused", "failed"):
            if counts[name]:
                what = "versions refused" if name == "refused" else "ROIs failed"
                print(f"{what}: {', '.join(f'{code} {count}' for code, count in counts[name].items())}")
        print(f"{len(table)} rows: {out}")
    if table["n_subjects"].max() < FEW:
        session.note(f"Warning: fewer than {FEW} subjects; the filter in front of selection will not judge by this.")
    if stopped is not None:
        session.note("Stopped early; what was finished is in the table.")
        raise stopped


def _check_files(out: Path, figure: Path | None) -> None:
    """Before anything is computed: that it can be written."""
    suffixes = {out: (".csv", ".parquet")} | ({figure: (".png", ".svg")} if figure is not None else {})
    for path, known in suffixes.items():
        if path.suffix not in known:
            raise UsageError(f"{path.name} ends in neither of {', '.join(known)}.", action="Name it otherwise.")
        if not path.parent.is_dir():
            raise UsageError(f"There is no folder for {path.name}.", action="Make it first.")


def _labels(labels: str | None) -> list[int] | None:
    try:
        return None if labels is None else [int(part) for part in labels.split(",")]
    except ValueError:
        raise UsageError("--labels are whole numbers with commas.", action="Write --labels 27,28.") from None
