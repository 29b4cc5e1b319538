"""PyRadiomics' features by class, in its own order, each with its IBSI code (empty where there is none).

Codes are those of the Image Biomarker Standardisation Initiative's reference manual (arXiv:1612.07003).
A code says which definition a feature follows, not that the value agrees: Kurtosis here is not the
excess kurtosis, and the axis lengths divide by N (tests/pipelines/radiomics/test_references.py names them).
"""

from __future__ import annotations

SHAPE = {
    "Elongation": "Q3CK", "Flatness": "N17B", "LeastAxisLength": "7J51", "MajorAxisLength": "TDIC",
    "Maximum2DDiameterColumn": "", "Maximum2DDiameterRow": "", "Maximum2DDiameterSlice": "",
    "Maximum3DDiameter": "L0JK", "MeshVolume": "RNU0", "MinorAxisLength": "P9VJ", "Sphericity": "QCFX",
    "SurfaceArea": "C0JK", "SurfaceVolumeRatio": "2PR5", "VoxelVolume": "YEKZ",
}  # fmt: skip

FIRSTORDER = {
    "10Percentile": "QG58", "90Percentile": "8DWT", "Energy": "N8CA", "Entropy": "TLU2",
    "InterquartileRange": "SALO", "Kurtosis": "IPH6", "Maximum": "84IY", "MeanAbsoluteDeviation": "4FUA",
    "Mean": "Q4LE", "Median": "Y12H", "Minimum": "1GSF", "Range": "2OJQ",
    "RobustMeanAbsoluteDeviation": "1128", "RootMeanSquared": "5ZWQ", "Skewness": "KE2A",
    "TotalEnergy": "", "Uniformity": "BJ5W", "Variance": "ECT3",
}  # fmt: skip

GLCM = {
    "Autocorrelation": "QWB0", "ClusterProminence": "AE86", "ClusterShade": "7NFM", "ClusterTendency": "DG8W",
    "Contrast": "ACUI", "Correlation": "NI2N", "DifferenceAverage": "TF7R", "DifferenceEntropy": "NTRS",
    "DifferenceVariance": "D3YU", "Id": "IB1Z", "Idm": "WF0Z", "Idmn": "1QCO", "Idn": "NDRX", "Imc1": "R8DG",
    "Imc2": "JN9H", "InverseVariance": "E8JP", "JointAverage": "60VM", "JointEnergy": "8ZQL",
    "JointEntropy": "TU9B", "MCC": "", "MaximumProbability": "GYBY", "SumAverage": "ZGXS",
    "SumEntropy": "P6QZ", "SumSquares": "UR99",
}  # fmt: skip

GLDM = {
    "DependenceEntropy": "FCBV", "DependenceNonUniformity": "Z87G", "DependenceNonUniformityNormalized": "OKJI",
    "DependenceVariance": "DNX2", "GrayLevelNonUniformity": "FP8K", "GrayLevelVariance": "1PFV",
    "HighGrayLevelEmphasis": "OAE7", "LargeDependenceEmphasis": "IMOQ",
    "LargeDependenceHighGrayLevelEmphasis": "9QMG", "LargeDependenceLowGrayLevelEmphasis": "NBZI",
    "LowGrayLevelEmphasis": "TL9H", "SmallDependenceEmphasis": "SODN",
    "SmallDependenceHighGrayLevelEmphasis": "JA6D", "SmallDependenceLowGrayLevelEmphasis": "EQ3F",
}  # fmt: skip

GLRLM = {
    "GrayLevelNonUniformity": "R5YN", "GrayLevelNonUniformityNormalized": "OVBL", "GrayLevelVariance": "8CE5",
    "HighGrayLevelRunEmphasis": "G3QZ", "LongRunEmphasis": "W4KF", "LongRunHighGrayLevelEmphasis": "3KUM",
    "LongRunLowGrayLevelEmphasis": "IVPO", "LowGrayLevelRunEmphasis": "V3SW", "RunEntropy": "HJ9O",
    "RunLengthNonUniformity": "W92Y", "RunLengthNonUniformityNormalized": "IC23", "RunPercentage": "9ZK5",
    "RunVariance": "SXLW", "ShortRunEmphasis": "22OV", "ShortRunHighGrayLevelEmphasis": "GD3A",
    "ShortRunLowGrayLevelEmphasis": "HTZT",
}  # fmt: skip

GLSZM = {
    "GrayLevelNonUniformity": "JNSA", "GrayLevelNonUniformityNormalized": "Y1RO", "GrayLevelVariance": "BYLV",
    "HighGrayLevelZoneEmphasis": "5GN9", "LargeAreaEmphasis": "48P8", "LargeAreaHighGrayLevelEmphasis": "J17V",
    "LargeAreaLowGrayLevelEmphasis": "YH51", "LowGrayLevelZoneEmphasis": "XMSY",
    "SizeZoneNonUniformity": "4JP3", "SizeZoneNonUniformityNormalized": "VB3A", "SmallAreaEmphasis": "5QRC",
    "SmallAreaHighGrayLevelEmphasis": "HW1V", "SmallAreaLowGrayLevelEmphasis": "5RAI", "ZoneEntropy": "GU8N",
    "ZonePercentage": "P30P", "ZoneVariance": "3NSA",
}  # fmt: skip

NGTDM = {
    "Busyness": "NQ30", "Coarseness": "QCDE", "Complexity": "HDEZ", "Contrast": "65HE", "Strength": "1X9X",
}  # fmt: skip

CLASSES: dict[str, dict[str, str]] = {
    "shape": SHAPE,
    "firstorder": FIRSTORDER,
    "glcm": GLCM,
    "gldm": GLDM,
    "glrlm": GLRLM,
    "glszm": GLSZM,
    "ngtdm": NGTDM,
}
"""In the order of stock PyRadiomics' answer: shape first, then the others by name."""

WAVELET_SUBBANDS = ("LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH", "LLL")
"""First letter: filter along x, second y, third z (L low pass, H high pass); stock's order."""
