"""Which attributes are kept, and as what: those that the readers of images and masks need. All others go.

The Basic Profile names what must go; whatever else a vendor writes may name a person as well, so nothing is kept
that is not listed here. Where the profile wants a kept attribute replaced, its rule replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import MappingProxyType
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import BaseTag, Tag

from services.ingest.deidentification import values
from services.ingest.deidentification.site_key import SiteKey

Rule = Callable[[Any, SiteKey], Any]
"""From an attribute's value to the one that is kept; None: it is removed."""

NUMBERS = """
    SliceThickness KVP EchoTime RepetitionTime InversionTime InversionTimes EffectiveEchoTime EchoNumbers
    EchoTrainLength FlipAngle MagneticFieldStrength SpacingBetweenSlices NumberOfAverages PixelBandwidth
    GantryDetectorTilt ReconstructionDiameter DiffusionBValue ContrastBolusAgentNumber SeriesNumber
    AcquisitionNumber InstanceNumber TemporalPositionIdentifier TemporalPositionIndex InStackPositionNumber
    FrameAcquisitionNumber DimensionIndexValues DimensionIndexPointer FunctionalGroupPointer
    ImagePositionPatient ImageOrientationPatient SliceLocation PixelSpacing NumberOfFrames SamplesPerPixel
    PlanarConfiguration Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue
    PixelPaddingRangeLimit SmallestImagePixelValue LargestImagePixelValue WindowCenter WindowWidth
    RescaleIntercept RescaleSlope LossyImageCompressionRatio LUTDescriptor MaximumFractionalValue SegmentNumber
    ReferencedSegmentNumber ReferencedFrameNumber ROINumber ReferencedROINumber ObservationNumber
    NumberOfContourPoints ContourNumber ContourData
"""

UIDS = """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID DimensionOrganizationUID
    ReferencedSOPClassUID ReferencedSOPInstanceUID ReferencedFrameOfReferenceUID
"""

SEQUENCES = """
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelMeasuresSequence PlanePositionSequence
    PlaneOrientationSequence PixelValueTransformationSequence FrameVOILUTSequence FrameContentSequence
    CTImageFrameTypeSequence CTReconstructionSequence MRImageFrameTypeSequence MREchoSequence
    MRTimingAndRelatedParametersSequence MRModifierSequence MRDiffusionSequence ContrastBolusUsageSequence
    DimensionOrganizationSequence DimensionIndexSequence DerivationImageSequence SourceImageSequence
    ModalityLUTSequence SegmentSequence SegmentIdentificationSequence SegmentedPropertyCategoryCodeSequence
    SegmentedPropertyTypeCodeSequence SegmentedPropertyTypeModifierCodeSequence AnatomicRegionSequence
    AnatomicRegionModifierSequence ReferencedSeriesSequence ReferencedInstanceSequence ReferencedImageSequence
    StructureSetROISequence ROIContourSequence ContourSequence ContourImageSequence RTROIObservationsSequence
    ReferencedFrameOfReferenceSequence RTReferencedStudySequence RTReferencedSeriesSequence
"""

TERMS = {
    "Modality": "CT MR SEG RTSTRUCT",
    "PatientPosition": "HFS HFP HFDR HFDL FFS FFP FFDR FFDL",
    "ScanningSequence": "SE IR GR EP RM",
    "SequenceVariant": "SK MTC SS TRSS SP MP OSP TOF NONE",
    "ScanOptions": "PER RG CG PPG FC PFF PFP SP FS SFS FATSAT FAT FAT_AND_WATER SPAIR SPIR WATER NONE",
    "SpectrallySelectedSuppression": "FAT WATER FAT_AND_WATER SILICON_GEL NONE",
    "MRAcquisitionType": "2D 3D",
    "EchoPulseSequence": "SPIN GRADIENT BOTH",
    "EchoPlanarPulseSequence": "YES NO",
    "InversionRecovery": "YES NO",
    "DiffusionDirectionality": "DIRECTIONAL BMATRIX ISOTROPIC NONE",
    "AcquisitionContrast": "DIFFUSION FLOW_ENCODED FLUID_ATTENUATED PERFUSION PROTON_DENSITY STIR TAGGING T1 T2 "
    "T2_STAR TOF UNKNOWN MIXED",
    "PhotometricInterpretation": "MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_ICT YBR_RCT",
    "RescaleType": "HU US OD NORMALIZED",
    "LossyImageCompression": "00 01",
    "LossyImageCompressionMethod": "ISO_10918_1 ISO_14495_1 ISO_15444_1",
    "BurnedInAnnotation": "NO",
    "RecognizableVisualFeatures": "NO",
    "SegmentationType": "BINARY FRACTIONAL LABELMAP",
    "SegmentationFractionalType": "PROBABILITY OCCUPANCY",
    "SegmentsOverlap": "YES NO UNDEFINED",
    "SegmentAlgorithmType": "AUTOMATIC SEMIAUTOMATIC MANUAL",
    "ROIGenerationAlgorithm": "AUTOMATIC SEMIAUTOMATIC MANUAL",
    "RTROIInterpretedType": "ORGAN AVOIDANCE CONTROL",
    "ContourGeometricType": "POINT OPEN_PLANAR OPEN_NONPLANAR CLOSED_PLANAR CLOSEDPLANAR_XOR",
}

OTHERS: dict[str, Rule] = {
    "ImageType": values.image_type,
    "FrameType": values.image_type,
    "Manufacturer": values.scanner,
    "ManufacturerModelName": values.scanner,
    "ConvolutionKernel": values.kernel,
    "ContrastBolusAgent": values.contrast_agent,
    "StackID": values.stack,
    "SegmentLabel": values.region_name,
    "ROIName": values.region_name,
    "CodeValue": values.code_part,
    "CodingSchemeDesignator": values.code_part,
    "CodeMeaning": values.code_part,
    "PixelData": values.pixels,
}


@cache
def kept() -> MappingProxyType[BaseTag, Rule | None]:
    """The rule of each attribute that is kept, by tag; None for a sequence, whose items are kept by the same rules."""
    rules: dict[str, Rule | None] = dict.fromkeys(NUMBERS.split(), values.numbers)
    rules |= dict.fromkeys(UIDS.split(), values.uids)
    rules |= {keyword: values.one_of(terms) for keyword, terms in TERMS.items()}
    rules |= OTHERS
    rules |= dict.fromkeys(SEQUENCES.split())
    return MappingProxyType({_tag(keyword): rule for keyword, rule in rules.items()})


@cache
def allowed_vrs(tag: BaseTag) -> tuple[str, ...]:
    """The value representations that the standard gives an attribute."""
    return tuple(dictionary_VR(tag).split(" or "))


def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return Tag(tag)
