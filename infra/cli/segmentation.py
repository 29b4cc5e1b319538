"""Segmentation by 3D U-Nets: ``segment``, ``segmenters``, ``segmenter train``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from feature_store.errors import SettingsError, UsageError
from feature_store.vocabulary import PHANTOM_NOTICE, is_phantom
from infra.cli.case_sources import LabelMapOption, SessionOption, find_cases
from infra.cli.command import command
from infra.cli.session import Session

if TYPE_CHECKING:
    from feature_store.store import FeatureStore
    from pipelines.segmentation.training import TrainedSegmenter

TRAIN_EXAMPLE = "asdeg segmenter train --sequence ct --structures vertebral_body"
TABLE = ("segmenter", "sequence", "origin", "patients", "held_out", "dice", "surface_mm", "hausdorff95_mm", "classes")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "segment", example="asdeg segment ct.nii.gz --out ct_mask.nii.gz")(segment)
    command(app, "segmenters", example="asdeg segmenters --sequence ct")(segmenters)
    group = typer.Typer(help=f"Train 3D U-Nets that draw masks.\n\nExample: {TRAIN_EXAMPLE}", no_args_is_help=True)
    app.add_typer(group, name="segmenter")
    command(group, "train", example=TRAIN_EXAMPLE)(train)


def segment(
    session: Session,
    image: Annotated[Path, typer.Argument(help="Any format SimpleITK reads, or a DICOM folder.")],
    out: Annotated[Path, typer.Option(help="Label map: .nii.gz, .nii, .nrrd or .mha; replaced if it exists.")],
    sequence: Annotated[str, typer.Option(help="What the image is.")] = "ct",
    segmenter: Annotated[str | None, typer.Option(help="Its id.  [default: the newest of the sequence]")] = None,
) -> None:
    """Draw the mask of an image with a trained U-Net of the store, on exactly the image's grid.

    `asdeg radiomics IMAGE MASK` takes it as it is. What each number means stands beside it in a .labels.yaml file,
    which case.yaml takes as `labels: FILE`.
    """
    from pipelines.imaging.images import read_image
    from pipelines.segmentation.label_file import check_out, labels_beside, write_label_map, write_label_names
    from pipelines.segmentation.registry import ON_PHANTOMS, find_segmenter, load_segmenter

    check_out(out)
    store = session.house().store
    row = find_segmenter(store, sequence, segmenter)
    series = read_image(image)
    found = load_segmenter(store, row).segment(series, image.name)
    write_label_map(found, out)
    write_label_names(row["segmenter"], row["sequence"], row["classes"], labels_beside(out))
    labels = _counts(found, row["classes"])
    if row["origin"] == ON_PHANTOMS:
        session.note("This U-Net was trained on phantoms; what it draws on a patient's image means nothing.")
    elif row["dice"] is None:
        session.note("This U-Net was never judged on patients it had not seen; look at every mask.")
    if session.as_json:
        session.json({"out": str(out), "segmenter": row["segmenter"], "held_out_dice": row["dice"], "labels": labels})
    else:
        session.table(f"{out.name}, drawn by {row['segmenter']}", ("label", "class", "voxels"), labels)


def segmenters(
    session: Session, sequence: Annotated[str | None, typer.Option(help="Only those for this sequence.")] = None
) -> None:
    """List the trained U-Nets: what each was trained on, and how it did on patients held out."""
    import json

    from pipelines.segmentation.registry import segmenters as registered

    rows = []
    for row in registered(session.house().store, sequence):
        metrics = json.loads(row["metrics"]) if row["metrics"] else {}
        row["patients"], row["held_out"] = len(row["patients_seen"]), len(row["patients_held_out"])
        row |= {figure: metrics.get(figure) for figure in ("surface_mm", "hausdorff95_mm")}
        rows.append({**row, "metrics": metrics or None, "settings": json.loads(row["settings"])})
    session.table("Segmenters", TABLE, rows)


def train(
    session: Session,
    sequence: Annotated[str, typer.Option(help="Which images to learn.")] = "ct",
    structures: Annotated[str | None, typer.Option(help="With commas.  [default: all that are drawn]")] = None,
    levels: Annotated[
        Literal["each", "all", "every"],
        typer.Option(help="Lumbar levels apart; one class a structure; or whatever levels are drawn."),
    ] = "each",
    cases: Annotated[
        Path | None, typer.Option(help="Case folders or a BIDS data set.  [default: the store's cases]")
    ] = None,
    site: Annotated[str, typer.Option(help="BIDS: the site the cases are of.")] = "site",
    label_map: LabelMapOption = None,
    bids_session: SessionOption = None,
    settings: Annotated[Path | None, typer.Option(help="YAML with the recipe's keys to change.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.  [default: 20000]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides who is held out and all draws.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for checkpoint and curve.  [default: ./segmenter-SEQUENCE]")
    ] = None,
    test_patients: Annotated[
        bool, typer.Option("--test-patients", help="Also learn from patients a cohort keeps for judging.")
    ] = False,
) -> None:
    """Train a 3D U-Net on cases with masks that people drew, judge it on patients held out, and register it.

    The same command again goes on where it was stopped. A U-Net for patients needs many patients' masks.
    """
    import shutil

    from models.segmentation.recipe import default_recipe
    from pipelines.segmentation.drawn import choose_classes, drawn_cases, store_of_readings
    from pipelines.segmentation.training import train_segmenter

    house = session.house(create=cases is not None)
    work = work or Path(f"segmenter-{sequence}")
    source = house.store
    if cases is not None:
        found = find_cases(session, cases, site, label_map, bids_session)
        source = store_of_readings((case.read() for case in found), work / "cases")
    drawn = drawn_cases(source, sequence, with_test_patients=test_patients)
    classes = choose_classes(drawn, levels, structures.split(",") if structures else None)
    given = {"steps": steps, "seed": seed}
    changes = _changes(settings) | {name: value for name, value in given.items() if value is not None}
    recipe = default_recipe(sequence, classes, **changes)
    with session.progress("train") as progress:
        done = train_segmenter(house.store, recipe, drawn, work, source=source, progress=progress)
    if cases is not None:
        shutil.rmtree(work / "cases", ignore_errors=True)  # copies of patients' images; a killed run keeps its own
    phantom = any(is_phantom(patient.rpartition("/")[2]) for patient in done.patients_seen)
    lines = [*([PHANTOM_NOTICE] if phantom else []), *_lines(done, work)]
    session.result({**vars(done), "work": str(work), "phantom": phantom}, *lines)


def draw_missing(session: Session, store: FeatureStore, sites: Sequence[str] | None) -> None:
    """Masks for the store's series that have none; says what was drawn, and what was not and why."""
    from pipelines.segmentation.missing import segment_missing

    with session.progress("segment") as progress:
        report = segment_missing(store, sites=sites or None, progress=progress)
    for segmenter, count in report.drawn.items():
        session.note(f"{count} series without a mask were drawn by {segmenter}; `rois.segmenter` says which.")
    for sequence, count in report.without.items():
        session.note(f"{count} {sequence} series have no mask, and no U-Net of the store is fit to draw it.")
    for reason, count in report.failed.items():
        session.note(f"{count} series could not be segmented: {reason}")


