"""A case folder and a DICOM study with an identifier in every place that can hold one."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml
from pydicom import config
from pydicom.dataset import Dataset

from tests.services.deidentification.identifiers import Planted
from tests.services.dicom.studies import blocks, ct_study, segmentation, write_files

SIZE = (8, 24, 24)
LABELS = {1: {"structure": "vertebra", "level": "L5"}, 2: {"structure": "vertebra", "level": "L4"}}
_MAKES_A_SERIES = {
    "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "ImageType", "PatientID",
    "StudyDate", "SeriesDate", "AcquisitionDate", "PatientName", "StackID", "FrameType", "ConvolutionKernel",
    "RescaleType", "SegmentationType",
}  # fmt: skip
"""What all slices share, or what decides which volume a slice is of."""


def planted_study(planted: Planted, patient: str, *, nested: bool = True) -> list[Dataset]:
    """A CT of six slices with a segmentation; ``patient`` is the id, the same for the whole study.

    ``nested``: the whole dictionary is planted once more in the items of sequences.
    """
    root = "1.2.826.0.1.4711"
    images = ct_study(patient, study=_uid(planted, "StudyInstanceUID"), series=_uid(planted, "SeriesInstanceUID"))
    own = {
        "Manufacturer": planted.token("DICOM: Manufacturer"),
        "ManufacturerModelName": planted.token("DICOM: ManufacturerModelName"),
        "FrameOfReferenceUID": _uid(planted, "FrameOfReferenceUID"),
        "StudyDate": "19900313",
        "PatientName": f"{planted.token('DICOM: PatientName')}^JANE",
        "ImageType": ["ORIGINAL", "PRIMARY", planted.token("DICOM: ImageType")],
    }
    for image in images:
        for keyword, value in own.items():
            setattr(image, keyword, value)
    for number, image in enumerate(images):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{root}.8{number:05d}"
        planted.needles[f"DICOM: SOPInstanceUID {number}"] = str(image.SOPInstanceUID).encode()
    mask = segmentation(images, blocks(images), ["vertebrae_L5", "vertebra L4"], f"{root}.99.1")
    planted.needles["DICOM: StudyDate"] = b"19900313"
    with config.disable_value_validation():
        inner = Dataset()
        if nested:
            planted.fill(inner, "DICOM nested: ", _MAKES_A_SERIES)
        planted.fill(images[0], "DICOM: ", _MAKES_A_SERIES | set(own))
        images[0].ReferencedImageSequence = [inner]
        planted.fill_private(images[0], "DICOM private: ", inner)
    images[0].preamble = planted.token("DICOM file: preamble").encode().ljust(128, b"\0")
    meta = images[0].file_meta
    meta.SourceApplicationEntityTitle = planted.token("DICOM file: source AE title")
    meta.PrivateInformationCreatorUID = _uid(planted, "private information creator")
    meta.PrivateInformation = planted.token("DICOM file: private information").encode()
    images[0].add_new((0xFFFC, 0xFFFC), "OB", planted.token("DICOM file: trailing padding").encode())
    mask.PatientID = patient
    mask.SegmentSequence[0].SegmentDescription = planted.token("DICOM SEG: SegmentDescription")
    mask.SegmentSequence[0].TrackingID = planted.token("DICOM SEG: TrackingID")
    mask.ContentLabel = planted.token("DICOM SEG: ContentLabel")
    mask.ContentDescription = planted.token("DICOM SEG: ContentDescription")
    mask.ContentCreatorName = planted.token("DICOM SEG: ContentCreatorName")
    return [*images, mask]


def _uid(planted: Planted, place: str) -> str:
    uid = f"1.2.826.0.1.4711.{700000 + len(planted.needles)}"
    planted.needles[f"DICOM: {place}"] = uid.encode()
    return uid


def planted_case(folder: Path, planted: Planted, patient: str, site: str) -> Path:
    """A case folder with images in every format; ``patient`` is the hospital's own id."""
    folder.mkdir(parents=True)
    name = {kind: planted.token(f"case folder: name of a {kind}") for kind in ("folder", "image", "mask", "file")}
    inside = folder / name["folder"]
    inside.mkdir()
    *slices, seg = planted_study(planted, patient, nested=False)
    write_files(slices, inside / "dicom")
    (seg_file,) = write_files([seg], inside / "seg")
    dicom_mask = str(seg_file.relative_to(folder))
    nifti, _ = _nifti(inside / f"{name['image']}_t2.nii", planted, "image")
    _, mask = _nifti(inside / f"{name['mask']}.nii", planted, "mask", is_mask=True)
    nrrd = _nrrd(inside / "t1.nrrd", planted)
    meta = _meta_image(inside / "ax.mha", planted)
    _own_map(folder / "own.yaml", planted)
    (folder / f"{name['file']}.txt").write_text(planted.token("case folder: a file beside"))
    own = planted.token("case.yaml: name of a sequence").lower()
    scanner = {"vendor": planted.token("case.yaml: vendor"), "model": planted.token("case.yaml: model")}
    at = {kind: str(path.relative_to(folder)) for kind, path in
          {"nifti": nifti, "mask": mask, "nrrd": nrrd, "meta": meta}.items()}  # fmt: skip
    reader = planted.token("case.yaml: segmentation")
    series: list[dict[str, Any]] = [
        {"sequence": "ct", "image": f"{name['folder']}/dicom", "mask": dicom_mask, "labels": LABELS},
        {"sequence": "t2_sag", "image": at["nifti"], "mask": at["mask"], "labels": "own.yaml", "scanner": scanner},
        {"sequence": "t2_sag", "image": at["nifti"], "mask": at["mask"], "labels": LABELS, "segmentation": reader},
        {"sequence": "t1_sag", "image": at["nrrd"]},
        {"sequence": "t2_ax", "image": at["meta"]},
        {"sequence": f"{own}_water", "image": at["nifti"], "labels": LABELS, "mask": at["mask"]},
        {"sequence": "pd_sag", "image": f"{planted.token('case.yaml: path of an image that is missing')}.nii.gz"},
        {"sequence": "stir_sag", "image": at["nrrd"], planted.token("case.yaml: key of a series"): 1},
        {"sequence": planted.token("case.yaml: sequence that breaks its rule"), "image": at["nrrd"]},
        {"sequence": "dixon_ax", "image": at["nrrd"], "mask": at["mask"],
         "labels": {1: {"structure": planted.token("case.yaml: structure of a label"), "level": "L5"}}},
        {"sequence": "flair_ax", "image": at["nrrd"], "mask": at["mask"], "labels":
         f"{planted.token('case.yaml: name of a label map')}.yaml"},
    ]  # fmt: skip
    clinical = {
        "age": 61, "sex": planted.token("case.yaml: sex"), "bmi": planted.token("case.yaml: bmi"),
        "diagnosis": f"stenosis of {planted.token('case.yaml: diagnosis')}",
        "procedure": planted.token("case.yaml: procedure"), "image_quality": planted.token("case.yaml: image_quality"),
        "fused_levels": [planted.token("case.yaml: fused_levels")], planted.token("case.yaml: a clinical key"): 1,
    }  # fmt: skip
    surgery = date(1990, 4, 17)
    planted.needles["case.yaml: index_date"] = b"1990-04-17"
    manifest = {"patient_id": patient, "site": site, "index_date": surgery, "clinical": clinical, "series": series}
    text = yaml.safe_dump(manifest, sort_keys=False)
    (folder / "case.yaml").write_text(f"# {planted.token('case.yaml: a comment')}\n{text}")
    return folder


