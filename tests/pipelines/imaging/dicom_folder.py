"""Small DICOM series written on the spot, whole or broken in a stated way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

SPACING = (0.8, 0.8, 3.0)


def write_dicom(
    folder: Path,
    voxels: np.ndarray,
    *,
    series: str = "1.2.3",
    modality: str = "CT",
    positions: list[float] | None = None,
    shear: float = 0.0,
    orientation: str = "1\\0\\0\\0\\1\\0",
    study_date: str = "20240102",
    prefix: str = "s",
    spacing: float = SPACING[0],
) -> list[Path]:
    """One file a slice of ``voxels`` (z, y, x; int16); ``shear`` moves each slice in y by that many mm a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, plane in enumerate(voxels):
        z = positions[i] if positions else i * SPACING[2]
        image = sitk.GetImageFromArray(plane[None].astype(np.int16))
        image.SetSpacing((spacing, spacing, SPACING[2]))
        tags = {
            "0008|0060": modality,
            "0008|0020": study_date,
            "0008|0070": "ACME",
            "0018|0087": "1.5",
            "0020|000d": "1.2",
            "0020|000e": series,
            "0020|0013": str(i + 1),
            "0020|0032": f"-10\\{i * shear}\\{z}",
            "0020|0037": orientation,
            "0010|0010": "SECRET^NAME",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        path = folder / f"{prefix}{len(voxels) - i:03d}.dcm"  # names run against the positions
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(path))
        writer.Execute(image)
        paths.append(path)
    return paths
