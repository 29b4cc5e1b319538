"""A folder of DICOM files, and which of its series is meant.

**What a sequence asks for.** A sequence's name says it, part by part: ``ct`` and ``mr`` the modality, ``ax``,
``sag`` and ``cor`` the plane, ``t1``, ``t2``, ``pd``, ``stir``, ``dixon`` the weighting (see
:func:`pipelines.imaging.acquisition.weighting`; plain T1 and T2 only, without fat suppression). So ``t2_sag`` is a
sagittal plain T2, and a site's own ``stir_sag`` a sagittal STIR. Other parts ask for nothing.

**Choosing.** A folder with one volume is that volume, unless its header contradicts the name. Of several, those
are left out that are never the scan itself (localizers, projections, reformats, captures: see
:func:`pipelines.imaging.acquisition.left_out`), and those that contradict the name or, where it asks for a
weighting, do not state one. Of what remains the best one is taken, by these rules one after the other:
without contrast agent before with; CT: axial first; ORIGINAL before DERIVED; CT: a soft kernel before an unknown
one before a sharp one (Hounsfield units of bone and muscle are unbiased in it); thinner slices first (to 0.1 mm);
at last a volume with at least twice the slices of every rival. Two that are equal by these rules are a tie, and
a tie is an error, as is finding none: the error lists the candidates, and ``series_number`` in case.yaml pins one.
The best one is never replaced by a second best because it lacks a slice: its fault is the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from feature_store.errors import DicomSeriesError, ImageUnitError
from feature_store.vocabulary import PAPER_SEQUENCES
from pipelines.imaging.acquisition import kernel_kind, left_out, weighting
from pipelines.imaging.dicom_file import WHOLE
from pipelines.imaging.dicom_frame import Frame, read_frames
from pipelines.imaging.dicom_series import Volume, volumes
from pipelines.imaging.series_header import SeriesHeader

PLANES = {"ax": "axial", "sag": "sagittal", "cor": "coronal"}
MODALITIES = {"ct": "CT", "mr": "MR"}
WEIGHTINGS = ("t1", "t2", "pd", "stir", "dixon", "flair")
MOST_LISTED = 12
_PIN = "Pin the right one by series_number in case.yaml, or give it a folder of its own."


@dataclass(frozen=True)
class Candidate:
    """A volume of a study with what speaks for and against it."""

    volume: Volume

    @property
    def header(self) -> SeriesHeader:
        return self.volume.frames[0].header

    @property
    def name(self) -> str:
        """``series 4``, ``series 4 (echo 2)``."""
        number = self.header.series_number
        return f"series {'without a number' if number is None else number}" + (
            f" ({self.volume.part})" if self.volume.part else ""
        )

    @cached_property
    def plane(self) -> str:
        """The plane of its slices; ``mixed`` where they lie in several, '' where none says anything."""
        planes = {frame.plane.name for frame in self.volume.frames if frame.plane}
        return "mixed" if len(planes) > 1 else "".join(planes)

    @property
    def weighting(self) -> str:
        return weighting(self.volume.frames[0].made) if self.header.modality == "MR" else ""

    @property
    def thickness(self) -> float | None:
        """The usual distance between its slices in mm, also where some are missing; else what the header calls it."""
        return self.volume.usual_distance or self.volume.frames[0].made.thickness

    @property
    def left_out(self) -> str:
        return left_out(self.volume.frames[0].made, self.header.modality)

    @property
    def fault(self) -> str:
        """Why it cannot be used, or is used only when it is pinned; '' where nothing is wrong."""
        fault = self.volume.fault
        return " ".join(
            part for part in (self.left_out and f"{self.left_out}.", fault.message if fault else "") if part
        )

    def line(self) -> str:
        """Number, plane, slices and thickness: nothing that a person typed."""
        thick = "" if self.thickness is None else f" of {self.thickness:.1f} mm"
        what = ", ".join(part for part in (self.plane, self.weighting) if part)
        return f"{self.name}: {what or 'no plane'}, {len(self.volume.frames)} slices{thick}"

    def fits_modality(self, sequence: str) -> bool:
        """Whether the header's modality is the one that the name asks for, or is not stated."""
        asked = {MODALITIES.get(part, "MR") for part in sequence.split("_") if part in (*MODALITIES, *WEIGHTINGS)}
        return not self.header.modality or asked <= {self.header.modality}

    def contradiction(self, sequence: str, *, stated: bool) -> str:
        """What of the name its header contradicts; with ``stated`` also a weighting that it leaves open."""
        if not self.fits_modality(sequence):
            return f"its modality is {self.header.modality}"
        for part in sequence.split("_"):
            if part in PLANES and self.plane != PLANES[part]:
                return f"its slices are {self.plane or 'without orientation'}"
            if part in WEIGHTINGS and self.weighting != part and (stated or self.weighting):
                return f"its echo and repetition times say {self.weighting or 'nothing'}"
        return ""

    def rank(self) -> tuple[float, ...]:
        """Smaller is better; equal is a tie."""
        made = self.volume.frames[0].made
        is_ct = self.header.modality == "CT"
        return (
            made.contrast_agent,
            is_ct and self.plane != "axial",
            "DERIVED" in made.image_type,
            ("soft", "", "sharp").index(kernel_kind(made.kernel)) if is_ct else 0,
            round(self.thickness or 1e3, 1),
        )


