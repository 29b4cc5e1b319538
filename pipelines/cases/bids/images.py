"""Images of a subject: which session, which files, and what sequence each is.

The sequence is the contrast of the suffix and the plane: ``acq-sag_T2w`` is t2_sag, a CT is ct. Where ``acq``
names no plane, the voxels do: the plane is across the axis along which they are longest, and an image without
such an axis is ``iso``. A case has one image a sequence.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydantic import ValidationError

from feature_store.errors import BidsError, ImageUnreadable, InputError
from feature_store.plain_words import plain_file
from pipelines.cases.bids.dataset import BidsDataset
from pipelines.cases.bids.names import NIFTI, BidsName, inherited, parse_name
from pipelines.cases.bids.tables import read_json
from pipelines.cases.broken_rules import broken_rule
from pipelines.cases.manifest_schema import Scanner
from pipelines.imaging.itk_calls import itk_call

FOLDERS = ("anat", "ct")
CONTRASTS = {
    "T1w": "t1", "T2w": "t2", "PDw": "pd", "FLAIR": "flair", "T2starw": "t2star", "inplaneT1": "t1",
    "inplaneT2": "t2", "ct": "ct", "CT": "ct",
}  # fmt: skip
MASK_SUFFIXES = frozenset({"dseg", "mask", "msk", "seg"})
PLANES = {"sag": "sag", "ax": "ax", "tra": "ax", "cor": "cor", "iso": "iso"}
"""How the value of ``acq`` begins, and the plane it names."""
ACROSS = ("sag", "cor", "ax")
"""The plane across the patient's axis x (to the left), y (to the back), z (to the head)."""
LONGER = 1.25
"""A voxel's longest edge is its thickness where it is this much longer than the next."""


@dataclass(frozen=True)
class BidsImage:
    """One image, its name's parts, and the sequence it is."""

    path: Path
    name: BidsName
    sequence: str


def session_folder(folder: Path, wanted: str | None) -> Path:
    """Where the subject's images lie: in its one session, or in the one that is asked for. Raises BidsError."""
    sessions = sorted(path.name for path in folder.glob("ses-*") if path.is_dir())
    loose = any((folder / kind).is_dir() for kind in FOLDERS)
    if wanted is not None:
        name = f"ses-{wanted.removeprefix('ses-')}"
        if name not in sessions:
            there = ", ".join(map(plain_file, sessions)) or "no sessions"
            raise BidsError(f"the subject has no {plain_file(name)}.", action=f"It has {there}.")
        return folder / name
    if len(sessions) + loose > 1:
        found = [*map(plain_file, sessions), *(["images outside of sessions"] if loose else [])]
        raise BidsError(
            f"the subject has {len(found)} sessions ({', '.join(found)}), and a case is one of them.",
            action="Say which by --session.",
        )
    return folder / sessions[0] if sessions else folder


def find_images(
    dataset: BidsDataset, subject: str, folder: Path, notes: list[str]
) -> tuple[list[BidsImage], list[InputError]]:
    """The images of a session folder that can be used, and an error for each that cannot."""
    images: list[BidsImage] = []
    errors: list[InputError] = []
    for path in sorted(path for kind in FOLDERS for path in (folder / kind).glob("*")):
        if path.name.startswith(".") or path.name.endswith((".json", ".tsv")):
            continue
        try:
            images.append(_image(path, subject, dataset.inner(path)))
        except InputError as error:
            errors.append(error)
    for other in sorted(path for path in folder.glob("*") if path.is_dir() and path.name not in FOLDERS):
        if not other.name.startswith("ses-"):
            count = sum(1 for _ in other.iterdir())
            notes.append(f"{plain_file(other.name)}: {count} files of other data types are left alone")
    of_sequence = defaultdict(list)
    for image in images:
        of_sequence[image.sequence].append(image)
    for sequence, several in of_sequence.items():
        if len(several) > 1:
            errors += [
                BidsError(
                    f"it is one of {len(several)} images that are {sequence}; a case has one image a sequence.",
                    action="Leave the one that counts; move the others to sourcedata/.",
                    file=dataset.inner(image.path),
                )
                for image in several
            ]
    return [several[0] for several in of_sequence.values() if len(several) == 1], errors


