"""BIDS data sets for tests: small made-up ones, and the real TPTBox samples laid out as one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

SIZE = (24, 20, 16)
SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Slices across x: the third voxel axis runs to the patient's left."""
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def write_image(path: Path, seed: int = 0, direction: Sequence[float] = SAGITTAL, slice_mm: float = 3.0) -> Path:
    """Noise with slices ``slice_mm`` thick; in Hounsfield units, so that it may be a CT as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.random.default_rng(seed).integers(-900, 1500, SIZE[::-1]).astype(np.int16))
    image.SetSpacing((1.0, 1.0, slice_mm))
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))
    return path


def write_mask(path: Path, image: Path, numbers: Sequence[int]) -> Path:
    """On the image's grid; a block of 4 x 5 x 2 voxels for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.zeros(SIZE[::-1], np.uint16)
    for i, number in enumerate(numbers):
        voxels[2 * i : 2 * i + 2, 3:8, 4:8] = number
    mask = sitk.GetImageFromArray(voxels)
    mask.CopyInformation(sitk.ReadImage(str(image)))
    sitk.WriteImage(mask, str(path))
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, data: Any) -> Path:
    return write_text(path, json.dumps(data))


def describe(root: Path) -> Path:
    write_json(root / "dataset_description.json", {"Name": "Spines", "BIDSVersion": "1.11.0"})
    return root


def write_bids(root: Path) -> Path:
    """Two subjects: 01 with T1, T2 (sagittal, axial) and masks by lookup table and by name; 02 with one T2.

    TotalSegmentator's names on other numbers (5 is L5, 4 is L4) in the lookup table.
    """
    describe(root)
    write_text(
        root / "participants.tsv",
        "participant_id\tage\tsex\tbmi\tosteoporosis\tfused_levels\theight\n"
        "sub-01\t61\tF\t24.5\tno\tL4-L5;L5-S1\t171\nsub-02\tn/a\tM\tn/a\t1\tn/a\tn/a\n",
    )
    levels = {"M": "male", "F": "female"}
    write_json(root / "participants.json", {"age": {"Units": "years"}, "sex": {"Levels": levels}})
    write_json(root / "T2w.json", {"Manufacturer": "ACME", "MagneticFieldStrength": 3})
    anat = root / "sub-01/anat"
    derived = root / "derivatives/manual/sub-01/anat"
    write_image(anat / "sub-01_acq-sag_T1w.nii.gz", 1)
    t2 = write_image(anat / "sub-01_acq-sag_T2w.nii.gz", 2)
    write_json(anat / "sub-01_acq-sag_T2w.json", {"MagneticFieldStrength": 1.5, "ManufacturersModelName": "One"})
    axial = write_image(anat / "sub-01_acq-ax_T2w.nii.gz", 3, AXIAL)
    write_mask(derived / "sub-01_acq-sag_mod-T2w_dseg.nii.gz", t2, [5, 4, 9])
    write_mask(derived / "sub-01_acq-ax_dseg.nii.gz", axial, [7, 8])
    names = {0: "background", 4: "vertebrae_L4", 5: "vertebrae_L5", 7: "autochthon_left", 8: "autochthon right"}
    table = "".join(f"{index}\t{name}\n" for index, name in (names | {9: "lesion"}).items())
    write_text(root / "derivatives/manual/dseg.tsv", f"index\tname\n{table}")
    t2 = write_image(root / "sub-02/anat/sub-02_T2w.nii.gz", 4)
    write_mask(root / "derivatives/manual/sub-02/anat/sub-02_dseg.nii.gz", t2, [5, 4])
    return root


def write_tptbox_samples(data: Path, root: Path) -> Path:
    """The real CT and T2 samples of TPTBox under the names they have, in TPTBox's layout (rawdata, derivatives)."""
    describe(root)
    samples = {
        ("ct", "ct", "ct_single_vertebra"): ("sub-ct_label-22_ct", "sub-ct_seg-{}_label-22_msk"),
        ("mri", "anat", "t2_single_disc"): ("sub-mri_label-6_T2w", "sub-mri_seg-{}_label-6_msk"),
    }
    for (subject, kind, folder), (image, mask) in samples.items():
        source = data / "spine" / folder
        raw = root / f"rawdata/sub-{subject}/{kind}"
        derived = root / f"derivatives/sub-{subject}/{kind}"
        for target in (raw, derived):
            target.mkdir(parents=True)
        shutil.copy(source / f"{image}.nii.gz", raw)
        for seg in ("vert", "subreg"):
            shutil.copy(source / f"{mask.format(seg)}.nii.gz", derived)
    return root
