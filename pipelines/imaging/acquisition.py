"""How a slice was made, as far as its header says it: what tells a T2 from a T1, a STIR or a bone kernel.

Free text (series and protocol descriptions) is not looked at: it differs between sites and may name people.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipelines.imaging.functional_groups import FrameHeader

DIXON = frozenset(
    {"DIXON", "WATER", "FAT", "W", "F", "IP", "OP", "IN", "OPP", "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "OPPOSED_PHASE"}
    | {"FAT_FRACTION"}
)
DIFFUSION = frozenset({"DIFFUSION", "ADC", "TRACEW", "TRACE", "FA", "EADC", "CALC_BVALUE"})
FAT_SUPPRESSED = frozenset({"FS", "SFS", "FATSAT", "FAT", "FAT_AND_WATER", "SPAIR", "SPIR"})
_CONTRASTS = {
    "T1": "t1", "T2": "t2", "T2_STAR": "gradient_echo", "PROTON_DENSITY": "pd", "STIR": "stir",
    "FLUID_ATTENUATED": "flair", "DIFFUSION": "diffusion",
}  # fmt: skip

SPIN_ECHO_T2_MS = (60.0, 1500.0)
"""A T2 has at least this echo and repetition time."""
SPIN_ECHO_T1_MS = (30.0, 1200.0)
"""A T1 has at most this echo and repetition time; up to 1200 ms reach turbo spin echoes at 3 T."""
STIR_TI_MS = (80.0, 300.0)
T1_INVERSION_MS = (300.0, 1400.0)
"""Inversion that nulls neither fat nor water, with a short echo: T1 FLAIR."""
SOFT_KERNEL_UP_TO = 49
"""Siemens' kernel numbers grow with sharpness: B30f, Br38f, Br40 are soft, B60f, Br64, B70f are for bone and lung."""


@dataclass(frozen=True)
class Acquisition:
    """Times in ms, thickness in mm; None or empty where the header does not say."""

    image_type: tuple[str, ...] = ()
    echo_time: float | None = None
    repetition_time: float | None = None
    inversion_time: float | None = None
    scanning_sequence: tuple[str, ...] = ()
    contrast: str = ""
    fat_suppressed: bool = False
    diffusion: bool = False
    contrast_agent: bool = False
    kernel: str = ""
    thickness: float | None = None

    @classmethod
    def of(cls, header: FrameHeader) -> Acquisition:
        """From a frame's header, classic or enhanced."""
        echoes = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}.get(
            header.text("EchoPulseSequence").upper(), header.texts("ScanningSequence")
        )
        b_value = header.number("DiffusionBValue")
        options = {*header.texts("ScanOptions"), *header.texts("SpectrallySelectedSuppression")}
        inverted = header.text("InversionRecovery").upper() != "NO"
        time = header.number("InversionTime", "InversionTimes")
        return cls(
            image_type=header.texts("FrameType", "ImageType"),
            echo_time=header.number("EffectiveEchoTime", "EchoTime"),
            repetition_time=header.number("RepetitionTime"),
            inversion_time=time if inverted and time else None,
            scanning_sequence=("EP",) if header.text("EchoPlanarPulseSequence").upper() == "YES" else echoes,
            contrast=header.text("AcquisitionContrast").upper(),
            fat_suppressed=bool(options & FAT_SUPPRESSED),
            diffusion=bool(b_value) or bool(DIFFUSION & set(header.texts("FrameType", "ImageType"))),
            contrast_agent=header.text("ContrastBolusAgent", "ContrastBolusAgentNumber").upper()
            not in ("", "NO", "NONE"),
            kernel=(header.texts("ConvolutionKernel") or ("",))[0],
            thickness=header.number("SliceThickness"),
        )


