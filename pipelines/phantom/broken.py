"""A case folder with two faults, to see named errors while the rest stays usable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import yaml

from pipelines.phantom.case_folder import write_case, write_manifest
from pipelines.phantom.patient import draw_patient
from pipelines.phantom.scanner import Site

BROKEN_NUMBER = 9999


def write_broken_case(seed: int, site: Site, folder: Path, patient_id: str) -> None:
    """T1 has NaN voxels (ImageNotFinite), the T2 mask lacks a declared label (LabelEmpty); CT and axial T2 are
    sound. Without outcome.
    """
    write_case(draw_patient(seed, BROKEN_NUMBER), site, folder)
    manifest = yaml.safe_load((folder / "case.yaml").read_text(encoding="utf-8"))
    series = {entry["sequence"]: entry for entry in manifest["series"]}

    image_path = folder / series["t1_sag"]["image"]
    image = sitk.ReadImage(str(image_path), sitk.sitkFloat32)
    image[1, 1, 1] = float(np.nan)
    sitk.WriteImage(image, str(image_path), useCompression=True)

    mask_path = folder / series["t2_sag"]["mask"]
    mask = sitk.ReadImage(str(mask_path))
    emptied = min(series["t2_sag"]["labels"])
    sitk.WriteImage(mask * sitk.Cast(mask != emptied, mask.GetPixelID()), str(mask_path), useCompression=True)
    write_manifest(folder, manifest | {"patient_id": patient_id})
