"""Quality control: ``quality`` lists verdicts and writes the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from feature_store.errors import UsageError
from infra.cli.command import command
from infra.cli.session import Session

if TYPE_CHECKING:
    from services.ingest.messages import QualityVerdict

Pictures = dict[tuple[str, str], bytes]
"""PNG by (sequence, segmentation)."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "quality", example="asdeg quality ./phantoms/site_a/phantom-0001 --overlays ./pictures")(quality)


def quality(
    session: Session,
    case: Annotated[str | None, typer.Argument(help="Case folder, or case id in the store.  [default: all]")] = None,
    site: Annotated[str | None, typer.Option(help="Only this site's.")] = None,
    verdict: Annotated[Literal["pass", "warn", "fail"] | None, typer.Option(help="Only these.")] = None,
    overlays: Annotated[Path | None, typer.Option(help="Write a case's pictures (PNG) into this folder.")] = None,
) -> None:
    """List what quality control says of images and regions, worst first, with the reasons.

    Of a case folder the verdicts are made on the spot, and no store is needed. What failed is not extracted,
    unless `asdeg extract` is told to.
    """
    if case is None and overlays is not None:
        raise UsageError("--overlays is of one case.", action="Name a case folder or a case id.")
    if case is not None and Path(case).is_dir():
        found, pictures = _of_folder(Path(case), overlays is not None)
    else:
        found, pictures = _of_store(session, case, site, overlays is not None)
    written = _write(pictures, overlays) if overlays is not None else []
    rows = [one.model_dump() for one in found if verdict in (None, one.verdict) and site in (None, one.site)]
    if session.as_json:
        session.json({"verdicts": rows, "overlays": written} if overlays is not None else rows)
        return
    shown = [{**row, "region": row["roi"] or "image", "reasons": "\n".join(row["reasons"])} for row in rows]
    columns = ("case_id", "sequence", "segmentation", "region", "verdict", "reasons")
    session.table("Quality", columns if case is None else columns[1:], shown)
    for path in written:
        print(path)


def _of_folder(folder: Path, draw: bool) -> tuple[list[QualityVerdict], Pictures]:
    from pipelines.cases.case import read_case
    from services.ingest.handler import validate_reading
    from services.ingest.quality import verdicts_of

    if not (folder / "case.yaml").is_file():
        raise UsageError(f"{folder} is no case folder.", action="Give a folder with a case.yaml, or a case id.")
    reading = read_case(folder)
    validate_reading(reading)  # raises where nobody can tell whose case it is
    return verdicts_of(reading), reading.overlays if draw else {}


def _of_store(
    session: Session, case: str | None, site: str | None, draw: bool
) -> tuple[list[QualityVerdict], Pictures]:
    stored = session.house().ingest.quality
    if case is None:
        return stored.verdicts(site), {}
    found = stored.verdicts(site, case)
    names = stored.overlays(case)  # raises where the case has no verdicts
    return found, {key: stored.overlay(case, *key) for key in names} if draw else {}


def _write(pictures: Pictures, folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for (sequence, segmentation), picture in sorted(pictures.items()):
        name = sequence if segmentation == "primary" else f"{sequence}-{segmentation}"
        (folder / f"{name}.png").write_bytes(picture)
        paths.append(str(folder / f"{name}.png"))
    return paths
