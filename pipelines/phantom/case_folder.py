"""Writes one phantom patient as a case folder: case.yaml, images, masks."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml
from scipy.ndimage import gaussian_filter

from feature_store.vocabulary import PAPER_SEQUENCES
from pipelines.phantom.anatomy import PARTS, Anatomy, paint
from pipelines.phantom.grid import stored_flipped
from pipelines.phantom.patient import PhantomPatient
from pipelines.phantom.scanner import Site
from pipelines.phantom.signal import signal
from pipelines.phantom.spine import draw_spine

LABELLED = {
    "ct": ("vertebral_body",),
    "t1_sag": ("vertebral_body", "intervertebral_disc"),
    "t2_sag": ("vertebral_body", "intervertebral_disc"),
    "t2_ax": ("psoas_major", "quadratus_lumborum", "paraspinal_muscle"),
}
"""Structures that each sequence's mask holds: the study's."""


def write_case(patient: PhantomPatient, site: Site, folder: Path) -> None:
    """The whole case folder of one patient as this site would send it."""
    folder.mkdir(parents=True)
    spine = draw_spine(patient.rng("anatomy"))
    position = patient.rng("position")
    l3 = {"ct": position.normal(0, 25, 3), "mr": position.normal(0, 25, 3)}  # two scanners, two tables
    index_date = date(2021, 1, 4) + timedelta(days=int(position.integers(0, 900)))
    study_date = index_date - timedelta(days=int(position.integers(2, 30)))

    for sequence in PAPER_SEQUENCES:
        rng = patient.rng(sequence)
        where = l3["ct" if sequence == "ct" else "mr"]
        shift = rng.normal(0, 2.0, 3)  # the technician never centres twice alike
        grid = site.protocol(sequence).grid(where + shift)
        anatomy = paint(spine, grid, where)
        picture = signal(patient, sequence, anatomy, grid, rng)
        blurred = gaussian_filter(picture, [0.25, 0.5, 0.5])  # partial volume, mostly within the slice
        image = grid.image(site.acquire(sequence, blurred, grid, rng))
        mask = grid.image(label_map(anatomy, site, sequence))
        if site.flipped_axis is not None:
            mask = stored_flipped(mask, site.flipped_axis)
        suffix = site.file_suffix(sequence)
        sitk.WriteImage(image, str(folder / f"{sequence}{suffix}"), useCompression=True)
        sitk.WriteImage(mask, str(folder / f"{sequence}_mask{suffix}"), useCompression=True)
    write_manifest(folder, manifest(patient, site, index_date, study_date))


def label_map(anatomy: Anatomy, site: Site, sequence: str) -> np.ndarray:
    """uint8 (k, j, i) with the site's numbers, of the structures this sequence's mask holds."""
    part = np.where(np.isin(anatomy.part, _numbers(sequence)), anatomy.part, 0)
    labels: np.ndarray = site.label_lookup()[part]
    return labels


def _numbers(sequence: str) -> list[int]:
    return [number for number, part in enumerate(PARTS, start=1) if part.structure in LABELLED[sequence]]


def manifest(patient: PhantomPatient, site: Site, index_date: date, study_date: date) -> dict[str, Any]:
    """case.yaml as a plain dictionary."""
    clinical = asdict(patient.clinical)
    clinical["fused_levels"] = list(patient.clinical.fused_levels)
    clinical |= {
        "procedure": "PLIF", "prior_surgery": False, "infection_or_tumour": False, "image_quality": "good",
    }  # fmt: skip
    return {
        "patient_id": patient.patient_id,
        "site": site.name,
        "index_date": index_date.isoformat(),
        "clinical": clinical,
        "series": [_series(site, sequence, study_date) for sequence in PAPER_SEQUENCES],
    }


def _series(site: Site, sequence: str, study_date: date) -> dict[str, Any]:
    suffix = site.file_suffix(sequence)
    scanner = {key: value for key, value in asdict(site.scanner(sequence)).items() if value is not None}
    labels = {
        number: {key: value for key, value in asdict(part).items() if value is not None}
        for part, number in site.labels().items()
        if part.structure in LABELLED[sequence]
    }
    return {
        "sequence": sequence,
        "image": f"{sequence}{suffix}",
        "mask": f"{sequence}_mask{suffix}",
        "segmentation": "primary",
        "labels": dict(sorted(labels.items())),
        "study_date": study_date.isoformat(),
        "scanner": scanner,
    }


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """case.yaml, keys in the order a reader expects."""
    text = "# A synthetic phantom: made by a program, of no patient, without clinical meaning.\n"
    text += yaml.safe_dump(content, sort_keys=False)
    (folder / "case.yaml").write_text(text, encoding="utf-8")
