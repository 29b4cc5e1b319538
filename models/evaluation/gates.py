"""The gates between a candidate and its release, judged on patients that neither signature was fitted on.

A gate holds, fails, or cannot be judged (``insufficient``: too few patients); what cannot be judged does not
hold. DESIGN's bounds are the defaults and each of them is a setting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.evaluation.auc import auc, delong_ci, delong_paired
from models.evaluation.calibration import calibration_intercept, calibration_slope
from models.evaluation.inputs import BoolArray, outcomes

Verdict = Literal["holds", "fails", "insufficient", "not_applicable"]
CHANCE = 0.5


class GateSettings(BaseModel):
    """Bounds of the gates; the fewest events and non-events on which any of them is judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    auc_difference: float = Field(-0.05, gt=-1, lt=1, description="the lower 95 % bound has to lie above it")
    slope_low: float = Field(0.7, gt=0)
    slope_high: float = Field(1.3, gt=0)
    intercept: float = Field(0.3, gt=0, description="the absolute calibration in the large has to lie under it")
    fewest: int = Field(20, ge=2, description="events, and non-events")


@dataclass(frozen=True)
class Gate:
    """One gate: its figures, the bound in words, and why it does or does not hold."""

    name: str
    verdict: Verdict
    bound: str
    reason: str
    figures: dict[str, Any]

    @property
    def open(self) -> bool:
        """Whether it stands in the way of nothing."""
        return self.verdict in ("holds", "not_applicable")


def judge_gates(
    y: ArrayLike,
    site: Sequence[str],
    candidate: ArrayLike,
    current: ArrayLike | None,
    leakage_passed: bool | None,
    settings: GateSettings,
) -> list[Gate]:
    """All gates of one signature.

    ``y`` (n,) outcomes, ``site`` (n,), ``candidate`` and ``current`` (n,) calibrated risks of the same held-out
    patients; ``current`` is None where nothing is released that the candidate could be worse than.
    ``leakage_passed`` is what the run's own check said (None: it could not be judged).
    """
    events = outcomes(y)
    risk = np.asarray(candidate, dtype=np.float64)
    enough = min(int(events.sum()), int((~events).sum())) >= settings.fewest
    counts = f"{int(events.sum())} events and {int((~events).sum())} non-events"
    few = f"{counts}; {settings.fewest} of each are needed."
    return [
        _difference(events, risk, current, settings, few if not enough else ""),
        *_calibration(events, risk, settings, few if not enough else ""),
        _leakage(leakage_passed),
        _sites(events, np.asarray(site, dtype=str), risk),
    ]


def _difference(events: BoolArray, risk: Any, current: ArrayLike | None, settings: GateSettings, few: str) -> Gate:
    name, bound = "auc_difference", f"lower 95 % bound above {settings.auc_difference}"
    if current is None:
        return Gate(name, "not_applicable", bound, "Nothing is released yet that it could be worse than.", {})
    if few:
        return Gate(name, "insufficient", bound, few, {})
    difference, (low, high), _ = delong_paired(events, risk, current)
    holds = low > settings.auc_difference
    reason = f"AUC {difference:+.3f} against what is released, 95 % interval {low:+.3f} to {high:+.3f}."
    figures = {"auc_difference": difference, "ci": [low, high]}
    return Gate(name, "holds" if holds else "fails", bound, reason, figures)


def _calibration(events: BoolArray, risk: Any, settings: GateSettings, few: str) -> Iterator[Gate]:
    for name, bound, measure in (
        ("calibration_slope", f"{settings.slope_low} to {settings.slope_high}", calibration_slope),
        ("calibration_in_the_large", f"under {settings.intercept} either way", calibration_intercept),
    ):
        value = None if few else measure(events, risk)
        if value is None:
            yield Gate(name, "insufficient", bound, few or "It does not exist here: the risks are constant.", {})
            continue
        slope = name == "calibration_slope"
        holds = settings.slope_low <= value <= settings.slope_high if slope else abs(value) < settings.intercept
        words = "Slope" if slope else "Intercept"
        yield Gate(name, "holds" if holds else "fails", bound, f"{words} {value:.2f}.", {"value": float(value)})


def _leakage(passed: bool | None) -> Gate:
    bound = "the run's own check on permuted outcomes passed"
    if passed is None:
        return Gate("leakage_check", "insufficient", bound, "The run did not or could not judge it.", {})
    reason = "No signal on permuted outcomes." if passed else "The protocol found signal where there is none."
    return Gate("leakage_check", "holds" if passed else "fails", bound, reason, {"passed": passed})


def _sites(events: BoolArray, site: NDArray[np.str_], risk: Any) -> Gate:
    """Fails where the whole AUC interval of a site lies below chance."""
    name, bound = "sites", f"no site whose AUC interval lies wholly below {CHANCE}"
    figures, worse = {}, []
    for one in sorted(set(site.tolist())):
        here = site == one
        if events[here].any() and not events[here].all():
            low, high = delong_ci(events[here], risk[here])
            figures[one] = {"auc": auc(events[here], risk[here]), "ci": [low, high], "n": int(here.sum())}
            if high < CHANCE:
                worse.append(one)
    if not figures:
        return Gate(name, "insufficient", bound, "No site has events and non-events.", {})
    reason = f"Worse than chance at {', '.join(worse)}." if worse else f"None of {len(figures)} sites."
    return Gate(name, "fails" if worse else "holds", bound, reason, figures)
