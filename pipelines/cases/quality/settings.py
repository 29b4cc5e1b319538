"""The bounds that verdicts are given by, each with its reason.

A verdict says which bounds it was given by: the settings are frozen, unknown keys are refused, and the id
carries a hash of them. The bounds are wide on purpose. They are there to find what no anatomy and no
scanner explains (a swapped label, a mask in the air, a cut-off vertebra), not to grade patients.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

from feature_store.vocabulary import STRUCTURES

Range = tuple[float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SequenceBounds(_Strict):
    """What a kind of sequence must cover and resolve, in mm. None: nothing is asked of it."""

    head_to_foot: float | None = None
    """L1 to S1 measures 160 to 200 mm in adults (five bodies of about 27 mm, five discs of about 10 mm,
    less what lordosis takes). An axial stack that is meant for muscles must hold three levels of about 35 mm."""
    left_to_right: float | None = None
    """A lumbar body is 40 to 55 mm wide; the two paraspinal groups and psoas together about 180 mm."""
    slice_spacing: float = 5.5
    """Past this a disc (8 to 12 mm high) or a body holds too few slices for a texture along that axis."""
    pixel: float = 1.5
    """In the slice's plane: clinical lumbar MR and CT have 0.4 to 1.0 mm."""


class StructureBounds(_Strict):
    """What a drawn structure can measure. Volumes are of one lumbar level, areas of one side, on average
    over the slices it is in (so a short slab is not held against a long muscle)."""

    volume_mm3: Range | None = None
    area_mm2: Range | None = None
    ct_mean_hu: Range = (-150.0, 300.0)
    """Mean Hounsfield units inside; past it the mask is misplaced, or implants are in it."""


class QualitySettings(_Strict):
    """Every bound there is. ``*_warn`` gives a warning, ``*_fail`` takes the ROI (or series) out."""

    ct: SequenceBounds = SequenceBounds(head_to_foot=160.0, left_to_right=40.0, slice_spacing=2.5, pixel=1.5)
    """A CT is read as a volume: bone texture is lost past about 2.5 mm."""
    sagittal: SequenceBounds = SequenceBounds(head_to_foot=160.0, left_to_right=40.0)
    axial: SequenceBounds = SequenceBounds(head_to_foot=90.0, left_to_right=150.0, slice_spacing=6.0)
    other: SequenceBounds = SequenceBounds(slice_spacing=6.0)

    least_slices: int = 8
    """Across a stack: fewer leave next to no third dimension."""
    most_anisotropy: float = 12.0
    """Largest over smallest voxel side. 0.4 x 0.4 x 4.4 mm, a usual sagittal stack, is 11."""
    stack_ratio: float = 1.3
    """A voxel this much longer along one axis makes that axis the slices' (below it there is no plane)."""
    stack_ratio_fail: float = 2.2
    """A stack as thick as this whose plane is not its name's is another series, not a reformat of the right one."""
    least_levels_warn: int = 64
    """Distinct grey values in the image. A scanner stores 12 bits; a picture exported through a window has 256."""
    least_levels_fail: int = 8
    """So few are a label map or a bitmap."""
    most_at_maximum: float = 0.005
    """Share of voxels that hold exactly the largest value: a window or a saturated receiver cut them off."""
    most_constant: float = 0.70
    """Share of voxels that hold exactly the smallest value: padding or masking, which z-scoring would count."""
    soft_tissue_hu_warn: Range = (-120.0, 150.0)
    """Median of a CT's voxels above -300 HU: fat is -100, muscle 50, so a body's median lies between."""
    soft_tissue_hu_fail: Range = (-700.0, 700.0)
    """Past it the offset of 1024 is missing or applied twice."""
    metal_hu: float = 2500.0
    """Dense cortical bone ends near 2000 HU; screws and cages are above."""
    most_metal_mm3: float = 500.0
    """A pedicle screw has 1000 mm³ and more. The image is meant to be preoperative."""

    structures: dict[str, StructureBounds] = Field(
        default={
            # lumbar bodies 20 to 50 cm³, whole vertebrae about twice that, discs 8 to 20 cm³
            "vertebral_body": StructureBounds(volume_mm3=(10e3, 80e3), ct_mean_hu=(0.0, 700.0)),
            "vertebra": StructureBounds(volume_mm3=(25e3, 180e3), ct_mean_hu=(0.0, 700.0)),
            "sacrum": StructureBounds(volume_mm3=(50e3, 500e3), ct_mean_hu=(-50.0, 700.0)),
            "intervertebral_disc": StructureBounds(volume_mm3=(2e3, 40e3), ct_mean_hu=(-50.0, 400.0)),
            # cross-sections of one side: psoas 5 to 25 cm², quadratus 3 to 9, erector with multifidus 12 to 40
            "psoas_major": StructureBounds(area_mm2=(150.0, 3500.0), ct_mean_hu=(-60.0, 150.0)),
            "iliopsoas": StructureBounds(area_mm2=(150.0, 4500.0), ct_mean_hu=(-60.0, 150.0)),
            "quadratus_lumborum": StructureBounds(area_mm2=(60.0, 1800.0), ct_mean_hu=(-60.0, 150.0)),
            "paraspinal_muscle": StructureBounds(area_mm2=(300.0, 6000.0), ct_mean_hu=(-100.0, 150.0)),
        }
    )
    least_roi_voxels: int = 200
    """Below it grey-level matrices are mostly empty and textures follow the voxel count."""
    least_largest_share: float = 0.95
    """Share of the largest piece (26 neighbours) in what must be one piece; the rest are specks."""
    second_piece_fail: float = 0.25
    """A second piece as large as this in one body or disc is a second body or disc under the same label."""
    piece_share: float = 0.05
    """A part smaller than this is a speck and no piece of its own."""
    edge_warn: float = 0.01
    """Share of the ROI's voxels in the image's outermost layer: it goes on outside, so its shape is cut."""
    edge_fail: float = 0.50
    most_hollow: float = 0.01
    """Volume of closed holes as a share of the ROI: a contour that was not filled."""
    outside_warn: float = 0.15
    outside_fail: float = 0.50
    """Share of the ROI in air (CT: under ``air_hu``; MR: under ``mr_background`` of the image's 99th percentile)."""
    air_hu: float = -300.0
    mr_background: float = 0.02

    @cached_property
    def id(self) -> str:
        """``quality-<8 hex of the settings' SHA-256>``."""
        return f"quality-{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]}"

    def of_sequence(self, sequence: str) -> SequenceBounds:
        """By the sequence's name: ``ct``, ``…_sag``, ``…_ax``, anything else."""
        if sequence == "ct" or sequence.startswith("ct_"):
            return self.ct
        return {"sagittal": self.sagittal, "axial": self.axial}.get(named_plane(sequence), self.other)

    def of_structure(self, structure: str) -> StructureBounds:
        """The structure's bounds; wide ones for a structure that has none of its own."""
        return self.structures.get(structure, StructureBounds())


def named_plane(sequence: str) -> str:
    """The plane a sequence's name states (``t2_sag``: sagittal), empty where it states none."""
    planes = {"sag": "sagittal", "ax": "axial", "tra": "axial", "cor": "coronal"}
    return planes.get(sequence.rsplit("_", 1)[-1], "") if "_" in sequence else ""


DEFAULT = QualitySettings()
assert set(DEFAULT.structures) <= set(STRUCTURES)
