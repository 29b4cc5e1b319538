"""Enhanced multi-frame files built by hand: geometry, rescale and contrast of each frame in functional groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage

from tests.pipelines.imaging.dicom_folder import AXIAL, SPACING, Tags, save, slice_dataset

GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "StackID": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "RepetitionTime": "MRTimingAndRelatedParametersSequence",
    "InversionTimes": "MRModifierSequence",
    "InversionRecovery": "MRModifierSequence",
    "FrameType": "MRImageFrameTypeSequence",
    "AcquisitionContrast": "MRImageFrameTypeSequence",
    "ReferencedSegmentNumber": "SegmentIdentificationSequence",
}
"""Which functional group macro an attribute stands in (DICOM PS3.3 C.7.6.16.2)."""


def multi_frame(
    voxels: np.ndarray,
    frames: Sequence[Tags] | None = None,
    *,
    shared: Tags | None = None,
    modality: str = "CT",
    tags: Tags | None = None,
) -> Dataset:
    """One file with ``voxels`` (frame, row, column); ``frames`` says of each what its own groups hold.

    By default the frames lie 3 mm apart along z. Nothing of it stands at the top of the file, as the standard asks.
    """
    if frames is None:
        frames = [{"ImagePositionPatient": [-10.0, 0.0, i * SPACING[2]]} for i in range(len(voxels))]
    common: Tags = {"PixelSpacing": [SPACING[1], SPACING[0]], "ImageOrientationPatient": list(AXIAL), **(shared or {})}
    dataset = slice_dataset(
        voxels.reshape(-1, voxels.shape[2]),
        {
            "Modality": modality,
            "SOPClassUID": EnhancedCTImageStorage if modality == "CT" else EnhancedMRImageStorage,
            "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
            "Rows": voxels.shape[1],
            "NumberOfFrames": len(voxels),
            "PixelSpacing": None,
            "ImagePositionPatient": None,
            "ImageOrientationPatient": None,
            **(tags or {}),
        },
    )
    dataset.SharedFunctionalGroupsSequence = [_groups(common)]
    dataset.PerFrameFunctionalGroupsSequence = [_groups(own) for own in frames]
    return dataset


def write_multi_frame(path: Path, dataset: Dataset) -> Path:
    """Write it, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(dataset, path)


def _groups(values: Tags) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        group = GROUPS[keyword]
        if group not in item:
            setattr(item, group, [Dataset()])
        setattr(item[group].value[0], keyword, value)
    return item
