"""One DICOM file: opened by pydicom, told from what merely lies beside it, and never with pydicom's own errors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pydicom
from pydicom.dataset import Dataset

from feature_store.errors import DicomSeriesError, InputError
from pipelines.imaging.integrity import is_dicom

T = TypeVar("T")

WHOLE = "Export the whole series again, one series a folder."
_NO_IMAGES = frozenset({"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "REG", "PR", "KO", "SR", "FID", "ANN", "DOC"})
"""Modalities of objects that lie in a study beside its images. Masks among them are read by :mod:`masks`."""


def dicom_call(call: Callable[[], T], error: type[InputError], message: str, file: str, action: str = WHOLE) -> T:
    """Run ``call`` without warnings; whatever the DICOM library throws becomes ``error``.

    A damaged file makes it throw nearly anything (struct, zlib, key, index and attribute errors). Its own text is
    left out of the message: it holds header values and paths of the machine.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    except InputError:
        raise
    except Exception as thrown:
        if isinstance(thrown, PermissionError):
            raise
        kind = "not enough memory" if isinstance(thrown, MemoryError) else message
        raise error(f"{kind}.", action=action, file=file) from thrown


def read_dataset(path: Path, file: str, error: type[InputError] = DicomSeriesError, *, pixels: bool = True) -> Dataset:
    """The whole file, or its header only. Raises ``error`` where it is damaged."""
    return dicom_call(
        lambda: pydicom.dcmread(path, stop_before_pixels=not pixels, force=True),
        error,
        "a DICOM file is damaged or cut short",
        file,
    )


def sop_class(dataset: Dataset) -> str:
    """The storage class's UID, from the file's meta group where the data set has it emptied; '' if nowhere."""
    meta = getattr(dataset, "file_meta", None)
    return str(dataset.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta else "") or "")


def image_files(folder: Path, file: str) -> Iterator[tuple[Path, Dataset]]:
    """Every DICOM image at any depth of a folder, with its header; in order of the paths.

    Passed over: DICOMDIR, hidden files, what is no DICOM, and DICOM objects that are no images (reports,
    presentation states, structure sets, segmentations, dose). Folders that are links are not entered.

    Raises DicomSeriesError for a file that is damaged or cut short before it says which series it belongs to.
    """
    for path in _files(folder):
        if not is_dicom(path):
            if path.suffix.lower() in (".dcm", ".ima"):
                raise _damaged(file)
            continue
        dataset = read_dataset(path, file, pixels=False)
        if _is_image(dataset, file):
            yield path, dataset


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.upper() != "DICOMDIR":
                yield Path(where) / name


def _is_image(dataset: Dataset, file: str) -> bool:
    def look() -> bool:
        kind, modality = sop_class(dataset), str(dataset.get("Modality") or "")
        if kind == pydicom.uid.MediaStorageDirectoryStorage or modality in _NO_IMAGES:
            return False
        if dataset.get("Rows") and dataset.get("Columns"):
            return True
        if kind and "Image Storage" not in pydicom.uid.UID(kind).name:
            return False
        if dataset.get("SeriesInstanceUID"):
            return True  # cut short behind its identifiers: the fault of that series only
        raise _damaged(file)

    return dicom_call(look, DicomSeriesError, "a DICOM file is damaged or cut short", file)


def _damaged(file: str) -> DicomSeriesError:
    return DicomSeriesError(
        "a DICOM file in the folder is damaged, cut short, or holds no image.", action=WHOLE, file=file
    )
