"""DICOM series that are not one whole volume, or not the one that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGLSLossless, RLELossless

from feature_store.errors import (
    DicomSeriesError,
    ImageUnitError,
)
from tests.pipelines.imaging.dicom_folder import CORONAL, SAGITTAL, recoded, save, slice_dataset, write_dicom
from tests.pipelines.imaging.malformed_files import file_of
from tests.pipelines.imaging.malformed_kind import IMAGE, Kind
from tests.pipelines.imaging.multi_frame_file import multi_frame, write_multi_frame

T1 = {"EchoTime": 12.0, "RepetitionTime": 600.0}
T2 = {"EchoTime": 95.0, "RepetitionTime": 3500.0}


def voxels_of(slices: int = 6, seed: int = 3) -> np.ndarray:
    """Like a CT's, (slice, row, column)."""
    return np.random.default_rng(seed).integers(-1000, 2000, (slices, 8, 9))


def a_series(voxels: np.ndarray | None = None, **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write_dicom(folder / IMAGE, voxels_of() if voxels is None else voxels, **options)

    return make


def _both(*makers: Callable[[Path], Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for maker in makers:
            maker(folder)

    return make


def _edited(edit: Callable[[Dataset], None], which: slice = slice(2, 3), **options: Any) -> Callable[[Path], None]:
    """A series of which some files were changed afterwards."""

    def make(folder: Path) -> None:
        for path in write_dicom(folder / IMAGE, voxels_of(), **options)[which]:
            dataset = pydicom.dcmread(path)
            edit(dataset)
            save(dataset, path)

    return make


def _without(keyword: str) -> Callable[[Path], None]:
    return _edited(lambda dataset: delattr(dataset, keyword))


def _cut_last(left: int) -> Callable[[Path], None]:
    """An end slice: positions alone would not show that it is gone."""

    def make(folder: Path) -> None:
        path = write_dicom(folder / IMAGE, voxels_of())[-1]
        path.write_bytes(path.read_bytes()[:left])

    return make


def _one_left_out(folder: Path) -> None:
    write_dicom(folder / IMAGE, voxels_of())[2].unlink()


def _undecodable(dataset: Dataset) -> None:
    dataset.PixelData = encapsulate([b"\x00" * 64])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.103")


def _another_size(dataset: Dataset) -> None:
    recoded(dataset, RLELossless)
    dataset.Rows = 16


def _damaged_stream(dataset: Dataset) -> None:
    recoded(dataset, JPEGLSLossless)
    data = bytearray(dataset.PixelData)
    data[40:-8] = bytes(len(data) - 48)
    dataset.PixelData = bytes(data)


def _more_bits(dataset: Dataset) -> None:
    dataset.PixelData = np.full((8, 9), 60000, np.uint16).tobytes()
    dataset.PixelRepresentation = 0
    recoded(dataset, JPEGLSLossless)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024


def _lookup(dataset: Dataset) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 16], np.array([0, 1, 4, 9], np.uint16).tobytes()
    dataset.ModalityLUTSequence = [table]


def _coloured(dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = bytes(8 * 9 * 3)


def _report(folder: Path) -> None:
    (folder / IMAGE).mkdir()
    report = slice_dataset(
        np.zeros((2, 2), np.int16), {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}
    )
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    save(report, folder / IMAGE / "report.dcm")


def a_multi_frame(edit: Callable[[Dataset], None] = lambda dataset: None, **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        dataset = multi_frame(voxels_of().astype(np.int16), **options)
        edit(dataset)
        write_multi_frame(folder / IMAGE / "a.dcm", dataset)

    return make


def _fewer_groups(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence.pop()


def _no_groups(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence


def _heights(*heights: float, **of_each: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"ImagePositionPatient": [0.0, 0.0, z], **{k: v[i] for k, v in of_each.items()}} for i, z in enumerate(heights)
    ]


_TURNED = [[1.0, 0, 0, 0, 1.0, 0]] * 4 + [list(SAGITTAL)] * 2
_MR = {"modality": "MR", "orientation": SAGITTAL}

SERIES: dict[str, Kind] = {
    "DICOM: empty folder": Kind(DicomSeriesError, "no DICOM image", lambda f: (f / IMAGE).mkdir()),
    "DICOM: folder without DICOM": Kind(
        DicomSeriesError,
        "no DICOM image",
        _both(lambda f: (f / IMAGE).mkdir(), file_of(f"{IMAGE}/a.txt", lambda _: b"x")),
    ),
    "DICOM: a report only": Kind(DicomSeriesError, "no DICOM image", _report),
    "DICOM: two series": Kind(
        DicomSeriesError,
        r"2 series \(12 files\), 2 fit equally: series without a number: axial, 6 slices of 3.0 mm",
        _both(a_series(), a_series(series="1.2.4", prefix="t")),
    ),
    "DICOM: none fits the sequence": Kind(
        DicomSeriesError,
        "none fits for t2_sag: series 1: sagittal, t1, 6 slices",
        _both(
            a_series(tags={**T1, "SeriesNumber": 1}, **_MR),
            a_series(tags={**T1, "SeriesNumber": 2}, series="1.2.4", prefix="t", **_MR),
        ),
        "t2_sag",
    ),
    "DICOM: pinned series is not there": Kind(DicomSeriesError, "no series 7", a_series(), "ct", 7),
    "DICOM: T1 called t2_sag": Kind(DicomSeriesError, "times say t1", a_series(tags=T1, **_MR), "t2_sag"),
    "DICOM: STIR called t2_sag": Kind(
        DicomSeriesError, "times say stir", a_series(tags={**T2, "InversionTime": 160.0}, **_MR), "t2_sag"
    ),
    "DICOM: Dixon water called t2_sag": Kind(
        DicomSeriesError,
        "say dixon",
        a_series(tags={**T2, "ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"]}, **_MR),
        "t2_sag",
    ),
    "DICOM: coronal called t2_ax": Kind(
        DicomSeriesError, "slices are coronal", a_series(tags=T2, modality="MR", orientation=CORONAL), "t2_ax"
    ),
    "DICOM: MR called ct": Kind(ImageUnitError, "modality is MR", a_series(modality="MR"), "ct"),
    "DICOM: empty file": Kind(DicomSeriesError, "damaged, cut short, or holds no image", _cut_last(0)),
    "DICOM: header cut short": Kind(DicomSeriesError, "damaged, cut short, or holds no image", _cut_last(200)),
    "DICOM: pixels cut short": Kind(DicomSeriesError, "pixels are damaged", _cut_last(-20)),
    "DICOM: pixels missing": Kind(DicomSeriesError, "pixels are damaged", _without("PixelData")),
    "DICOM: compressed pixels damaged": Kind(DicomSeriesError, "pixels are damaged", _edited(_damaged_stream)),
    "DICOM: unsupported compression": Kind(DicomSeriesError, "MPEG-4.* is not supported", _edited(_undecodable)),
    "DICOM: pixels of another size": Kind(DicomSeriesError, "differ in size", _edited(_another_size)),
    "DICOM: more bits than stated": Kind(
        DicomSeriesError, "larger numbers than the bits", _edited(_more_bits, slice(None))
    ),
    "DICOM: missing slice": Kind(
        DicomSeriesError, r"1 of 4 distances are not the usual 3.00 mm \(6.00 mm\)", _one_left_out
    ),
    "DICOM: uneven slices": Kind(DicomSeriesError, "2 of 5 distances", a_series(positions=[0, 3, 6, 9.4, 12, 15])),
    "DICOM: doubled slices": Kind(
        DicomSeriesError, "2 of 8 slices", _both(a_series(), a_series(voxels_of(2), prefix="again"))
    ),
    "DICOM: every slice doubled": Kind(DicomSeriesError, "3 of 6 slices", a_series(positions=[0, 0, 3, 3, 6, 6])),
    "DICOM: two echoes, one lacks a slice": Kind(
        DicomSeriesError,
        "5 of 11 slices lie where another one lies",
        _both(
            a_series(modality="MR", tags={"EchoTime": 20.0}),
            a_series(modality="MR", tags={"EchoTime": 90.0}, prefix="t"),
            lambda folder: (folder / IMAGE / "t003.dcm").unlink(),
        ),
    ),
    "DICOM: two phases": Kind(
        DicomSeriesError,
        r"fit for ct equally: .*temporal position 1\).*temporal position 2\)",
        _both(
            a_series(tags={"TemporalPositionIdentifier": 1}),
            a_series(tags={"TemporalPositionIdentifier": 2}, prefix="t"),
        ),
        "ct",
    ),
    "DICOM: single slice": Kind(DicomSeriesError, "single slice", a_series(voxels_of(1))),
    "DICOM: localizer among the slices": Kind(
        DicomSeriesError,
        "size, pixel spacing or orientation",
        _both(a_series(), a_series(voxels_of(1), orientation=SAGITTAL, prefix="loc")),
    ),
    "DICOM: two pixel spacings": Kind(
        DicomSeriesError,
        "size, pixel spacing or orientation",
        _both(a_series(voxels_of(3)), a_series(voxels_of(3), origin=(-10, 0, 9), spacing=0.9, prefix="t")),
    ),
    "DICOM: gantry tilt": Kind(DicomSeriesError, "tilted by 9.5 degrees", a_series(shear=0.5)),
    "DICOM: a slice moved within its plane": Kind(
        DicomSeriesError,
        "1 of 6 slices are shifted",
        a_series(each=lambda i: {"ImagePositionPatient": [-8.0, 0.0, 6.0]} if i == 2 else {}),
    ),
    "DICOM: no orientation": Kind(DicomSeriesError, "lacks its position", _without("ImageOrientationPatient")),
    "DICOM: orientation that is none": Kind(
        DicomSeriesError, "lacks its position", a_series(tags={"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]})
    ),
    "DICOM: no position": Kind(DicomSeriesError, "lacks its position", _without("ImagePositionPatient")),
    "DICOM: no pixel spacing": Kind(DicomSeriesError, "lacks its position", _without("PixelSpacing")),
    "DICOM: mosaic": Kind(
        DicomSeriesError, "mosaic", a_series(tags={"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, modality="MR")
    ),
    "DICOM: in colour": Kind(DicomSeriesError, "in colour", _edited(_coloured, slice(None))),
    "DICOM: stored inverted": Kind(
        DicomSeriesError, "MONOCHROME1", a_series(tags={"PhotometricInterpretation": "MONOCHROME1"})
    ),
    "DICOM: values through a look-up table": Kind(DicomSeriesError, "look-up table", _edited(_lookup, slice(None))),
    "DICOM: rescale slope of 0": Kind(DicomSeriesError, "slope is 0", a_series(tags={"RescaleSlope": 0})),
    "DICOM: CT stored without its offset": Kind(ImageUnitError, "offset", a_series(np.abs(voxels_of())), "ct"),
    "multi-frame: no functional groups": Kind(DicomSeriesError, "where its frames lie", a_multi_frame(_no_groups)),
    "multi-frame: a frame without its group": Kind(
        DicomSeriesError, "where its frames lie", a_multi_frame(_fewer_groups)
    ),
    "multi-frame: a frame without position": Kind(
        DicomSeriesError, "lacks its position", a_multi_frame(frames=[*_heights(0, 3, 6, 9, 12), {}])
    ),
    "multi-frame: mixed orientation": Kind(
        DicomSeriesError,
        "size, pixel spacing or orientation",
        a_multi_frame(frames=_heights(0, 3, 6, 9, 12, 15, ImageOrientationPatient=_TURNED), shared={}),
    ),
    "multi-frame: missing frame": Kind(
        DicomSeriesError, "missing or uneven", a_multi_frame(frames=_heights(0, 3, 6, 12, 15, 18))
    ),
    "multi-frame: phases": Kind(
        DicomSeriesError,
        "temporal position 1",
        a_multi_frame(frames=_heights(0, 3, 6, 0, 3, 6, TemporalPositionIndex=[1, 1, 1, 2, 2, 2])),
        "ct",
    ),
    "multi-frame: pixels cut short": Kind(
        DicomSeriesError, "pixels are damaged", a_multi_frame(lambda d: setattr(d, "PixelData", d.PixelData[:-100]))
    ),
}
