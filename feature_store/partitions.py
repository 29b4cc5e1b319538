"""Partitions, given to a patient once, for ever.

External sites are external test. The others are split within each outcome by an order that only the
seed and the patient decide, so neither the order of rows nor who else is in the store moves a patient;
patients who come later fill up whichever side is short of the ratio.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping

from feature_store.errors import PartitionConflict
from feature_store.vocabulary import Partition

Patient = tuple[str, str]
"""Site and patient id."""


def assign(
    outcomes: Mapping[Patient, int],
    earlier: Mapping[Patient, str],
    external_sites: Collection[str],
    ratio: float,
    seed: int,
) -> dict[Patient, str]:
    """Partition of every patient in ``outcomes``; those in ``earlier`` keep theirs.

    Raises PartitionConflict where an earlier partition contradicts ``external_sites``.
    """
    kept = {patient: earlier[patient] for patient in outcomes if patient in earlier}
    _refuse_contradictions(kept, external_sites)
    given = dict(kept)
    for outcome in sorted(set(outcomes.values())):
        inside = [p for p, y in outcomes.items() if y == outcome and p[0] not in external_sites]
        inside = [p for p in inside if kept.get(p) != Partition.LOCKED_TEST]
        new = sorted((p for p in inside if p not in kept), key=lambda p: _draw(seed, p))
        training = sum(kept.get(p) == Partition.TRAINING for p in inside)
        wanted = math.floor(ratio * len(inside) + 0.5) - training
        for i, patient in enumerate(new):
            given[patient] = (Partition.TRAINING if i < wanted else Partition.INTERNAL_VALIDATION).value
    for patient in outcomes:
        given.setdefault(patient, Partition.EXTERNAL_TEST.value)
    return given


def _refuse_contradictions(kept: Mapping[Patient, str], external_sites: Collection[str]) -> None:
    wrong = [
        patient
        for patient, partition in kept.items()
        if partition != Partition.LOCKED_TEST
        and (patient[0] in external_sites) != (partition == Partition.EXTERNAL_TEST)
    ]
    if wrong:
        sites = sorted({site for site, _ in wrong})
        raise PartitionConflict(
            f"{len(wrong)} patients of {', '.join(sites)} have another partition from an earlier cohort.",
            action="Name the same external sites as before: a partition is given once, for ever.",
        )


def _draw(seed: int, patient: Patient) -> str:
    text = f"{seed}\n{len(patient[0])}\n{patient[0]}\n{patient[1]}"
    return hashlib.sha256(text.encode()).hexdigest()
