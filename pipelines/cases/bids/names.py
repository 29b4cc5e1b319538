"""File names of BIDS: ``sub-01_ses-02_acq-sag_T2w.nii.gz`` is entities, a suffix and an extension.

Source: Brain Imaging Data Structure 1.11, "Common principles" (file names, the inheritance principle) and
"Derivatives"; TPTBox writes its masks as ``sub-01_seg-vert_msk.nii.gz``, which has the same form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NIFTI = (".nii.gz", ".nii")
DERIVED = frozenset({"mod", "seg", "label", "desc", "space", "res", "den", "atlas", "scale", "hemi"})
"""Entities that a derived file may have beyond those of the file it was made from."""


@dataclass(frozen=True)
class BidsName:
    """The parts of a file name. ``entities`` maps ``acq`` to ``sag``; order does not count."""

    entities: dict[str, str]
    suffix: str
    extension: str

    def fits(self, source: BidsName) -> bool:
        """Whether a derived file of this name may be made from ``source``: nothing but derived entities more."""
        more = self.entities.keys() - source.entities.keys()
        same = all(self.entities.get(key) == value for key, value in source.entities.items())
        return same and more <= DERIVED


def parse_name(file: str) -> BidsName | None:
    """The parts of a BIDS file name, None where it is none."""
    extension = next((end for end in NIFTI if file.endswith(end)), Path(file).suffix)
    *pairs, suffix = file.removesuffix(extension).split("_")
    split = [pair.partition("-") for pair in pairs]
    entities = {key: value for key, _, value in split}
    whole = all(key and dash and value for key, dash, value in split) and len(entities) == len(pairs)
    if not whole or not suffix.isalnum() or not extension:
        return None
    return BidsName(entities, suffix, extension)


def inherited(path: Path, name: BidsName, root: Path, suffix: str, extension: str) -> Iterator[Path]:
    """Files that describe ``path`` by the inheritance principle, the nearest first.

    They lie in its folder or one above it, up to ``root``, and have no entity that it has not.
    """
    folder = path.parent
    while True:
        found = []
        for candidate in sorted(folder.glob(f"*{suffix}{extension}")):
            stem = candidate.name.removesuffix(extension)
            parsed = BidsName({}, suffix, extension) if stem == suffix else parse_name(candidate.name)
            if parsed and parsed.suffix == suffix and parsed.entities.items() <= name.entities.items():
                found.append((len(parsed.entities), candidate))
        yield from (candidate for _, candidate in sorted(found, reverse=True))
        if folder in (root, folder.parent):
            return
        folder = folder.parent
