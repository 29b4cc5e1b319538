"""A verdict: pass, warn or fail, with a reason for every bound that is not kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Number = float | int | str


class Verdict(StrEnum):
    """``fail`` is kept for what makes features meaningless; ``warn`` says what a reader should know."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


SEVERITY = {Verdict.PASS: 0, Verdict.WARN: 1, Verdict.FAIL: 2}


@dataclass(frozen=True)
class Reason:
    """Why a verdict is no ``pass``: a stable code, and one sentence with the number measured and its bound."""

    code: str
    verdict: Verdict
    sentence: str

    def line(self) -> str:
        return f"{self.code}: {self.sentence}"


@dataclass(frozen=True)
class Quality:
    """What was measured, and what follows from it."""

    reasons: tuple[Reason, ...] = ()
    measured: Mapping[str, Number] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The gravest of the reasons."""
        return max((reason.verdict for reason in self.reasons), key=SEVERITY.__getitem__, default=Verdict.PASS)

    def lines(self) -> list[str]:
        """The reasons as text, gravest first."""
        return [reason.line() for reason in sorted(self.reasons, key=lambda r: -SEVERITY[r.verdict])]


def warn(code: str, sentence: str) -> Reason:
    """A reason to look twice."""
    return Reason(code, Verdict.WARN, sentence)


def fail(code: str, sentence: str) -> Reason:
    """A reason not to extract."""
    return Reason(code, Verdict.FAIL, sentence)


def gravest(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest of several; ``pass`` of none."""
    return max(verdicts, key=SEVERITY.__getitem__, default=Verdict.PASS)