def weighting(made: Acquisition) -> str:
    """``t1``, ``t2``, ``pd``, or why it is no plain one; '' where the header does not say.

    Not plain are ``stir``, ``dixon``, ``diffusion``, ``flair``, ``gradient_echo``, ``echo_planar``, ``mr_other`` and
    ``t1_fat_suppressed``, ``t2_fat_suppressed``, ``pd_fat_suppressed``.

    In this order: diffusion; Dixon parts by ImageType; the stated contrast of an enhanced MR; inversion of 80 to
    300 ms is STIR; echo planar; a gradient echo without a spin echo; then spin echoes: T2 from TE 60 and TR
    1500 ms, T1 up to TE 30 and TR 1200 ms (or an inversion of 300 to 1400 ms with a TE up to 30), proton density
    between.
    """
    if made.diffusion:
        return "diffusion"
    if DIXON & set(made.image_type[2:]):
        return "dixon"
    plain = _CONTRASTS.get(made.contrast) or _by_times(made)
    return f"{plain}_fat_suppressed" if plain in ("t1", "t2", "pd") and made.fat_suppressed else plain


def _by_times(made: Acquisition) -> str:
    echo, repetition, inversion = made.echo_time, made.repetition_time, made.inversion_time
    if inversion and STIR_TI_MS[0] <= inversion <= STIR_TI_MS[1]:
        return "stir"
    if inversion and inversion > T1_INVERSION_MS[1]:
        return "flair"
    if "EP" in made.scanning_sequence:
        return "echo_planar"
    if "GR" in made.scanning_sequence and "SE" not in made.scanning_sequence:
        return "gradient_echo"
    if echo is None or repetition is None:
        return ""
    if echo >= SPIN_ECHO_T2_MS[0] and repetition >= SPIN_ECHO_T2_MS[1]:
        return "t2"
    if echo <= SPIN_ECHO_T1_MS[0] and (repetition <= SPIN_ECHO_T1_MS[1] or inversion):
        return "t1"
    return "pd" if echo < SPIN_ECHO_T2_MS[0] and repetition > SPIN_ECHO_T1_MS[1] else "mr_other"


def kernel_kind(kernel: str) -> str:
    """``soft``, ``sharp`` or '' (not known) for a CT reconstruction kernel by its vendor's own naming.

    Siemens: letters and a number (see SOFT_KERNEL_UP_TO). GE: STANDARD and SOFT against BONE, LUNG, EDGE, DETAIL.
    Philips: A, B and C against D, E, L and the Y group. Canon: FC01 to FC29 against the higher ones.
    """
    name = kernel.strip().upper()
    if name in ("STANDARD", "SOFT", "STND", "A", "B", "C", "SA", "SB"):
        return "soft"
    if name in ("BONE", "BONEPLUS", "LUNG", "EDGE", "DETAIL", "CHEST", "D", "E", "L") or re.fullmatch(r"Y[A-E]", name):
        return "sharp"
    if canon := re.match(r"FC(\d\d)", name):
        return "soft" if int(canon[1]) < 30 else "sharp"
    if siemens := re.match(r"[A-Z]{1,2}(\d\d)[A-Z]?", name):
        return "soft" if int(siemens[1]) <= SOFT_KERNEL_UP_TO else "sharp"
    return ""


def left_out(made: Acquisition, modality: str) -> str:
    """Why it is never taken without being pinned: '' or the reason, from ImageType and modality.

    Localizers; projections (MIP, MinIP), reformats and renderings; screen captures and everything else that is
    SECONDARY; maps computed from other images.
    """
    values = set(made.image_type)
    if values & {"LOCALIZER", "SCOUT"}:
        return "a localizer"
    if modality not in ("CT", "MR"):
        return f"modality {modality[:16] or 'not stated'}"
    if any("MIP" in value or "PROJECTION" in value for value in values):
        return "a projection"
    if any("MPR" in value or "REFORMAT" in value for value in values):
        return "a reformat"
    if "SECONDARY" in values or any("SCREEN" in value or "RENDER" in value for value in values):
        return "a secondary capture"
    if made.diffusion:
        return "a diffusion image"
    return ""
