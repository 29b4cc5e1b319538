"""A subject of a BIDS data set, read as a case.

The subject's label is the patient's id, an image and its masks are the entries of ``series``, and what cannot be
used becomes a finding as with a case folder. There is no index date in a BIDS data set, so no day of imaging.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from feature_store.errors import BidsError, InputError
from pipelines.cases.bids.dataset import BidsDataset
from pipelines.cases.bids.images import find_images, read_scanner, session_folder
from pipelines.cases.bids.masks import MapChoice, find_masks
from pipelines.cases.bids.participants import read_clinical
from pipelines.cases.case import CaseReading, Finding, read_case
from pipelines.cases.manifest_schema import CaseManifest, SeriesEntry


@dataclass(frozen=True)
class BidsChoices:
    """What a data set leaves open: whose cases these are, which session, and what the masks' numbers mean."""

    site: str
    session: str | None = None
    label_maps: Sequence[MapChoice] = ()


def read_subject(dataset: BidsDataset, subject: str, choices: BidsChoices) -> CaseReading:
    """The case of one subject. Raises nothing for what the data set holds: that becomes findings.

    Findings name files with ``sub-*``, because messages carry no patient's id.
    """
    try:
        manifest, errors, notes = _manifest(dataset, subject, choices)
    except InputError as error:
        return CaseReading(None, findings=[_without_id(Finding.of(error))])
    reading = read_case(dataset.root, manifest, errors, notes)
    return replace(reading, findings=[_without_id(finding) for finding in reading.findings])


def _manifest(
    dataset: BidsDataset, subject: str, choices: BidsChoices
) -> tuple[CaseManifest, list[InputError], list[str]]:
    if subject not in dataset.subjects:
        raise BidsError("there is no such subject.", action="A subject is a folder sub-<label> with images.")
    folder = session_folder(dataset.subjects[subject], choices.session)
    session = folder.name.removeprefix("ses-") if folder.name.startswith("ses-") else None
    notes: list[str] = []
    clinical, clinical_errors, told = read_clinical(dataset, subject)
    notes += told
    images, errors = find_images(dataset, subject, folder, notes)
    masks, mask_errors = find_masks(dataset, subject, images, session, choices.label_maps, notes)
    errors = [*clinical_errors, *errors, *mask_errors]
    series = []
    for image in images:
        scanner, scanner_errors = read_scanner(dataset, image)
        errors += scanner_errors
        common = {"sequence": image.sequence, "image": dataset.inner(image.path), "scanner": scanner}
        mine = [mask for mask in masks if mask.image is image]
        more = [
            {"mask": dataset.inner(mask.path), "segmentation": mask.segmentation, "label_map": mask.label_map}
            for mask in mine
        ]
        for one in more or [{}]:
            try:
                series.append(SeriesEntry.model_validate({**common, **one}))
            except ValidationError:
                errors.append(
                    BidsError(
                        "its path or its desc has characters that a case cannot have.",
                        action="Use letters, digits, . _ and -.",
                        file=str(one.get("mask", common["image"])),
                    )
                )
    if not images:
        errors.append(BidsError("the subject has no usable image.", action="Images lie in anat/ or ct/."))
    try:
        manifest = CaseManifest(patient_id=subject, site=choices.site, clinical=clinical, series=series)
    except ValidationError:
        raise BidsError(
            "the subject's label or the site is not up to 64 letters, digits, . _ or -.", action="Rename it."
        ) from None
    return manifest, errors, notes


def _without_id(finding: Finding) -> Finding:
    return replace(finding, file=re.sub(r"sub-[^_/]+(?=[_/])", "sub-*", finding.file))
