"""The field's words, each declared once: structures, levels, sides, sequences, partitions, ROIs.

Lists that sites may extend (sequences) are open; lists that keys depend on (structures, levels) are
closed and live here.
"""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Literal, TypeAlias

from feature_store.errors import UsageError

# --- sequences ---------------------------------------------------------------------------------
PAPER_SEQUENCES = ("ct", "t1_sag", "t2_sag", "t2_ax")
"""The paper's four. A site may send others by name; they are kept and extracted as well."""

SEQUENCE_PATTERN = re.compile(r"^[a-z][a-z0-9_]{0,31}$")

# --- structures and levels ---------------------------------------------------------------------
VERTEBRAE = (*(f"{region}{n}" for region, count in (("C", 7), ("T", 12), ("L", 5)) for n in range(1, count + 1)), "S1")
DISCS = tuple(f"{upper}-{lower}" for upper, lower in pairwise(VERTEBRAE))
LUMBAR_VERTEBRAE = ("L1", "L2", "L3", "L4", "L5")
LUMBAR_DISCS = ("L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1")

ALL = "all"
UNKNOWN = "unknown"
LEVELS = (*VERTEBRAE, *DISCS, ALL, UNKNOWN)


class StructureKind(StrEnum):
    """What a structure's level means, and so what its ``all`` is the union of."""

    BONE = "bone"
    DISC = "disc"
    MUSCLE = "muscle"


STRUCTURES: dict[str, StructureKind] = {
    "vertebral_body": StructureKind.BONE,
    "vertebra": StructureKind.BONE,
    "sacrum": StructureKind.BONE,
    "intervertebral_disc": StructureKind.DISC,
    "psoas_major": StructureKind.MUSCLE,
    "iliopsoas": StructureKind.MUSCLE,
    "quadratus_lumborum": StructureKind.MUSCLE,
    "paraspinal_muscle": StructureKind.MUSCLE,
}


class Side(StrEnum):
    """Which side of the body; ``both`` for what lies in the middle, and for a muscle's union."""

    LEFT = "left"
    RIGHT = "right"
    BOTH = "both"


class Partition(StrEnum):
    """Given to a patient once, for ever."""

    TRAINING = "training"
    INTERNAL_VALIDATION = "internal_validation"
    EXTERNAL_TEST = "external_test"
    LOCKED_TEST = "locked_test"


InSample: TypeAlias = Literal["refuse", "leave_out", "apparent"]
"""What is done with training patients to whose outcomes an encoder was tuned; ``apparent`` is the paper's own way."""


MissingPolicy: TypeAlias = Literal["median", "most_frequent", "indicator", "category", "complete", "refuse"]
"""What becomes of a patient who lacks a clinical variable.

The training ``median`` or ``most_frequent`` value stands in; the same with a column that says so (``indicator``);
missing is a level of its own (``category``); the patient is left out (``complete``); nobody may lack it (``refuse``).
"""


class SignatureKind(StrEnum):
    """Rad-sign, DL-sign and the combined model."""

    RAD = "rad"
    DL = "dl"
    COMBINED = "combined"


PRIMARY_SEGMENTATION = "primary"

RESEARCH_USE = "For research use only: not a certified medical device."
"""Stands in every answer and report until someone has the system certified."""

PHANTOM_PREFIX = "phantom-"
"""How the id of every made-up patient begins; by it reports and answers know what they are about."""

PHANTOM_NOTICE = "PHANTOM: made-up patients; nothing here is a clinical result."


def is_phantom(patient_id: str) -> bool:
    """Whether a patient is made up (:mod:`pipelines.phantom`)."""
    return patient_id.startswith(PHANTOM_PREFIX)


# --- ROI ---------------------------------------------------------------------------------------
@dataclass(frozen=True, order=True)
class RoiName:
    """Which region of a case: the part of an ROI's key that a site's label map decides."""

    sequence: str
    structure: str
    level: str = ALL
    side: str = Side.BOTH.value
    segmentation: str = PRIMARY_SEGMENTATION

    def feature_name(self, feature: str) -> str:
        """Full name of a feature in a training table.

        ``t2_sag.intervertebral_disc.all.wavelet-HHH_gldm_DependenceVariance``; a one-sided ROI has its
        side as a part of its own: ``t2_ax.psoas_major.unknown.left.original_shape_MeshVolume``.
        """
        side = () if self.side == Side.BOTH else (self.side,)
        return ".".join((self.sequence, self.structure, self.level, *side, feature))

    def __str__(self) -> str:
        return "/".join(str(part) for part in astuple(self))


def parse_feature_name(name: str) -> tuple[RoiName, str]:
    """Inverse of :meth:`RoiName.feature_name` (for the primary segmentation)."""
    parts = name.split(".")
    if len(parts) == 4:
        sequence, structure, level, feature = parts
        return RoiName(sequence, structure, level), feature
    if len(parts) == 5:
        sequence, structure, level, side, feature = parts
        return RoiName(sequence, structure, level, side), feature
    raise UsageError(
        f"{name!r} is not a full feature name.",
        action="Write sequence.structure.level.feature, for example ct.vertebral_body.all.original_shape_MeshVolume.",
    )


PAPER_ROIS = (
    RoiName("ct", "vertebral_body"),
    RoiName("t1_sag", "vertebral_body"),
    RoiName("t1_sag", "intervertebral_disc"),
    RoiName("t2_sag", "vertebral_body"),
    RoiName("t2_sag", "intervertebral_disc"),
    RoiName("t2_ax", "psoas_major"),
    RoiName("t2_ax", "quadratus_lumborum"),
    RoiName("t2_ax", "paraspinal_muscle"),
)
"""The eight regions whose features the study concatenates."""


def levels_of_all(structure: str) -> tuple[str, ...] | None:
    """The levels whose union is ``all``, in order; None where every level counts (muscles, sacrum)."""
    kind = STRUCTURES[structure]
    if kind is StructureKind.DISC:
        return LUMBAR_DISCS
    if kind is StructureKind.BONE and structure != "sacrum":
        return LUMBAR_VERTEBRAE
    return None


def adjacent_segments(fused_levels: tuple[str, ...]) -> tuple[str, ...]:
    """Discs directly above and below a fused stretch: ``("L4-L5",)`` gives ``("L3-L4", "L5-S1")``.

    A fusion down to S1 has none below. Raises UsageError where a level is no disc.
    """
    unknown = sorted(set(fused_levels) - set(DISCS))
    if unknown or not fused_levels:
        raise UsageError(
            f"fused_levels must name discs, found {unknown or 'none'}.", action="Write discs such as L4-L5."
        )
    fused = sorted(DISCS.index(level) for level in fused_levels)
    around = {i + step for i in fused for step in (-1, 1)} - set(fused)
    return tuple(DISCS[i] for i in sorted(around) if 0 <= i < len(DISCS))