def voxels(seed: int, is_mask: bool = False) -> np.ndarray:
    """An image with texture, or two blocks on it (z, y, x)."""
    if not is_mask:
        return np.random.default_rng(seed).integers(0, 900, SIZE).astype(np.int16)
    drawn = np.zeros(SIZE, np.int16)
    drawn[1:-1, 3:9, 4:18], drawn[1:-1, 11:17, 4:18] = 1, 2
    return drawn


def _image(seed: int, is_mask: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels(seed, is_mask))
    image.SetSpacing((1.0, 1.0, 3.0))
    return image


def _nifti(path: Path, planted: Planted, what: str, is_mask: bool = False) -> tuple[Path, Path]:
    """Texts of the header, an extension, and the name that gzip keeps."""
    sitk.WriteImage(_image(1, is_mask), str(path))
    data = bytearray(path.read_bytes())
    path.unlink()
    for place, offset, size in (
        ("db_name", 14, 18),
        ("intent_name", 328, 16),
        ("descrip", 148, 80),
        ("aux_file", 228, 24),
    ):
        data[offset : offset + size] = planted.token(f"NIfTI {what}: {place}").encode().ljust(size, b"\0")
    note = planted.token(f"NIfTI {what}: extension").encode().ljust(24, b"\0")
    data[108:112] = np.float32(384).tobytes()
    data = data[:348] + b"\1\0\0\0" + (32).to_bytes(4, "little") + (6).to_bytes(4, "little") + note + data[352:]
    buffer = io.BytesIO()
    with gzip.GzipFile(planted.token(f"NIfTI {what}: name in gzip"), "wb", fileobj=buffer) as file:
        file.write(bytes(data))
    packed = path.with_suffix(".nii.gz")
    packed.write_bytes(buffer.getvalue())
    return packed, packed


