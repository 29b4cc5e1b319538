"""DICOM segmentations and structure sets drawn from a label map, by highdicom and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import SimpleITK as sitk
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid


def source_slices(folder: Path) -> list[Dataset]:
    """The slices of a series in order of position, with the identifiers that the standard wants."""
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    study, series = generate_uid(), generate_uid()
    for one in slices:
        one.StudyInstanceUID = one.get("StudyInstanceUID") or study
        one.SeriesInstanceUID = one.get("SeriesInstanceUID") or series
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID
        for keyword in ("AccessionNumber", "StudyID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
            setattr(one, keyword, one.get(keyword) or "")
        for keyword in ("StudyDate", "StudyTime"):
            setattr(one, keyword, one.get(keyword) or None)
    cosines = np.array(slices[0].ImageOrientationPatient, float)
    normal = np.cross(cosines[:3], cosines[3:])
    return sorted(slices, key=lambda one: float(normal @ np.array(one.ImagePositionPatient, float)))


def segmentation(
    slices: Sequence[Dataset],
    labels: np.ndarray,
    kind: SegmentationTypeValues = SegmentationTypeValues.BINARY,
    numbers: Sequence[int] | None = None,
    **options: Any,
) -> Segmentation:
    """``labels`` (slice, row, column) as a segmentation of ``slices``, its labels renumbered to 1, 2, … .

    Or stacked segments (slice, row, column, segment), which may overlap or be fractions.
    """
    if labels.ndim == 3:
        numbers = [int(n) for n in np.unique(labels) if n] if numbers is None else numbers
        renumbered = np.zeros(labels.shape, np.uint8)
        for new, old in enumerate(numbers, start=1):
            renumbered[labels == old] = new
        labels = renumbered
    count = labels.shape[3] if labels.ndim == 4 else len(numbers or ())
    described = [
        SegmentDescription(
            segment_number=n,
            segment_label=f"SEGMENT {n}",
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Vertebra,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for n in range(1, count + 1)
    ]
    return Segmentation(
        slices,
        labels,
        kind,
        described,
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="ACME",
        manufacturer_model_name="DRAWER",
        software_versions="1",
        device_serial_number="1",
        **options,
    )


def pixel_edges(region: np.ndarray) -> list[np.ndarray]:
    """Closed polygons (n, 2; column, row) along the edges of a region's pixels (row, column): exact by construction.

    Every pair of neighbouring pixels of which one is inside gives an edge; the edges are walked to loops.
    """
    padded = np.pad(region.astype(bool), 1)
    following: dict[tuple[float, float], list[tuple[float, float]]] = {}

    def edge(start: tuple[float, float], end: tuple[float, float]) -> None:
        following.setdefault(start, []).append(end)

    for row, column in zip(*np.nonzero(padded), strict=True):
        x, y = column - 1.0, row - 1.0
        if not padded[row - 1, column]:
            edge((x - 0.5, y - 0.5), (x + 0.5, y - 0.5))
        if not padded[row, column + 1]:
            edge((x + 0.5, y - 0.5), (x + 0.5, y + 0.5))
        if not padded[row + 1, column]:
            edge((x + 0.5, y + 0.5), (x - 0.5, y + 0.5))
        if not padded[row, column - 1]:
            edge((x - 0.5, y + 0.5), (x - 0.5, y - 0.5))
    loops = []
    while following:
        start = next(iter(following))
        loop, here = [], start
        while True:
            loop.append(here)
            ends = following[here]
            there = ends.pop()
            if not ends:
                del following[here]
            here = there
            if here == start:
                break
        loops.append(np.array(loop))
    return loops


def structure_set(
    image: sitk.Image,
    regions: dict[int, list[np.ndarray]],
    *,
    frame_of_reference: str = "",
    kind: str = "CLOSED_PLANAR",
) -> Dataset:
    """ROIs by number, each with contours (n, 3) in continuous indices (x, y, z) of ``image``."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(generate_uid())
    dataset.Modality, dataset.PatientName = "RTSTRUCT", "SECRET^NAME"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, contours in regions.items():
        about, drawn = Dataset(), Dataset()
        about.ROINumber, about.ROIName, about.ROIGenerationAlgorithm = number, f"ROI {number}", "MANUAL"
        if frame_of_reference:
            about.ReferencedFrameOfReferenceUID = frame_of_reference
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = []
        for contour in contours:
            item = Dataset()
            item.ContourGeometricType = kind
            points = [image.TransformContinuousIndexToPhysicalPoint([float(v) for v in point]) for point in contour]
            item.NumberOfContourPoints = len(points)
            item.ContourData = [f"{value:.6f}"[:16] for point in points for value in point]
            drawn.ContourSequence.append(item)
        dataset.StructureSetROISequence.append(about)
        dataset.ROIContourSequence.append(drawn)
    return dataset


def contours_of(labels: np.ndarray, number: int) -> list[np.ndarray]:
    """Contours (n, 3) along pixel edges of a label in a map (z, y, x), slice by slice."""
    found = []
    for z in np.flatnonzero((labels == number).any(axis=(1, 2))):
        for loop in pixel_edges(labels[z] == number):
            found.append(np.column_stack([loop, np.full(len(loop), float(z))]))
    return found
