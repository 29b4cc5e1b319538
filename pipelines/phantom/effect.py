"""What the outcome changes in a phantom, with its numbers: the one place that says so.

A patient is either *degenerating* or not; the chance of it follows from the clinical variables
(:func:`chance`). A degenerating patient's image markers come from the other of two bell curves
(:data:`MARKERS`). With the effect planted the outcome is "degenerating"; without it the same patients, images
and clinical variables are kept and the outcome is drawn by lot at the same prevalence
(:data:`PREVALENCE`), so that every distribution stays as it was and nothing can be learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PREVALENCE = 0.43
"""Share of patients with the outcome: by lot where none is planted, and on average where it is."""


@dataclass(frozen=True)
class Marker:
    """One image marker: normal around ``healthy`` or ``degenerating`` with ``sd``, kept within [low, high]."""

    healthy: float
    degenerating: float
    sd: float
    low: float
    high: float
    meaning: str

    def draw(self, degenerating: bool, rng: np.random.Generator) -> float:
        mean = self.degenerating if degenerating else self.healthy
        return float(np.clip(rng.normal(mean, self.sd), self.low, self.high))


MARKERS: dict[str, Marker] = {
    "nucleus_signal": Marker(
        0.64, 0.43, 0.10, 0.20, 0.90, "T2 signal of the nucleus pulposus of every disc, as a share of CSF"
    ),
    "disc_roughness": Marker(
        0.05, 0.09, 0.022, 0.01, 0.20, "SD of the correlated texture in every disc on T2, as a share of CSF"
    ),
    "paraspinal_fat": Marker(0.12, 0.25, 0.06, 0.02, 0.60, "share of the paraspinal muscles that is fat streaks"),
}
"""Two markers are seen by sagittal T2, the third by axial T2; T1 and CT have none of their own."""

RISK_INTERCEPT = -0.36
RISK_PER_UNIT: dict[str, tuple[float, float]] = {
    # variable: (reference value, change of the log odds a unit)
    "age": (60.0, 0.080),
    "bmi": (25.5, 0.160),
    "osteoporosis": (0.25, 0.90),
    "surgical_segments": (1.67, 0.35),
}
"""Log odds of degenerating: RISK_INTERCEPT + sum of (value − reference) · change."""


def chance(age: float, bmi: float, osteoporosis: bool, surgical_segments: int) -> float:
    """Probability that a patient with these clinical variables is degenerating."""
    values = {"age": age, "bmi": bmi, "osteoporosis": float(osteoporosis), "surgical_segments": surgical_segments}
    log_odds = RISK_INTERCEPT + sum(
        change * (values[name] - reference) for name, (reference, change) in RISK_PER_UNIT.items()
    )
    return float(1.0 / (1.0 + np.exp(-log_odds)))


def describe(planted: bool) -> str:
    """The effect in plain text, for the README beside a phantom cohort."""
    if not planted:
        return (
            "No effect is planted: the outcome was drawn by lot "
            f"(prevalence {PREVALENCE:.2f}) and depends on nothing in this folder."
        )
    lines = ["The outcome is planted. It changes these markers (mean without -> mean with, SD within each group):"]
    lines += [f"  {n}: {m.healthy:g} -> {m.degenerating:g}, SD {m.sd:g} ({m.meaning})" for n, m in MARKERS.items()]
    lines.append("and is more likely with these clinical variables (change of the log odds a unit):")
    lines += [f"  {name}: {change:+g}" for name, (_, change) in RISK_PER_UNIT.items()]
    return "\n".join(lines)
