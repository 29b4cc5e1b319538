"""Where the cases of a command come from: case folders, or the subjects of a BIDS data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_store.errors import UsageError
from infra.cli.session import Session

if TYPE_CHECKING:
    from pipelines.cases.bids.masks import MapChoice
    from pipelines.cases.case import CaseReading

LabelMapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label-map",
        metavar="[ENTITY=]NAME",
        help="BIDS: what the masks' numbers mean, a shipped map's name or a FILE.yaml; seg-vert=NAME for the masks "
        "whose name has that entity. May be repeated.",
    ),
]
SessionOption = Annotated[
    str | None, typer.Option("--session", help="BIDS: which session, where a subject has several.")
]


@dataclass(frozen=True)
class CaseSource:
    """One case that can be read: its name for people, how, and its folder where it has one to itself."""

    name: str
    read: Callable[[], CaseReading]
    folder: Path | None = None


def find_cases(
    session: Session, folder: Path, site: str, label_maps: Sequence[str] | None, bids_session: str | None
) -> list[CaseSource]:
    """The cases of a folder: its own, those of the folders in it, a BIDS data set's subjects, or one of them."""
    from pipelines.cases.bids.dataset import find_bids

    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder.", action="Give a case folder (one with a case.yaml).")
    if (folder / "case.yaml").is_file() or (found := find_bids(folder)) is None:
        if label_maps or bids_session:
            raise UsageError(
                "--label-map and --session are for BIDS data sets.", action="Write `labels: NAME` in case.yaml."
            )
        return _case_folders(folder)
    return _subjects(session, *found, site, label_maps or (), bids_session)


def _case_folders(folder: Path) -> list[CaseSource]:
    from pipelines.cases.case import read_case

    inside = [folder] if (folder / "case.yaml").is_file() else sorted(p.parent for p in folder.glob("*/case.yaml"))
    if not inside:
        raise UsageError(
            f"{folder} holds no case folder.",
            action="A case folder is one with a case.yaml, a BIDS data set one with a dataset_description.json.",
        )
    return [CaseSource(found.name, lambda found=found: read_case(found), found) for found in inside]  # type: ignore[misc]


def _subjects(
    session: Session, root: Path, subject: str | None, site: str, label_maps: Sequence[str], bids_session: str | None
) -> list[CaseSource]:
    from pipelines.cases.bids.dataset import open_bids
    from pipelines.cases.bids.subject import BidsChoices, read_subject

    dataset = open_bids(root)
    choices = BidsChoices(site, bids_session, [_map_choice(written) for written in label_maps])
    if subject is None and (lost := dataset.without_images()):
        session.note(f"{len(lost)} subjects have a row or masks and no folder of images: no case comes of them.")
    labels = list(dataset.subjects) if subject is None else [subject]
    return [
        CaseSource(f"sub-{label}", lambda label=label: read_subject(dataset, label, choices))  # type: ignore[misc]
        for label in labels
    ]


def _map_choice(written: str) -> MapChoice:
    from pipelines.cases.bids.masks import MapChoice
    from pipelines.cases.label_map import named_label_map

    entity, equals, name = written.rpartition("=")
    key, dash, value = entity.partition("-")
    if equals and not (key and dash and value):
        raise UsageError(
            "--label-map takes NAME or ENTITY=NAME.", action="Write --label-map seg-vert=tptbox-vertebrae."
        )
    return MapChoice(named_label_map(name), key, value)