def _lines(done: TrainedSegmenter, work: Path) -> list[str]:
    lines = [f"{done.segmenter}: trained on {len(done.patients_seen)} patients."]
    lines += [f"left out, {count} cases: {reason}" for reason, count in done.left_out.items()]
    if done.metrics is None:
        lines.append("Nobody was held out, so nothing is known of how it does on other patients.")
    else:
        lines.append(f"On {len(done.patients_held_out)} patients held out: {_figures(done.metrics)}")
        lines += [f"  {name}: {_figures(one)}" for name, one in done.metrics["classes"].items()]
    return [*lines, f"Learning curve: {work / 'curve.json'}", f"Next: asdeg segment IMAGE --segmenter {done.segmenter}"]


def _figures(metrics: dict[str, Any]) -> str:
    names = {"dice": "Dice", "surface_mm": "mean surface distance mm", "hausdorff95_mm": "Hausdorff 95 mm"}
    figures = ((name, metrics[key]) for key, name in names.items())
    counts = [f"{metrics[key]} {key}" for key in ("missed", "unexpected") if metrics.get(key)]
    return ", ".join([f"{name} {'–' if value is None else f'{value:.3f}'}" for name, value in figures] + counts)


def _changes(settings: Path | None) -> dict[str, Any]:
    from pipelines.cases.strict_yaml import read_strict_yaml

    if settings is None:
        return {}
    if not settings.is_file():
        raise UsageError(f"{settings} is no file.", action="Give a YAML file with keys of the recipe.")
    changes = read_strict_yaml(settings, SettingsError, settings.name)
    if fixed := sorted({"sequence", "classes"} & set(changes)):
        raise SettingsError(
            f"{', '.join(fixed)} cannot be set in the file.",
            action="Use --sequence, --structures and --levels.",
            file=settings.name,
        )
    return changes


def _counts(found: Any, classes: list[str]) -> list[dict[str, Any]]:
    import numpy as np
    import SimpleITK as sitk

    voxels = np.bincount(sitk.GetArrayViewFromImage(found).ravel(), minlength=len(classes) + 1)
    return [{"label": n, "class": name, "voxels": int(voxels[n])} for n, name in enumerate(classes, start=1)]
