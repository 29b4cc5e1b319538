"""Images: read from what hospitals have, checked, hashed, and kept in one canonical form.

An image in memory is a ``SimpleITK.Image`` of three dimensions with one number a voxel and no metadata
(headers carry names and dates of patients). Arrays taken from it are indexed z, y, x.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from feature_store.errors import (
    BlobCorrupt,
    DicomSeriesError,
    ImageConstant,
    ImageNotFinite,
    ImageUnitError,
    ImageUnreadable,
)
from pipelines.imaging.integrity import MAX_VOXELS, check_file, is_dicom
from pipelines.imaging.itk_calls import itk_call
from pipelines.imaging.series_header import SeriesHeader

SPACING_MM = (0.05, 30.0)
"""Voxel sizes outside this are headers in metres or micrometres, or no header at all."""

CT_AT_MOST_LOWEST = -50.0
CT_AT_LEAST_HIGHEST = 100.0
CT_WIDEST = (-32768.0, 32767.0)

_GEOMETRY_KEY = "asdeg_geometry"
_RESTORE = "Ingest the case again, or restore a backup."


@dataclass(frozen=True)
class LoadedImage:
    """An image and, where it came as DICOM, what its header says and where each slice's first voxel lies (mm)."""

    image: sitk.Image
    header: SeriesHeader | None = None
    slice_origins: tuple[tuple[float, float, float], ...] = ()


def read_image(path: Path, file: str | None = None) -> sitk.Image:
    """Read NIfTI, NRRD, MetaImage, anything else SimpleITK reads, a DICOM folder, or a multi-frame DICOM file.

    ``file`` is the name used in errors (default: the last part of the path).
    Raises ImageUnreadable, DicomSeriesError, and ImageNotFinite where the reader would hide NaN.
    """
    return load_image(path, file).image


def load_image(
    path: Path, file: str | None = None, *, sequence: str = "", series_number: int | None = None
) -> LoadedImage:
    """As :func:`read_image`, with the DICOM header's modality, study date and scanner.

    Of a DICOM folder with several series the one for ``sequence`` is taken, or the one with ``series_number``:
    see :mod:`pipelines.imaging.dicom_study`.
    """
    file = file or path.name
    try:
        return _load(path, file, sequence, series_number)
    except OSError as error:
        raise ImageUnreadable("it cannot be opened.", action="Check who may read it.", file=file) from error


