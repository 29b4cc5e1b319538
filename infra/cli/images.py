"""What image and mask files hold: ``series`` for a DICOM study, ``labels`` for a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from feature_store.errors import DicomSeriesError, UsageError
from infra.cli.command import command
from infra.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "series", example="asdeg series ./exports/study")(series)
    command(app, "labels", example="asdeg labels ct_mask.dcm --image ./exports/ct")(labels)


def series(session: Session, folder: Annotated[Path, typer.Argument(help="DICOM folder, at any depth.")]) -> None:
    """List the series of a DICOM study, and which one each of ct, t1_sag, t2_sag and t2_ax would be taken from.

    What two series fit equally, or none, is pinned by `series_number` in case.yaml.
    """
    from pipelines.imaging.dicom_study import read_study

    if not folder.exists():
        raise UsageError(f"there is no {folder}.", action="Give the folder of a DICOM study.")
    with session.progress("series") as progress:
        progress("reading headers", 0.0)
        study = read_study(folder, folder.name)
        progress("done", 1.0)
    if not study.candidates:
        raise DicomSeriesError(
            "the folder holds no DICOM image.", action="Give the folder of a DICOM study.", file=folder.name
        )
    taken = study.taken()
    rows: list[dict[str, Any]] = []
    for one in study.candidates:
        first = one.volume.frames[0].plane
        spacing = one.volume.spacing
        rows.append(
            {
                "series_number": one.header.series_number,
                "part": one.volume.part,
                "modality": one.header.modality,
                "plane": one.plane,
                "weighting": one.weighting,
                "slices": len(one.volume.frames),
                "size": [first.columns, first.rows] if first else None,
                "spacing": [round(length, 4) for length in spacing] if spacing else None,
                "sequence": [sequence for sequence, chosen in taken.items() if chosen is one],
                "usable": not one.fault,
                "reason": one.fault,
            }
        )
    shown = ("series_number", "part", "modality", "plane", "weighting", "slices", "size", "spacing", "sequence")
    session.table("Series", (*shown, "usable", "reason"), rows)


def labels(
    session: Session,
    mask: Annotated[Path, typer.Argument(help="Label map, DICOM SEG or RTSTRUCT.")],
    image: Annotated[Path | None, typer.Option(help="What it was drawn on, to count an RTSTRUCT's voxels.")] = None,
) -> None:
    """List the labels of a mask: number, name where the file has one, voxels. Names are shown as they were typed."""
    from pipelines.imaging.images import load_image
    from pipelines.imaging.mask_contents import mask_contents

    found = mask_contents(mask, None, load_image(image) if image else None)
    session.table("Labels", ("label", "name", "voxels"), [
        {"label": one.number, "name": one.name, "voxels": one.voxels} for one in found
    ])  # fmt: skip
