"""Small studies as a scanner and a drawing tool would send them: whole instances with identifiers in them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import SimpleITK as sitk
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from tests.pipelines.imaging.dicom_folder import AXIAL, SAGITTAL, Tags, slice_dataset
from tests.pipelines.imaging.mask_files import contours_of, source_slices, structure_set

PATIENT = "SECRET-4711"


def ct_study(
    patient: str = PATIENT,
    study: str = "1.2.3",
    series: str = "1.2.3.1",
    slices: int = 6,
    seed: int = 0,
    **tags: object,
) -> list[Dataset]:
    """An axial CT, each slice with a UID of its own under the series'."""
    rng = np.random.default_rng(seed)
    voxels = rng.integers(-200, 900, (slices, 24, 24)).astype(np.int16)
    return [_slice(plane, i, patient, study, series, dict(tags)) for i, plane in enumerate(voxels)]


def t2_study(patient: str = PATIENT, study: str = "1.2.4", series: str = "1.2.4.1", slices: int = 6) -> list[Dataset]:
    """A sagittal T2."""
    voxels = np.random.default_rng(1).integers(0, 900, (slices, 24, 24)).astype(np.int16)
    tags: Tags = {
        "Modality": "MR", "ImageOrientationPatient": list(SAGITTAL), "EchoTime": 100.0, "RepetitionTime": 4000.0,
        "ScanningSequence": "SE", "FrameOfReferenceUID": f"{study}.9", "MagneticFieldStrength": 1.5,
    }  # fmt: skip
    return [_slice(plane, i, patient, study, series, tags) for i, plane in enumerate(voxels)]


def _slice(plane: np.ndarray, i: int, patient: str, study: str, series: str, tags: Tags) -> Dataset:
    axes = np.array(tags.get("ImageOrientationPatient", AXIAL), float)
    place = np.array([-10.0, 0.0, 0.0]) + 3.0 * i * np.cross(axes[:3], axes[3:])
    usual: Tags = {
        "PatientID": patient, "PatientName": "SECRET^NAME", "StudyInstanceUID": study, "SeriesInstanceUID": series,
        "SOPInstanceUID": f"{series}.{i + 1}", "FrameOfReferenceUID": f"{study}.9", "SeriesNumber": 3,
        "InstanceNumber": i + 1, "ImagePositionPatient": [float(v) for v in place],
        "AccessionNumber": "SECRET-A", "StudyID": "S", "StudyTime": "101010", "PatientBirthDate": "19500101",
        "PatientSex": "F", "ReferringPhysicianName": "SECRET^DOCTOR", "StudyDescription": "SECRET spine",
    }  # fmt: skip
    return slice_dataset(plane, {**usual, **tags})


def blocks(images: Sequence[Dataset], labels: int = 2) -> np.ndarray:
    """A label map (slice, row, column) with blocks that have texture."""
    drawn = np.zeros((len(images), images[0].Rows, images[0].Columns), np.uint8)
    for n in range(labels):
        drawn[1:-1, 3 + 8 * n : 9 + 8 * n, 4:18] = n + 1
    return drawn


def segmentation(
    images: Sequence[Dataset],
    labels: np.ndarray,
    names: Sequence[str],
    uid: str,
    drawn_at: str = "20240105",
    **options: object,
) -> Dataset:
    """``labels`` (numbered from 1) as a DICOM SEG whose segments have those names."""
    described = [
        SegmentDescription(
            segment_number=n,
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Organ,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for n, name in enumerate(names, start=1)
    ]
    mask = Segmentation(
        list(images), labels, SegmentationTypeValues.BINARY, described,
        series_instance_uid=f"{uid}.0", series_number=100, sop_instance_uid=uid, instance_number=1,
        manufacturer="ACME", manufacturer_model_name="DRAWER", software_versions="1", device_serial_number="SECRET-D",
        **options,
    )  # fmt: skip
    mask.ContentDate, mask.ContentTime = drawn_at, "120000"
    return mask


def structures(images: Sequence[Dataset], names: Mapping[str, int], uid: str = "1.2.3.70") -> Dataset:
    """The blocks as an RTSTRUCT: an ROI a name, around the block of that number."""
    first, second = (np.array(one.ImagePositionPatient, float) for one in images[:2])
    grid = sitk.Image(images[0].Columns, images[0].Rows, len(images), sitk.sitkInt16)
    grid.SetOrigin(first.tolist())
    grid.SetSpacing([*map(float, reversed(images[0].PixelSpacing)), float(np.linalg.norm(second - first))])
    labels = blocks(images)
    drawn = structure_set(
        grid,
        {n: contours_of(labels, block) for n, block in enumerate(names.values(), start=1)},
        frame_of_reference=images[0].FrameOfReferenceUID,
    )
    for item, name in zip(drawn.StructureSetROISequence, names, strict=True):
        item.ROIName = name
    for keyword in ("PatientID", "StudyInstanceUID", "StudyDate"):
        setattr(drawn, keyword, images[0].get(keyword))
    drawn.SeriesInstanceUID = f"{uid}.0"
    drawn.SOPInstanceUID = drawn.file_meta.MediaStorageSOPInstanceUID = uid
    return drawn


def ct_with_mask(patient: str = PATIENT, seed: int = 0) -> list[Dataset]:
    """A CT and the segmentation of two of its vertebrae: seven instances."""
    images = ct_study(patient, seed=seed)
    return [*images, segmentation(images, blocks(images), ["vertebrae_L5", "vertebra L4"], "1.2.3.77")]


def real_ct(shared_data: Path, patient: str = "SECRET-REAL") -> list[Dataset]:
    """The real CT series as it lies there (JPEG 2000), with identifiers, and its label map as a DICOM SEG."""
    folder = shared_data / "spine/ct_dicom"
    slices = source_slices(folder / "series")
    for one in slices:
        one.PatientID, one.PatientName = patient, "SECRET^REAL"
        one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.9", "1.2.9.1"  # empty in the files
    mask = sitk.DICOMOrient(sitk.ReadImage(str(folder / "seg.nii.gz")), "LPS")
    voxels, numbers = sitk.GetArrayFromImage(mask), (32, 33, 86, 87)
    labels = np.zeros(voxels.shape, np.uint8)
    for new, old in enumerate(numbers, start=1):
        labels[voxels == old] = new
    names = ["vertebrae_T12", "vertebrae_T11", "autochthon_left", "autochthon_right"]
    return [*slices, segmentation(slices, labels, names, "1.2.9.77")]


def as_file(dataset: Dataset) -> bytes:
    """A PS3.10 file."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def write_files(datasets: Sequence[Dataset], folder: Path) -> list[Path]:
    """A file each, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, dataset in enumerate(datasets):
        path = folder / f"{number:04d}.dcm"
        path.write_bytes(as_file(dataset))
        paths.append(path)
    return paths
