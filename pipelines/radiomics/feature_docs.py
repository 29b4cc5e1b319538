"""What every feature is: family, IBSI code, unit and a line of meaning.

Units follow from PyRadiomics' formulas (tests/pipelines/radiomics/test_feature_docs.py scales intensities, voxels
and grey levels and looks whether values follow). An exponent is meant where a feature mixes them with a constant,
as ``1 / (1 + i - j)`` does: those are called dimensionless, because no scaling holds for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.radiomics.feature_names import CLASSES

FAMILIES = {
    "shape": "shape",
    "firstorder": "first order",
    "glcm": "grey level co-occurrence matrix",
    "gldm": "grey level dependence matrix",
    "glrlm": "grey level run length matrix",
    "glszm": "grey level size zone matrix",
    "ngtdm": "neighbouring grey tone difference matrix",
}
"""PyRadiomics' classes in words. gldm is IBSI's neighbouring grey level dependence matrix (NGLDM)."""

DIMENSIONLESS = "1"
_SYMBOLS = {"level": "grey level", "voxel": "voxel", "run": "run", "zone": "zone", "mm": "mm", "bit": "bit"}
_POWERS = str.maketrans("-1234", "⁻¹²³⁴")

_SHAPE = """
Elongation | 1 | second principal axis over the first: 1 is a circle, less is longer
Flatness | 1 | third principal axis over the first: 1 is a ball, less is flatter
LeastAxisLength | mm | third principal axis of an ellipsoid with the same second moments
MajorAxisLength | mm | first principal axis of an ellipsoid with the same second moments
Maximum2DDiameterColumn | mm | largest distance of two mesh vertices with the same y
Maximum2DDiameterRow | mm | largest distance of two mesh vertices with the same x
Maximum2DDiameterSlice | mm | largest distance of two mesh vertices in one slice
Maximum3DDiameter | mm | largest distance of two mesh vertices
MeshVolume | mm3 | volume inside the triangle mesh
MinorAxisLength | mm | second principal axis of an ellipsoid with the same second moments
Sphericity | 1 | area of a ball of the same volume over the area: 1 is a ball
SurfaceArea | mm2 | area of the triangle mesh
SurfaceVolumeRatio | mm-1 | area of the mesh over its volume
VoxelVolume | mm3 | number of voxels times the volume of one
"""

_FIRSTORDER = """
10Percentile | i | a tenth of the voxels lie below
90Percentile | i | a tenth of the voxels lie above
Energy | i2 | sum of squared intensities (shifted by voxel_array_shift)
Entropy | bit | uncertainty of a voxel's grey level
InterquartileRange | i | 75th less 25th percentile
Kurtosis | 1 | fourth central moment over the squared variance (3 for a normal distribution)
Maximum | i | highest intensity
Mean | i | mean intensity
MeanAbsoluteDeviation | i | mean distance from the mean
Median | i | median intensity
Minimum | i | lowest intensity
Range | i | highest less lowest intensity
RobustMeanAbsoluteDeviation | i | mean distance from the mean, between the 10th and 90th percentile
RootMeanSquared | i | root of the mean squared intensity (shifted by voxel_array_shift)
Skewness | 1 | third central moment over the variance to the power of 1.5
TotalEnergy | i2 mm3 | Energy times the volume of a voxel
Uniformity | 1 | sum of squared shares of the grey levels
Variance | i2 | mean squared distance from the mean
"""

_GLCM = """
Autocorrelation | level2 | mean product of neighbouring levels
ClusterProminence | level4 | mean fourth power of the pair's sum about its mean: peakedness
ClusterShade | level3 | mean third power of the pair's sum about its mean: asymmetry
ClusterTendency | level2 | mean squared deviation of the pair's sum
Contrast | level2 | mean squared difference of neighbours
Correlation | 1 | linear correlation of neighbours' levels
DifferenceAverage | level | mean difference of neighbours
DifferenceEntropy | bit | uncertainty of the difference of neighbours
DifferenceVariance | level2 | variance of the difference of neighbours
Id | 1 | inverse difference: near 1 where neighbours are alike
Idm | 1 | inverse difference moment: as Id, with the squared difference
Idmn | 1 | Idm with the difference divided by the number of levels
Idn | 1 | Id with the difference divided by the number of levels
Imc1 | 1 | first measure of information correlation: mutual information over entropy, negative
Imc2 | 1 | second measure of information correlation: 0 where neighbours are independent
InverseVariance | level-2 | mean of one over the squared difference, of unequal neighbours
JointAverage | level | mean level
JointEnergy | 1 | sum of squared shares of the pairs (angular second moment)
JointEntropy | bit | uncertainty of a pair of neighbours
MCC | 1 | maximal correlation coefficient of neighbours
MaximumProbability | 1 | share of the most frequent pair
SumAverage | level | mean sum of a pair
SumEntropy | bit | uncertainty of the sum of a pair
SumSquares | level2 | variance of the level in pairs
"""

_GLDM = """
DependenceEntropy | bit | uncertainty of level and number of like neighbours
DependenceNonUniformity | voxel | high where dependences of one size prevail
DependenceNonUniformityNormalized | 1 | DependenceNonUniformity over the number of voxels
DependenceVariance | voxel2 | variance of the size of dependences
GrayLevelNonUniformity | voxel | high where few levels prevail
GrayLevelVariance | level2 | variance of the level
HighGrayLevelEmphasis | level2 | mean squared level
LargeDependenceEmphasis | voxel2 | mean squared size of dependences: homogeneous texture
LargeDependenceHighGrayLevelEmphasis | voxel2 level2 | large dependences of high levels
LargeDependenceLowGrayLevelEmphasis | voxel2 level-2 | large dependences of low levels
LowGrayLevelEmphasis | level-2 | mean of one over the squared level
SmallDependenceEmphasis | voxel-2 | mean of one over the squared size: heterogeneous texture
SmallDependenceHighGrayLevelEmphasis | voxel-2 level2 | small dependences of high levels
SmallDependenceLowGrayLevelEmphasis | voxel-2 level-2 | small dependences of low levels
"""

_GLRLM = """
GrayLevelNonUniformity | run | high where runs of few levels prevail
GrayLevelNonUniformityNormalized | 1 | GrayLevelNonUniformity over the number of runs
GrayLevelVariance | level2 | variance of the runs' level
HighGrayLevelRunEmphasis | level2 | mean squared level of the runs
LongRunEmphasis | voxel2 | mean squared length: coarse texture
LongRunHighGrayLevelEmphasis | voxel2 level2 | long runs of high levels
LongRunLowGrayLevelEmphasis | voxel2 level-2 | long runs of low levels
LowGrayLevelRunEmphasis | level-2 | mean of one over the squared level of the runs
RunEntropy | bit | uncertainty of level and length
RunLengthNonUniformity | run | high where runs of one length prevail
RunLengthNonUniformityNormalized | 1 | RunLengthNonUniformity over the number of runs
RunPercentage | run voxel-1 | runs a voxel: 1 where every run is one voxel
RunVariance | voxel2 | variance of the length
ShortRunEmphasis | voxel-2 | mean of one over the squared length: fine texture
ShortRunHighGrayLevelEmphasis | voxel-2 level2 | short runs of high levels
ShortRunLowGrayLevelEmphasis | voxel-2 level-2 | short runs of low levels
"""

_GLSZM = """
GrayLevelNonUniformity | zone | high where zones of few levels prevail
GrayLevelNonUniformityNormalized | 1 | GrayLevelNonUniformity over the number of zones
GrayLevelVariance | level2 | variance of the zones' level
HighGrayLevelZoneEmphasis | level2 | mean squared level of the zones
LargeAreaEmphasis | voxel2 | mean squared size: coarse texture
LargeAreaHighGrayLevelEmphasis | voxel2 level2 | large zones of high levels
LargeAreaLowGrayLevelEmphasis | voxel2 level-2 | large zones of low levels
LowGrayLevelZoneEmphasis | level-2 | mean of one over the squared level of the zones
SizeZoneNonUniformity | zone | high where zones of one size prevail
SizeZoneNonUniformityNormalized | 1 | SizeZoneNonUniformity over the number of zones
SmallAreaEmphasis | voxel-2 | mean of one over the squared size: fine texture
SmallAreaHighGrayLevelEmphasis | voxel-2 level2 | small zones of high levels
SmallAreaLowGrayLevelEmphasis | voxel-2 level-2 | small zones of low levels
ZoneEntropy | bit | uncertainty of level and size
ZonePercentage | zone voxel-1 | zones a voxel: 1 where every zone is one voxel
ZoneVariance | voxel2 | variance of the size
"""

_NGTDM = """
Busyness | voxel | fast changes of level between neighbours
Coarseness | level-1 voxel-1 | one over the mean difference from the neighbours: locally uniform texture
Complexity | level2 | many and fast changes of level
Contrast | level3 | spread of the levels times their local change
Strength | level voxel-1 | large differences of level between slowly changing regions
"""


@dataclass(frozen=True)
class FeatureDoc:
    """One feature of a class. ``dimension``: symbol and exponent; ``i`` is the unit of the image."""

    family: str
    name: str
    ibsi_code: str
    dimension: tuple[tuple[str, int], ...]
    meaning: str

    def unit(self, image_unit: str) -> str:
        """As text, with the image's own unit put in: ``image unit²·mm³``; ``1`` where there is none."""
        parts = []
        for symbol, power in self.dimension:
            base = image_unit if symbol == "i" else _SYMBOLS[symbol]
            if power != 1:
                base = f"({base})" if "/" in base else base
                base += str(power).translate(_POWERS)
            parts.append(base)
        return "·".join(parts) or DIMENSIONLESS


