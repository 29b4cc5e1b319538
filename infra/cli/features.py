"""Features from images: ``extract`` for the store, ``radiomics`` for two files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from feature_store.errors import ExtractionError, UsageError
from infra.cli.command import command
from infra.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "extract", example="asdeg extract")(extract)
    command(app, "radiomics", example="asdeg radiomics ct.nii.gz ct_mask.nii.gz --labels 27,28 --out ct.csv")(radiomics)


def extract(
    session: Session,
    feature_set: Annotated[
        str | None,
        typer.Option(
            help="A name, a YAML or JSON file, or study-log and the like: by CT and MR.  [default: the study's]"
        ),
    ] = None,
    encoder: Annotated[str, typer.Option(help="vit_small, vit_base, an encoder's id, or none.")] = "vit_small",
    rois: Annotated[Literal["all", "every"], typer.Option(help="Unions only, or every label as well.")] = "all",
    site: Annotated[list[str] | None, typer.Option(help="Only this site's cases; may be repeated.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    include_failed_quality: Annotated[
        bool, typer.Option("--include-failed-quality", help="Extract what quality control failed, too.")
    ] = False,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster.  [default: in-process]")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU cores to use.  [default: all]")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs to use; 0: embeddings on CPUs.  [default: all]")] = None,
    roi_time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="A step of one ROI is given up after so long.  [default: 900]"),
    ] = None,
    no_segment: Annotated[bool, typer.Option("--no-segment", help="Leave series without a mask as they are.")] = False,
) -> None:
    """Compute the radiomics and embeddings that the store lacks. What is there already is left out.

    Regions that quality control failed are recorded with the reason and have no features.
    An ROI that hangs or crashes is tried once more by itself, then recorded with its reason; the others go on.
    A run that was stopped goes on where it was. A series without a mask gets one first where a trained U-Net for
    its sequence did well enough on patients held out (`asdeg segmenters`).
    """
    from pipelines.extraction.limits import RoiLimits
    from pipelines.extraction.plan import ExtractionSettings
    from pipelines.extraction.run import extract as run

    chosen = session.settings.but(num_cpus=cpus, num_gpus=gpus, roi_time_limit=roi_time_limit)
    house = session.house()
    if not no_segment:
        from infra.cli.segmentation import draw_missing

        draw_missing(session, house.store, site)
    settings = ExtractionSettings(
        feature_set=feature_set,
        encoder=None if encoder == "none" else encoder,
        rois=rois,
        sites=tuple(site) if site else None,
        retry_failed=retry_failed,
        include_failed_quality=include_failed_quality,
        cpus=chosen.num_cpus,
        gpus=chosen.num_gpus,
        limits=RoiLimits(seconds=chosen.roi_time_limit, memory_gib=chosen.roi_memory_gb),
        ray_address=ray_address or session.settings.ray_address or None,
    )
    with session.progress("extract") as progress:
        report = run(
            house.store,
            settings,
            house.control,
            lambda done, total: progress(f"{done} of {total} ROIs", done / total if total else 1.0),
        )
    errors = ", ".join(f"{code} {count}" for code, count in report.errors.items())
    session.result(
        vars(report),
        f"{report.done} ROIs extracted, {report.left_out} were there already, {report.failed} failed.",
        *([f"Failures: {errors}"] if errors else []),
        *([f"Tried once more alone, after their worker was lost: {report.alone}"] if report.alone else []),
        f"Cases: {', '.join(f'{count} {state}' for state, count in report.cases.items()) or 'none'}",
        *(
            [f"Seconds a worker spent: {_by_stage(report.stage_totals)}; {report.seconds:.1f} s in all"]
            if report.stage_totals
            else []
        ),
    )
    if report.failed:
        raise ExtractionError(
            f"{report.failed} ROIs have no features.", action="`asdeg cases` lists the reasons of each case."
        )


def _by_stage(seconds: dict[str, float]) -> str:
    return ", ".join(f"{stage} {total:.1f}" for stage, total in seconds.items())


def radiomics(
    session: Session,
    image: Annotated[Path, typer.Argument(help="Any format SimpleITK reads, or a DICOM folder.")],
    mask: Annotated[Path, typer.Argument(help="Label map on the image's grid.")],
    out: Annotated[Path, typer.Option(help=".csv or .parquet; replaced if it exists.")],
    labels: Annotated[str | None, typer.Option(help="Numbers with commas.  [default: every label there is]")] = None,
    feature_set: Annotated[
        str, typer.Option(help="A name (see feature-sets), or a YAML or JSON file.")
    ] = "pyradiomics-default",
    label_map: Annotated[str | None, typer.Option(help="A shipped map's name or a FILE.yaml: adds columns.")] = None,
) -> None:
    """Radiomics of two files, without a store: one row a label, column `label`, PyRadiomics' names.

    With --label-map the rows are the labels it has a structure for, with columns `structure`, `level` and `side`.
    """
    from pipelines.cases.label_map import named_label_map
    from pipelines.extraction.limits import RoiLimits
    from pipelines.radiomics.table import radiomics_table, write_table

    names = None if label_map is None else named_label_map(label_map)
    wanted = None
    if labels is not None:
        try:
            wanted = [int(part) for part in labels.split(",")]
        except ValueError:
            raise UsageError("--labels are whole numbers with commas.", action="Write --labels 27,28.") from None
    limits = RoiLimits(memory_gib=session.settings.roi_memory_gb)
    table = radiomics_table(image, mask, wanted, feature_set, names, limits.memory_held)
    write_table(table, out)
    features = len(table.columns) - (1 if names is None else 4)
    session.result(
        {"out": str(out), "rows": len(table), "features": features},
        f"{len(table)} labels, {features} features: {out}",
    )