def _image(path: Path, subject: str, file: str) -> BidsImage:
    name = parse_name(path.name)
    if name is None or name.entities.get("sub") != subject:
        raise BidsError(
            "its name is not that of this subject's file.", action="Write sub-<label>_acq-sag_T2w.nii.gz.", file=file
        )
    session = name.entities.get("ses")
    if session != (path.parts[-3].removeprefix("ses-") if path.parts[-3].startswith("ses-") else None):
        raise BidsError("its name and its folder name different sessions.", action="Rename it.", file=file)
    if name.suffix in MASK_SUFFIXES:
        raise BidsError("it is a mask among the images.", action="Put it under derivatives/.", file=file)
    if name.extension not in NIFTI:
        raise BidsError("it is no NIfTI.", action="BIDS keeps images as .nii or .nii.gz.", file=file)
    if name.suffix not in CONTRASTS:
        raise BidsError(
            f"no sequence is known for the suffix {name.suffix[:20]}.",
            action=f"Known are {', '.join(CONTRASTS)}; a case folder takes any sequence.",
            file=file,
        )
    contrast = CONTRASTS[name.suffix]
    return BidsImage(path, name, contrast if contrast == "ct" else f"{contrast}_{_plane(path, name, file)}")


def _plane(path: Path, name: BidsName, file: str) -> str:
    """Raises BidsError where name and voxels contradict, ImageUnreadable."""
    acquired = name.entities.get("acq", "").lower()
    said = next((plane for start, plane in PLANES.items() if acquired.startswith(start)), None)
    seen = _plane_of_voxels(path, file)
    if said is None or said == seen:
        return seen
    if "iso" in (said, seen):
        return said
    raise BidsError(
        f"its name says {said}, and its slices are {seen}.", action="Mend acq in the name, or the header.", file=file
    )


def _plane_of_voxels(path: Path, file: str) -> str:
    """From the header alone; what is wrong with the file beyond it, reading the case tells."""
    if not path.is_file():
        raise ImageUnreadable("there is no such file.", action="Get the file itself there (a lost link?).", file=file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    itk_call(reader.ReadImageInformation, ImageUnreadable, "no reader takes this file as an image", file)
    spacing = reader.GetSpacing()[:3]
    if len(spacing) < 3:
        raise ImageUnreadable("it is a single slice.", action="Send the whole series.", file=file)
    long, longest = np.sort(spacing)[1:]
    if longest < LONGER * long:
        return "iso"
    dimensions = reader.GetDimension()
    direction = np.array(reader.GetDirection()).reshape(dimensions, dimensions)[:3, int(np.argmax(spacing))]
    return ACROSS[int(np.argmax(np.abs(direction)))]


def read_scanner(dataset: BidsDataset, image: BidsImage) -> tuple[Scanner, list[InputError]]:
    """Vendor, model and field strength from the sidecars of an image, the nearest sidecar first."""
    fields = {"Manufacturer": "vendor", "ManufacturersModelName": "model", "MagneticFieldStrength": "field_strength_t"}
    values: dict[str, object] = {}
    errors: list[InputError] = []
    for path in inherited(image.path, image.name, dataset.root, image.name.suffix, ".json"):
        file = dataset.inner(path)
        try:
            told = read_json(path, file)
        except BidsError as error:
            errors.append(error)
            continue
        for key, field in fields.items():
            if field in values or told.get(key) in (None, "", "n/a"):
                continue
            try:
                values[field] = getattr(Scanner.model_validate({field: told[key]}), field)
            except ValidationError as thrown:
                fault = thrown.errors(include_url=False, include_input=False, include_context=False)[0]
                rule = broken_rule(fault["type"], fault["msg"])
                errors.append(BidsError(f"{key} {rule}.", action="Mend it, or write n/a.", file=file))
    return Scanner.model_validate(values), errors