def _read(family: str, text: str) -> dict[str, FeatureDoc]:
    docs = {}
    for line in text.strip().splitlines():
        name, unit, meaning = (part.strip() for part in line.split("|"))
        docs[name] = FeatureDoc(family, name, CLASSES[family][name], _dimension(unit), meaning)
    return docs


def _dimension(text: str) -> tuple[tuple[str, int], ...]:
    """``voxel-2 level2`` -> (("voxel", -2), ("level", 2))."""
    if text == DIMENSIONLESS:
        return ()
    parts = []
    for part in text.split():
        symbol = part.rstrip("-1234")
        parts.append((symbol, int(part[len(symbol) :] or 1)))
    return tuple(parts)


DOCS: dict[str, dict[str, FeatureDoc]] = {
    family: _read(family, text)
    for family, text in (
        ("shape", _SHAPE),
        ("firstorder", _FIRSTORDER),
        ("glcm", _GLCM),
        ("gldm", _GLDM),
        ("glrlm", _GLRLM),
        ("glszm", _GLSZM),
        ("ngtdm", _NGTDM),
    )
}
"""By class and PyRadiomics' name of the feature."""


def feature_doc(full_name: str) -> FeatureDoc:
    """Of a full name such as ``wavelet-HHH_gldm_DependenceVariance``. KeyError for a name that is none."""
    _, family, name = full_name.split("_")
    return DOCS[family][name]


def image_unit(normalize: bool, scale: float) -> str:
    """The unit of preprocessed intensities: the image's own (HU in CT), or a share of its standard deviation.

    Wavelet sub-bands and the scale-normalised Laplacian of Gaussian have the unit of the image they are made of.
    """
    if not normalize:
        return "image unit"
    return "SD" if scale == 1 else f"SD/{scale:g}"


def meaning(name: str) -> str:
    """What a feature measures, in words: of a full name, or one with anything in front of it (``MR_original_…``).

    Empty for a name that is none of PyRadiomics'.
    """
    parts = name.split("_")
    doc = DOCS.get(parts[-2], {}).get(parts[-1]) if len(parts) > 2 else None
    if doc is None:
        return ""
    image = parts[-3]
    if image.startswith("wavelet-"):
        return f"{doc.meaning}; in the wavelet sub-band {image.removeprefix('wavelet-')}"
    if image.startswith("log-sigma-"):
        sigma = image.removeprefix("log-sigma-").removesuffix("-mm-3D").replace("-", ".").removesuffix(".0")
        return f"{doc.meaning}; after a Laplacian of Gaussian of {sigma} mm"
    return doc.meaning
