"""Case folders made from the real images of the shared data folder, for tests from here to the end of the way.

Each function writes one folder (``case.yaml`` and copies of the files) and returns it. What is declared and
why is said with each; files are copied because a case folder may not lead out of itself by links.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

SITE = "real"


def _meaning(structure: str, level: str = "unknown", side: str = "both") -> dict[str, str]:
    return {"structure": structure, "level": level, "side": side}


LEFT_RIGHT = {
    86: _meaning("paraspinal_muscle", side="left"),
    87: _meaning("paraspinal_muscle", side="right"),
}
"""TotalSegmentator's autochthon."""


def ct_lumbar(data: Path, case_dir: Path, site: str = SITE, patient_id: str = "ct-lumbar") -> Path:
    """CT with five lumbar vertebrae, sacrum, paraspinal muscles and iliopsoas; mask on the same grid."""
    labels: dict[int, Any] = {
        27 + i: _meaning("vertebra", level) for i, level in enumerate(("L5", "L4", "L3", "L2", "L1"))
    }
    labels |= {25: _meaning("sacrum"), **LEFT_RIGHT}
    labels |= {88: _meaning("iliopsoas", side="left"), 89: _meaning("iliopsoas", side="right")}
    source = data / "spine/ct_lumbar"
    files = {"ct.nii.gz": source / "ct.nii.gz", "ct_mask.nii.gz": source / "totalsegmentator_seg.nii.gz"}
    series = [{"sequence": "ct", "image": "ct.nii.gz", "mask": "ct_mask.nii.gz", "labels": labels}]
    return _write(case_dir, site, patient_id, files, series)


def ct_dicom(data: Path, case_dir: Path, site: str = SITE, patient_id: str = "ct-dicom") -> Path:
    """JPEG 2000 DICOM series with a mask stored along a flipped y axis. T12 and T11: no lumbar level."""
    labels: dict[int, Any] = {32: _meaning("vertebra", "T12"), 33: _meaning("vertebra", "T11"), **LEFT_RIGHT}
    source = data / "spine/ct_dicom"
    files = {"ct_dicom": source / "series", "ct_mask.nii.gz": source / "seg.nii.gz"}
    series = [{"sequence": "ct", "image": "ct_dicom", "mask": "ct_mask.nii.gz", "labels": labels}]
    return _write(case_dir, site, patient_id, files, series)


def mr_axial_slab(data: Path, case_dir: Path, site: str = SITE, patient_id: str = "mr-axial") -> Path:
    """Axial MR slab of a sequence nobody states (so it has a name of its own); one label for all vertebrae."""
    labels: dict[int, Any] = {
        19: _meaning("vertebra"),
        20: _meaning("intervertebral_disc"),
        46: _meaning("paraspinal_muscle", side="left"),
        47: _meaning("paraspinal_muscle", side="right"),
        48: _meaning("iliopsoas", side="left"),
        49: _meaning("iliopsoas", side="right"),
    }
    source = data / "spine/mr_axial_slab"
    files = {"mr.nii.gz": source / "mr.nii.gz", "mr_mask.nii.gz": source / "seg.nii.gz"}
    series = [{"sequence": "mr_ax", "image": "mr.nii.gz", "mask": "mr_mask.nii.gz", "labels": labels}]
    return _write(case_dir, site, patient_id, files, series)


def ct_single_vertebra(data: Path, case_dir: Path, site: str = SITE, patient_id: str = "ct-single") -> Path:
    """CT of three vertebrae with two masks: whole vertebrae by level, and their bodies (49, 50) not told apart."""
    source = data / "spine/ct_single_vertebra"
    files = {
        "ct.nii.gz": source / "sub-ct_label-22_ct.nii.gz",
        "vert.nii.gz": source / "sub-ct_seg-vert_label-22_msk.nii.gz",
        "subreg.nii.gz": source / "sub-ct_seg-subreg_label-22_msk.nii.gz",
    }
    whole = {21: _meaning("vertebra", "L2"), 22: _meaning("vertebra", "L3"), 23: _meaning("vertebra", "L4")}
    corpus = {49: _meaning("vertebral_body"), 50: _meaning("vertebral_body")}
    series = [
        {"sequence": "ct", "image": "ct.nii.gz", "mask": "vert.nii.gz", "labels": whole},
        {"sequence": "ct", "image": "ct.nii.gz", "mask": "subreg.nii.gz", "labels": corpus},
    ]
    return _write(case_dir, site, patient_id, files, series)


def t2_single_disc(data: Path, case_dir: Path, site: str = SITE, patient_id: str = "t2-disc") -> Path:
    """Sagittal T2 with vertebrae and discs whose levels are not known: those of a structure are united."""
    source = data / "spine/t2_single_disc"
    files = {
        "t2.nii.gz": source / "sub-mri_label-6_T2w.nii.gz",
        "t2_mask.nii.gz": source / "sub-mri_seg-vert_label-6_msk.nii.gz",
    }
    labels = {n: _meaning("vertebra") for n in (5, 6, 7)} | {n: _meaning("intervertebral_disc") for n in (105, 106)}
    series = [{"sequence": "t2_sag", "image": "t2.nii.gz", "mask": "t2_mask.nii.gz", "labels": labels}]
    return _write(case_dir, site, patient_id, files, series)


def axial_muscles(data: Path, case_dir: Path, site: str = SITE, patient_id: str = "dixon") -> Path:
    """Axial Dixon water with erector spinae (1, 4) and multifidus (2, 3), together the paraspinal muscles.

    Sides go by the header: its x axis grows to the patient's left, and labels 1 and 2 have the smaller x.
    """
    source = data / "spine/axial_muscles"
    files = {"water.nii.gz": source / "TUM01_water.nii.gz", "muscles.nii.gz": source / "TUM01_muscles_seg.nii.gz"}
    labels = {n: _meaning("paraspinal_muscle", side="right") for n in (1, 2)}
    labels |= {n: _meaning("paraspinal_muscle", side="left") for n in (3, 4)}
    series = [{"sequence": "dixon_water_ax", "image": "water.nii.gz", "mask": "muscles.nii.gz", "labels": labels}]
    return _write(case_dir, site, patient_id, files, series)


REAL_CASES: dict[str, Callable[..., Path]] = {
    write.__name__: write
    for write in (ct_lumbar, ct_dicom, mr_axial_slab, ct_single_vertebra, t2_single_disc, axial_muscles)
}


def write_real_cases(
    data: Path, folder: Path, names: Iterable[str] = tuple(REAL_CASES), site: str = SITE
) -> list[Path]:
    """Write the named cases under ``folder``, one folder each."""
    return [REAL_CASES[name](data, folder / name, site=site) for name in names]


def _write(case_dir: Path, site: str, patient_id: str, files: dict[str, Path], series: list[dict[str, Any]]) -> Path:
    case_dir.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        target = case_dir / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
    manifest = {"patient_id": patient_id, "site": site, "series": series}
    (case_dir / "case.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return case_dir
