"""A site's scanners and habits: geometry, intensity, noise, label numbers, file formats.

Sites differ in all of these and in nothing else: no scanner knows the outcome.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field, replace

import numpy as np

from feature_store.errors import UsageError
from pipelines.phantom.anatomy import BODIES, DISCS, MUSCLES, PARTS, Part
from pipelines.phantom.grid import AXIAL, SAGITTAL, FloatArray, Grid, tilted


@dataclass(frozen=True)
class Scanner:
    """As case.yaml states it; ``field_strength_t`` in tesla, None for CT."""

    vendor: str
    model: str
    field_strength_t: float | None = None


@dataclass(frozen=True)
class Protocol:
    """How one sequence is sampled: voxels, mm, axes, tilt in degrees, and its middle against L3 in mm."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    axes: str
    tilt: float = 0.0
    middle: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def grid(self, l3: np.ndarray) -> Grid:
        direction = tilted(AXIAL if self.axes == "axial" else SAGITTAL, self.tilt)
        return Grid.centred(self.size, self.spacing, direction, l3 + np.array(self.middle))


PROTOCOLS: dict[str, Protocol] = {
    "ct": Protocol((48, 40, 56), (3.0, 3.0, 3.8), "axial", middle=(0.0, 8.0, -3.0)),
    "t1_sag": Protocol((56, 80, 16), (2.8, 2.8, 4.4), "sagittal", middle=(0.0, 18.0, -8.0)),
    "t2_sag": Protocol((56, 80, 16), (2.8, 2.8, 4.4), "sagittal", middle=(0.0, 18.0, -8.0)),
    "t2_ax": Protocol((68, 56, 13), (2.8, 2.8, 8.0), "axial", tilt=8.0, middle=(0.0, 24.0, -34.0)),
}
"""The reference site's; others multiply the spacing and add to the tilt."""


@dataclass(frozen=True)
class Site:
    """One hospital. ``gain`` and ``offset`` turn a share of CSF's signal into MR units; noise is in shares (MR)
    and HU (CT); ``shading`` is the bias field's reach in log signal; ``flipped_axis`` says along which axis its
    masks are stored the other way round.
    """

    name: str
    ct: Scanner
    mr: Scanner
    spacing_factor: float = 1.0
    tilt: dict[str, float] = field(default_factory=dict)
    gain: float = 800.0
    offset: float = 0.0
    mr_noise: float = 0.030
    ct_noise: float = 12.0
    shading: float = 0.10
    suffix: str = ".nii.gz"
    suffixes: dict[str, str] = field(default_factory=dict)
    flipped_axis: int | None = None
    first_labels: tuple[int, int, int] = (1, 11, 21)
    label_step: int = 1

    def protocol(self, sequence: str) -> Protocol:
        base = PROTOCOLS[sequence]
        i, j, k = (round(step * self.spacing_factor, 3) for step in base.spacing)
        return replace(base, spacing=(i, j, k), tilt=base.tilt + self.tilt.get(sequence, 0.0))

    def scanner(self, sequence: str) -> Scanner:
        return self.ct if sequence == "ct" else self.mr

    def file_suffix(self, sequence: str) -> str:
        return self.suffixes.get(sequence, self.suffix)

    def labels(self) -> dict[Part, int]:
        """The site's own numbers, each structure a series of its own."""
        numbers: dict[Part, int] = {}
        for first, parts in zip(self.first_labels, (BODIES, DISCS, MUSCLES), strict=True):
            start = first if self.label_step > 0 else first + len(parts) - 1
            numbers |= {part: start + self.label_step * index for index, part in enumerate(parts)}
        return numbers

    def label_lookup(self) -> np.ndarray:
        """uint8 table from an anatomy's ``part`` numbers to the site's label numbers."""
        numbers = self.labels()
        return np.array([0, *(numbers[part] for part in PARTS)], dtype=np.uint8)

    def acquire(self, sequence: str, picture: FloatArray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        """The stored int16 image (k, j, i): shaded, noisy, in the scanner's units (HU for CT)."""
        if sequence == "ct":
            noisy = picture + self.ct_noise * grid.noise(1.5, rng)
            return np.clip(np.rint(noisy), -1024, 3071).astype(np.int16)
        shaded = picture * self._bias(grid, rng)
        real = shaded + self.mr_noise * rng.standard_normal(grid.shape, dtype=np.float32)
        imaginary = self.mr_noise * rng.standard_normal(grid.shape, dtype=np.float32)
        magnitude = self.offset + self.gain * float(rng.normal(1.0, 0.06)) * np.hypot(real, imaginary)
        return np.clip(np.rint(magnitude), 0, 32767).astype(np.int16)

    def _bias(self, grid: Grid, rng: np.random.Generator) -> FloatArray:
        """A smooth coil profile: one slope and one bow, of random direction, e^±shading at most about."""
        k, j, i = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in grid.shape), indexing="ij")
        slope = rng.normal(0.0, 0.5, 3)
        log = slope[0] * k + slope[1] * j + slope[2] * i + rng.normal(0.0, 0.5) * (i**2 + j**2 - 0.66)
        return np.exp(self.shading * np.clip(log, -1.5, 1.5)).astype(np.float32)


SITES = (
    Site("site_a", Scanner("Phantom Imaging", "CT-64"), Scanner("Phantom Imaging", "MR-15", 1.5)),
    Site(
        "site_b",
        Scanner("Virtual Medical", "Helix 128"),
        Scanner("Virtual Medical", "Tesla Three", 3.0),
        spacing_factor=0.95,
        tilt={"ct": -9.0, "t1_sag": 2.0, "t2_sag": 2.0, "t2_ax": 4.0},
        gain=2400.0,
        offset=40.0,
        mr_noise=0.022,
        ct_noise=18.0,
        shading=0.18,
        suffix=".nrrd",
        suffixes={"ct": ".nii.gz"},
        first_labels=(27, 101, 86),
        label_step=-1,
    ),
    Site(
        "site_c",
        Scanner("Synthetic Systems", "Volume 256"),
        Scanner("Synthetic Systems", "Aera-like", 1.5),
        spacing_factor=1.05,
        tilt={"t1_sag": -3.0, "t2_sag": -3.0, "t2_ax": -5.0},
        gain=310.0,
        offset=12.0,
        mr_noise=0.038,
        ct_noise=9.0,
        shading=0.14,
        suffix=".mha",
        flipped_axis=0,
        first_labels=(40, 60, 80),
    ),
)
"""The first three. Masks of site_c run the other way along the first axis; site_b's CT is oblique."""


def sites(count: int) -> tuple[Site, ...]:
    """``count`` sites, site_a to site_z; from the fourth on they repeat the first three with other intensities.

    Raises UsageError outside 1 to 26.
    """
    if not 1 <= count <= len(string.ascii_lowercase):
        raise UsageError(f"{count} sites were asked for.", action="Ask for 1 to 26 sites.")
    made = []
    for index in range(count):
        base, turn = SITES[index % len(SITES)], index // len(SITES)
        other = replace(
            base,
            name=f"site_{string.ascii_lowercase[index]}",
            gain=base.gain * 1.3**turn,
            offset=base.offset + 9 * turn,
        )
        made.append(other if turn else base)
    return tuple(made)
