"""Masks of a subject: which image each was drawn on, what its numbers mean, and which segmentation it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from feature_store.errors import BidsError, InputError
from feature_store.vocabulary import PRIMARY_SEGMENTATION
from pipelines.cases.bids.dataset import BidsDataset
from pipelines.cases.bids.images import MASK_SUFFIXES, BidsImage
from pipelines.cases.bids.lookup import read_lookup
from pipelines.cases.bids.names import NIFTI, BidsName, inherited, parse_name
from pipelines.cases.bids.tables import read_json
from pipelines.cases.label_map import LabelMap


@dataclass(frozen=True)
class MapChoice:
    """A label map for every mask, or for those whose name has an entity (``seg-vert``)."""

    label_map: LabelMap
    entity: str = ""
    value: str = ""


@dataclass(frozen=True)
class BidsMask:
    """One mask with its image, the map that reads it, and the name of its segmentation."""

    path: Path
    name: BidsName
    image: BidsImage
    label_map: LabelMap
    segmentation: str = PRIMARY_SEGMENTATION


def find_masks(
    dataset: BidsDataset, subject: str, images: Sequence[BidsImage], session: str | None, maps: Sequence[MapChoice],
    notes: list[str],
) -> tuple[list[BidsMask], list[InputError]]:  # fmt: skip
    """Masks under derivatives that can be used, and an error for each that cannot.

    Masks whose map tells levels go first: of two that draw the same structure, the first has it.
    """
    masks: list[BidsMask] = []
    errors: list[InputError] = []
    elsewhere = 0
    for path in dataset.derived.get(subject, []):
        name = parse_name(path.name)
        if path.name.endswith((".json", ".tsv")) or (
            name is not None and name.suffix not in {*MASK_SUFFIXES, "probseg"}
        ):
            continue
        try:
            if name is None or name.extension not in NIFTI:
                raise BidsError(
                    "it is no BIDS name of a NIfTI mask.",
                    action="Write sub-<label>_seg-vert_dseg.nii.gz.",
                    file=dataset.inner(path),
                )
            if session and name.entities.get("ses", session) != session:
                elsewhere += 1
                continue
            image = _image_of(dataset, path, name, images)
            masks.append(BidsMask(path, name, image, _label_map(dataset, path, name, maps)))
        except InputError as error:
            errors.append(error)
    if elsewhere:
        notes.append(f"{elsewhere} masks of other sessions are left alone")
    masks.sort(key=lambda mask: not mask.label_map.tells_levels)  # stable: else in the order of their paths
    named, unclear = _segmentations(dataset, masks)
    return named, errors + unclear


def _image_of(dataset: BidsDataset, path: Path, name: BidsName, images: Sequence[BidsImage]) -> BidsImage:
    """By the sidecar's Sources; else by the entities, and by ``mod-`` where several images have the same."""
    file = dataset.inner(path)
    if name.suffix == "probseg":
        raise BidsError("a probability map is no label map.", action="Send a dseg or a mask.", file=file)
    sources = _sources(path, file)
    if sources:
        fits = [image for image in images if image.path.name in sources]
    else:
        modality = name.entities.get("mod")
        fits = [image for image in images if name.fits(image.name) and modality in (None, image.name.suffix)]
    if not fits:
        raise BidsError(
            "it fits no usable image of this subject.",
            action="Its entities must be those of the image, or its sidecar must name the image in Sources.",
            file=file,
        )
    if len(fits) > 1:
        raise BidsError(
            f"it fits {len(fits)} images ({', '.join(sorted(image.sequence for image in fits))}).",
            action="Say which by mod-<suffix> in its name, or by Sources in its sidecar.",
            file=file,
        )
    return fits[0]


def _sources(path: Path, file: str) -> set[str]:
    """File names that the mask's own sidecar says it was made from."""
    sidecar = path.with_name(re.sub(r"\.nii(\.gz)?$", ".json", path.name))
    if not sidecar.is_file():
        return set()
    told = read_json(sidecar, file.removesuffix(path.name) + sidecar.name)
    found: set[str] = set()
    for key in ("Sources", "RawSources"):
        named = told.get(key, [])
        named = [named] if isinstance(named, str) else named
        if isinstance(named, list):
            found |= {PurePosixPath(uri).name for uri in named if isinstance(uri, str)}
    return {name for name in found if name.endswith(NIFTI)}


def _label_map(dataset: BidsDataset, path: Path, name: BidsName, maps: Sequence[MapChoice]) -> LabelMap:
    """The map chosen for an entity of the name, or for every mask; else the lookup table beside it."""
    chosen = [c for c in maps if c.entity and name.entities.get(c.entity) == c.value]
    chosen = chosen or [c for c in maps if not c.entity]
    if chosen:
        return chosen[0].label_map
    for table in inherited(path, name, dataset.root, name.suffix, ".tsv"):
        return read_lookup(table, dataset.inner(table))
    raise BidsError(
        "nothing says what its numbers mean.",
        action="Name a label map by --label-map, or put a lookup table (index, name) beside it as _dseg.tsv.",
        file=dataset.inner(path),
    )


def _segmentations(dataset: BidsDataset, masks: Sequence[BidsMask]) -> tuple[list[BidsMask], list[InputError]]:
    """Names of repeated segmentations. Where the masks of an image differ in ``desc``, one without it is primary."""
    of_image: dict[Path, list[BidsMask]] = defaultdict(list)
    for mask in masks:
        of_image[mask.image.path].append(mask)
    named: list[BidsMask] = []
    errors: list[InputError] = []
    for several in of_image.values():
        described = {mask.name.entities.get("desc") for mask in several}
        if len(described) > 1 and None not in described:
            errors += [
                BidsError(
                    f"the image has {len(described)} segmentations by desc, and none is the primary one.",
                    action="Name the primary one without desc.",
                    file=dataset.inner(mask.path),
                )
                for mask in several
            ]
            continue
        for mask in several:
            desc = mask.name.entities.get("desc") if len(described) > 1 else None
            named.append(BidsMask(mask.path, mask.name, mask.image, mask.label_map, desc or PRIMARY_SEGMENTATION))
    return named, errors