def _nrrd(path: Path, planted: Planted) -> Path:
    image = _image(2)
    image.SetMetaData("PatientName", planted.token("NRRD: key and value"))
    image.SetMetaData(planted.token("NRRD: key"), "1")
    sitk.WriteImage(image, str(path))
    head, body = path.read_bytes().split(b"\n\n", 1)
    comment = f"# {planted.token('NRRD: comment')}\ncontent: {planted.token('NRRD: content')}"
    path.write_bytes(head + b"\n" + comment.encode() + b"\n\n" + body)
    return path


def _meta_image(path: Path, planted: Planted) -> Path:
    sitk.WriteImage(_image(3), str(path))
    head, body = path.read_bytes().split(b"ElementDataFile", 1)
    comment = f"Comment = {planted.token('MetaImage: comment')}\nName = {planted.token('MetaImage: name')}\n"
    path.write_bytes(head + comment.encode() + b"ElementDataFile" + body)
    return path


def _own_map(path: Path, planted: Planted) -> None:
    named = {1: {**LABELS[1], "name": planted.token("label map: name of a label")}}
    path.write_text(
        yaml.safe_dump(
            {
                "name": planted.token("label map: name"), "note": planted.token("label map: note"), "labels": named,
                "also": {2: planted.token("label map: name outside the vocabulary")},
            }
        )
    )  # fmt: skip


def planted_bids(folder: Path, planted: Planted, patients: Sequence[str]) -> Path:
    """A BIDS data set of subjects whose labels are the hospital's ids."""
    import json

    folder.mkdir()
    described = {"Name": planted.token("BIDS: name of the data set"), "BIDSVersion": "1.8.0"}
    (folder / "dataset_description.json").write_text(json.dumps(described))
    rows = ["participant_id\tage\tsex\tdiagnosis\t" + planted.token("BIDS: a column of participants.tsv")]
    for patient in patients:
        told = planted.token("BIDS: diagnosis in participants.tsv")
        rows.append(f"sub-{patient}\t61\tF\t{told}\t{planted.token('BIDS: a cell of participants.tsv')}")
        anat = folder / f"sub-{patient}" / "anat"
        anat.mkdir(parents=True)
        stem = f"sub-{patient}_acq-ax_T2w"
        sitk.WriteImage(_image(4), str(anat / f"{stem}.nii.gz"))
        texts = ("Manufacturer", "ManufacturersModelName", "InstitutionName", "PatientName", "AcquisitionTime")
        (anat / f"{stem}.json").write_text(json.dumps({text: planted.token(f"BIDS sidecar: {text}") for text in texts}))
        broken = planted.token("BIDS: acq of a broken image")
        (anat / f"sub-{patient}_acq-{broken}_T1w.nii.gz").write_bytes(b"broken")
        masks = folder / "derivatives" / "manual" / f"sub-{patient}" / "anat"
        masks.mkdir(parents=True)
        sitk.WriteImage(
            _image(4, is_mask=True), str(masks / f"{stem.removesuffix('_T2w')}_space-T2w_desc-own_dseg.nii.gz")
        )
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n")
    return folder
