"""A BIDS data set on disk: its root, its subjects, and where their files lie.

The root has ``dataset_description.json``; subjects lie in it or, as TPTBox lays data out, in ``rawdata/``;
masks lie under ``derivatives/`` (SPINEPS: ``derivatives_seg/``), with or without a folder for each pipeline.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from feature_store.errors import BidsError
from pipelines.cases.bids.tables import read_json, read_tsv

DESCRIPTION = "dataset_description.json"
RAW_FOLDERS = (".", "rawdata")
DERIVATIVES = "derivatives*"


@dataclass(frozen=True)
class BidsDataset:
    """A checked root. Everything is looked up when it is first asked for, once."""

    root: Path

    @cached_property
    def subjects(self) -> dict[str, Path]:
        """Folders of images by subject label, sorted."""
        found: dict[str, Path] = {}
        for raw in RAW_FOLDERS:
            for folder in (self.root / raw).glob("sub-*"):
                if folder.is_dir():
                    found.setdefault(folder.name.removeprefix("sub-"), folder)
        return dict(sorted(found.items()))

    @cached_property
    def derived(self) -> dict[str, list[Path]]:
        """Files under derivatives by subject label, sorted; one walk for all subjects."""
        found: dict[str, list[Path]] = {}
        for derivatives in sorted(self.root.glob(DERIVATIVES)):
            for folder, folders, files in os.walk(derivatives):
                folders.sort()
                for file in sorted(files):
                    if file.startswith("sub-"):
                        found.setdefault(file.removeprefix("sub-").partition("_")[0], []).append(Path(folder) / file)
        return found

    @cached_property
    def participants(self) -> list[dict[str, str]]:
        """Rows of participants.tsv; none where there is no such file. Raises BidsError."""
        path = self._beside_subjects("participants.tsv")
        return read_tsv(path, ("participant_id",), path.name) if path else []

    @cached_property
    def participants_json(self) -> dict[str, Any]:
        """What participants.json says of each column. Raises BidsError."""
        path = self._beside_subjects("participants.json")
        return read_json(path, path.name) if path else {}

    def inner(self, path: Path) -> str:
        """The path inside the data set, with / between its parts."""
        return path.relative_to(self.root).as_posix()

    def without_images(self) -> list[str]:
        """Subjects that participants.tsv or derivatives name and that have no folder: no case comes of them."""
        try:
            named = {row["participant_id"].removeprefix("sub-") for row in self.participants}
        except BidsError:
            named = set()
        return sorted((named | self.derived.keys()) - self.subjects.keys())

    def _beside_subjects(self, file: str) -> Path | None:
        return next((self.root / raw / file for raw in RAW_FOLDERS if (self.root / raw / file).is_file()), None)


def open_bids(root: Path) -> BidsDataset:
    """The data set at a root. Raises BidsError: no usable description, derived data only, no subject."""
    described = read_json(root / DESCRIPTION, DESCRIPTION)
    missing = [key for key in ("Name", "BIDSVersion") if key not in described]
    if missing:
        raise BidsError(f"{' and '.join(missing)} is missing.", action="BIDS requires them.", file=DESCRIPTION)
    if described.get("DatasetType") == "derivative":
        raise BidsError(
            "it is a derivative data set.", action="Give the data set that has it under derivatives/.", file=DESCRIPTION
        )
    dataset = BidsDataset(root)
    if not dataset.subjects:
        raise BidsError("there is no folder sub-<label>.", action="Give the root of the data set.", file=DESCRIPTION)
    return dataset


def find_bids(folder: Path) -> tuple[Path, str | None] | None:
    """Root and, where the folder is a subject's, its label; None where the folder is of no BIDS data set."""
    if (folder / DESCRIPTION).is_file():
        return folder, None
    folder = folder.resolve()
    if folder.name.startswith("sub-"):
        for root in (folder.parent, folder.parent.parent):
            if (root / DESCRIPTION).is_file():
                return root, folder.name.removeprefix("sub-")
    return None
