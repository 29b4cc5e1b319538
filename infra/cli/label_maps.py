"""The label maps that come with the software: ``label-maps``."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli.command import command
from infra.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    command(app, "label-maps", example="asdeg label-maps totalsegmentator-ct")(label_maps)


def label_maps(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="Print this one; as YAML, ready to copy and change.")] = None,
) -> None:
    """List the shipped label maps, or print one: what the numbers of a segmentation tool stand for.

    `labels: NAME` in case.yaml reads a mask with it; `labels: FILE.yaml` takes a file of yours in the case folder.
    """
    from pipelines.cases.label_map import SHIPPED, shipped_label_map, shipped_names

    if name is None:
        rows = [_row(shipped) for shipped in shipped_names()]
        session.table("Label maps", ("name", "labels", "left_alone", "structures", "levels"), rows)
    elif session.as_json:
        session.json(shipped_label_map(name))
    else:
        shipped_label_map(name)  # a wrong name is a named failure
        print((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"), end="")


def _row(name: str) -> dict[str, object]:
    from pipelines.cases.label_map import shipped_label_map

    found = shipped_label_map(name)
    return {
        "name": found.name,
        "id": found.id,
        "labels": len(found.labels),
        "left_alone": len(found.also),
        "structures": sorted({label.structure for label in found.labels.values()}),
        "levels": "yes" if found.tells_levels else "unknown",
        "note": found.note,
    }
