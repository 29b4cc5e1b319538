"""Instances that no change of header makes safe: what may show in the picture, or in a document, who the patient is."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from feature_store.errors import DeidentificationRefused
from pipelines.imaging.dicom_file import sop_class

IMAGES = frozenset(
    {
        CTImageStorage,
        EnhancedCTImageStorage,
        LegacyConvertedEnhancedCTImageStorage,
        MRImageStorage,
        EnhancedMRImageStorage,
        LegacyConvertedEnhancedMRImageStorage,
    }
)
_LABEL_MAPS = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage, which pydicom has no name for yet."""
MASKS = frozenset({SegmentationStorage, _LABEL_MAPS, RTStructureSetStorage})
ACCEPTED = IMAGES | MASKS
"""Storage classes that are taken. Captures, reports, documents, waveforms and presentations are not among them."""

_SCREENS = ("SCREEN", "CAPTURE", "RENDER", "DOSE", "VRT", "REPORT", "PATIENT", "PROTOCOL")
_NOT_NEEDED = "Leave it out: only CT and MR images, SEG and RTSTRUCT are needed."


def refuse_what_shows(dataset: Dataset) -> None:
    """Raise DeidentificationRefused for an instance that may show who the patient is in more than its header."""
    if sop_class(dataset) not in ACCEPTED:
        raise DeidentificationRefused("An instance is no CT or MR image, SEG or RTSTRUCT.", action=_NOT_NEEDED)
    for keyword in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        if _word(dataset, keyword) not in ("", "NO"):
            raise DeidentificationRefused(
                f"An image is marked as showing who the patient is ({keyword}).",
                action="Send the images without annotation burned in, and with the face removed.",
            )
    kinds = [str(kind).upper() for kind in _values(dataset, "ImageType")]
    if any(screen in kind for kind in kinds for screen in _SCREENS):
        raise DeidentificationRefused("An image is a picture of a screen or a page.", action=_NOT_NEEDED)
    if _overlay_in_pixels(dataset):
        raise DeidentificationRefused(
            "An image carries an overlay in the unused bits of its pixels.", action="Export it without overlays."
        )


def _word(dataset: Dataset, keyword: str) -> str:
    return "\\".join(str(value) for value in _values(dataset, keyword)).strip().upper()


def _values(dataset: Dataset, keyword: str) -> list[object]:
    value = dataset.get(keyword)
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _overlay_in_pixels(dataset: Dataset) -> bool:
    return any(
        (group, 0x0102) in dataset and int(dataset[group, 0x0102].value or 0) > 0 and (group, 0x3000) not in dataset
        for group in range(0x6000, 0x6020, 2)
    )