@dataclass(frozen=True)
class DicomStudy:
    """Every volume of a folder, in order of series number."""

    candidates: tuple[Candidate, ...]
    files: int
    file: str

    def chosen(self, sequence: str = "", series_number: int | None = None) -> Candidate:
        """The one volume that is meant.

        Raises DicomSeriesError where none or several could be, ImageUnitError for the one of another modality.
        """
        if not self.candidates:
            raise DicomSeriesError("the folder holds no DICOM image.", action=WHOLE, file=self.file)
        if series_number is not None:
            return self._pinned(sequence, series_number)
        if len(self.candidates) == 1:
            only = self.candidates[0]
            if wrong := only.contradiction(sequence, stated=False):
                error = DicomSeriesError if only.fits_modality(sequence) else ImageUnitError
                raise error(
                    f"the folder's one series is no {sequence}: {wrong}.",
                    action="Name the right series, pin it by series_number, or give it its own sequence name.",
                    file=self.file,
                )
            return only
        return self._best([one for one in self.candidates if not one.left_out], sequence)

    def taken(self) -> dict[str, Candidate]:
        """For each of the paper's sequences the volume that would be taken; those that have none are missing."""
        found = {}
        for sequence in PAPER_SEQUENCES:
            with suppress(DicomSeriesError, ImageUnitError):
                found[sequence] = self.chosen(sequence)
        return found

    def _pinned(self, sequence: str, number: int) -> Candidate:
        found = [one for one in self.candidates if one.header.series_number == number]
        if not found:
            raise DicomSeriesError(
                f"the folder holds no series {number}. It holds {self._listed(self.candidates)}.",
                action="Mend series_number in case.yaml.",
                file=self.file,
            )
        if len(found) == 1:
            return found[0]
        if len({one.volume.frames[0].series for one in found}) > 1:
            raise DicomSeriesError(
                f"several series have the number {number} (of several studies?): {self._listed(found)}.",
                action="Give each study a folder of its own.",
                file=self.file,
            )
        return self._best(found, sequence)

    def _best(self, among: Sequence[Candidate], sequence: str) -> Candidate:
        fitting = [one for one in among if not one.contradiction(sequence, stated=True)]
        wanted = f" for {sequence}" if sequence else ""
        series = len({one.volume.frames[0].series for one in self.candidates})
        held = f"the folder holds {series} series ({self.files} files)"
        if not fitting:
            raise DicomSeriesError(
                f"{held}, none fits{wanted}: {self._listed(self.candidates)}.", action=_PIN, file=self.file
            )
        best = min(one.rank() for one in fitting)
        first = [one for one in fitting if one.rank() == best]
        most = max(first, key=lambda one: len(one.volume.frames))
        if any(2 * len(one.volume.frames) > len(most.volume.frames) for one in first if one is not most):
            raise DicomSeriesError(
                f"{held}, {len(first)} fit{wanted} equally: {self._listed(first)}.", action=_PIN, file=self.file
            )
        return most

    @staticmethod
    def _listed(candidates: Sequence[Candidate]) -> str:
        lines = "; ".join(one.line() for one in candidates[:MOST_LISTED])
        more = len(candidates) - MOST_LISTED
        return f"{lines}; and {more} more" if more > 0 else lines


def read_study(path: Path, file: str) -> DicomStudy:
    """Every series of a folder at any depth, or of one (multi-frame) file, from headers only.

    Raises DicomSeriesError for a damaged file.
    """
    frames = read_frames(path, file)
    series: dict[tuple[str, ...], list[Frame]] = {}
    for frame in frames:
        series.setdefault(frame.series, []).append(frame)
    candidates = [Candidate(volume) for group in series.values() for volume in volumes(group, file)]
    candidates.sort(key=lambda one: (one.header.series_number is None, one.header.series_number or 0))
    return DicomStudy(tuple(candidates), len({frame.path for frame in frames}), file)