def _load(path: Path, file: str, sequence: str, series_number: int | None) -> LoadedImage:
    if path.is_dir() or is_dicom(path):
        from pipelines.imaging.dicom_file import dicom_call

        damaged = "a DICOM file is damaged or cut short"
        return dicom_call(lambda: _load_dicom(path, file, sequence, series_number), DicomSeriesError, damaged, file)
    check_file(path, file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    unreadable = "no reader takes this file as an image, or its geometry is sheared"
    itk_call(reader.ReadImageInformation, ImageUnreadable, unreadable, file)
    if float(np.prod([float(n) for n in reader.GetSize()])) > MAX_VOXELS:
        raise ImageUnreadable("its header announces an absurd size.", action="Send the one series.", file=file)
    return LoadedImage(_three_dimensional(itk_call(reader.Execute, ImageUnreadable, unreadable, file), file), None)


def _load_dicom(path: Path, file: str, sequence: str, series_number: int | None) -> LoadedImage:
    from pipelines.imaging.dicom_series import read_volume
    from pipelines.imaging.dicom_study import read_study

    chosen = read_study(path, file).chosen(sequence, series_number)
    image = _three_dimensional(read_volume(chosen.volume, file), file)
    return LoadedImage(image, chosen.header, chosen.volume.origins)


def _three_dimensional(image: sitk.Image, file: str) -> sitk.Image:
    size = image.GetSize()
    if len(size) == 4 and size[3] == 1:
        image = sitk.Extract(image, [*size[:3], 0], [0, 0, 0, 0], sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOSUBMATRIX)
        size = image.GetSize()
    reason = ""
    if len(size) > 3:
        reason = f"it has {len(size)} dimensions, so it is several volumes"
    elif len(size) < 3 or min(size) < 2:
        reason = "it is a single slice; features are computed in three dimensions"
    elif image.GetNumberOfComponentsPerPixel() != 1:
        reason = f"it has {image.GetNumberOfComponentsPerPixel()} numbers a voxel (a colour or vector image)"
    elif image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        reason = "its voxels are complex numbers"
    if reason:
        raise ImageUnreadable(f"{reason}.", action="Send one volume with one number a voxel.", file=file)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    return image


def check_image(image: sitk.Image, sequence: str, file: str = "") -> None:
    """Refuse voxel values that cannot be an image of that sequence.

    A ``ct`` must be in Hounsfield units. The rule: its lowest value is at most -50 (fat is about -100, air
    -1000, and every body image holds one of them), its highest at least 100 (bone), and none lies outside
    the signed 16 bit range (scanners store nothing beyond). Stored values without the offset of -1024, 8 bit
    pictures, z-scored and 0-to-1 images all break one of these.

    Raises ImageNotFinite, ImageConstant, ImageUnitError.
    """
    spacing = image.GetSpacing()
    if not all(SPACING_MM[0] <= s <= SPACING_MM[1] for s in spacing):
        raise ImageUnitError(
            f"a voxel size lies outside {SPACING_MM[0]} to {SPACING_MM[1]} mm.",
            action="Write the header's spacing in millimetres.",
            file=file,
        )
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
        raise ImageNotFinite(
            f"{bad} of {voxels.size} voxels are NaN or infinite.",
            action="Export the series again, or fill the background with a number.",
            file=file,
        )
    low, high = float(voxels.min()), float(voxels.max())
    if low == high:
        raise ImageConstant("every voxel has the same value.", action="Export the series again.", file=file)
    if sequence == "ct":
        _check_hounsfield(low, high, file)


def _check_hounsfield(low: float, high: float, file: str) -> None:
    if low > CT_AT_MOST_LOWEST:
        reason = "nothing is as low as fat or air, so the offset (usually -1024) was left out or the image was windowed"
    elif high < CT_AT_LEAST_HIGHEST:
        reason = "nothing is as high as bone, so the image was normalised or windowed"
    elif low < CT_WIDEST[0] or high > CT_WIDEST[1]:
        reason = "values lie outside what a scanner can store, so the image was scaled"
    else:
        return
    raise ImageUnitError(
        f"these are no Hounsfield units: {reason}.",
        action="Export the CT with its rescale slope and intercept applied.",
        file=file,
    )


def content_hash(image: sitk.Image) -> str:
    """SHA-256 (hex) over pixel type, size, spacing, origin, direction and voxel bytes (little-endian, x fastest)."""
    digest = hashlib.sha256(image.GetPixelIDTypeAsString().encode())
    digest.update(struct.pack("<3q", *image.GetSize()))
    geometry = (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection())
    digest.update(struct.pack("<15d", *(value + 0.0 for value in geometry)))  # -0.0 is 0.0
    voxels = np.ascontiguousarray(sitk.GetArrayViewFromImage(image))
    digest.update(voxels.astype(voxels.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def write_canonical(image: sitk.Image, path: Path) -> None:
    """Write compressed NRRD that :func:`read_canonical` gives back exactly; no metadata of the source.

    NRRD keeps spacing and direction as one product, which loses their last bit; the exact doubles stand in
    a key of our own beside it, and other programs read the file as usual.
    """
    out = sitk.Image(image)
    out.MakeUnique()  # erasing metadata does not do it, and would reach the caller's image
    for key in out.GetMetaDataKeys():
        out.EraseMetaData(key)
    exact = (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection())
    out.SetMetaData(_GEOMETRY_KEY, " ".join(float(value).hex() for value in exact))
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("NrrdImageIO")
    writer.SetFileName(str(path))
    writer.SetUseCompression(True)
    writer.SetCompressionLevel(2)  # past it: seconds for percents, measured on CT
    itk_call(lambda: writer.Execute(out), ImageUnreadable, "the image could not be written", path.name)


def read_canonical(path: Path, expected_hash: str | None = None) -> sitk.Image:
    """Inverse of :func:`write_canonical`.

    Raises BlobCorrupt when the file is not one of these, or its content no longer has ``expected_hash``.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    try:
        image = itk_call(reader.Execute, ImageUnreadable, "not readable", path.name)
        exact = [float.fromhex(value) for value in image.GetMetaData(_GEOMETRY_KEY).split()]
        image.SetSpacing(exact[:3])
        image.SetOrigin(exact[3:6])
        image.SetDirection(exact[6:])
    except (ImageUnreadable, RuntimeError, ValueError) as error:
        raise BlobCorrupt("a stored image cannot be read back.", action=_RESTORE, file=path.name) from error
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    if expected_hash is not None and content_hash(image) != expected_hash:
        raise BlobCorrupt("a stored image no longer has its hash.", action=_RESTORE, file=path.name)
    return image
