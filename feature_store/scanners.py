"""The scanner of a series by name: manufacturer, model and field strength, as harmonisation knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feature_store.snapshot import Snapshot

PREFIX = "scanner:"
COLUMNS = ("site", "patient_id", "case_id", "sequence", "scanner_vendor", "scanner_model", "field_strength_t")


def of_sequence(sequence: str) -> str:
    """What the scanner of a sequence is called among a patient's features: ``scanner:t2_sag``."""
    return f"{PREFIX}{sequence}"


def sequence_of(feature: str) -> str | None:
    """Inverse of :func:`of_sequence`; None for any other feature."""
    return feature.removeprefix(PREFIX) or None if feature.startswith(PREFIX) else None


def scanner_names(
    view: Snapshot, cases: Sequence[tuple[str, str, str]], sequences: Sequence[str]
) -> dict[str, list[str]]:
    """``scanner:SEQUENCE`` to the scanner of each case (site, patient, case), in their order, as of ``view``.

    The same model at two sites is one scanner, for what ComBat evens out is how images of a kind of machine look.
    Where the series says nothing of it, or is not there, the site stands in: ``unknown at SITE``.
    """
    where: dict[str, Any] = {"site": sorted({site for site, _, _ in cases}), "sequence": list(sequences)}
    if len(cases) == 1:
        where["patient_id"] = cases[0][1]
    found = {
        (row["site"], row["patient_id"], row["case_id"], row["sequence"]): scanner_name(row)
        for row in view.table("series", list(COLUMNS), where).to_pylist()
    }
    return {
        of_sequence(sequence): [found.get((*case, sequence)) or f"unknown at {case[0]}" for case in cases]
        for sequence in sequences
    }


def scanner_name(series: Mapping[str, Any]) -> str | None:
    """``SIEMENS Aera 1.5 T``; None where nothing is known.

    Of the manufacturer the first word in capitals (later software says `Siemens Healthineers`), of the field strength
    one decimal (2.89 and 1.494 are ways to write what the model has).
    """
    vendor = str(series["scanner_vendor"] or "").upper().split()[:1]
    model = " ".join(str(series["scanner_model"] or "").split())
    field = series["field_strength_t"]
    strength = f"{round(field, 1):g} T" if field else ""
    return " ".join(part for part in (*vendor, model, strength) if part) or None
