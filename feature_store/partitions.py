"""Partitions, given to a patient once, for ever.

External sites are external test. The others are split within each outcome by an order that only the
seed and the patient decide, so neither the order of rows nor who else is in the store moves a patient;
patients who come later fill up whichever side is short of the ratio. Who is locked is drawn first, by the same order,
and only among those who have no partition yet: nobody who was looked at before is set aside, and who was stays so.
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
    locked_sites: Collection[str] = (),
    locked_share: float = 0.0,
) -> dict[Patient, str]:
    """Partition of every patient in ``outcomes``; those in ``earlier`` keep theirs.

    Everybody new of ``locked_sites`` is set aside, and of the other internal sites as many as ``locked_share`` lacks.
    Raises PartitionConflict where an earlier partition contradicts ``external_sites`` or ``locked_sites``.
    """
    kept = {patient: earlier[patient] for patient in outcomes if patient in earlier}
    _refuse_contradictions(kept, external_sites, locked_sites)
    given = dict(kept) | {p: Partition.LOCKED_TEST.value for p in outcomes if p[0] in locked_sites and p not in kept}
    apart = {*external_sites, *locked_sites}
    for outcome in sorted(set(outcomes.values())):
        inside = [p for p, y in outcomes.items() if y == outcome and p[0] not in apart]
        new = sorted((p for p in inside if p not in kept), key=lambda p: _draw(seed, p))
        locked = sum(kept.get(p) == Partition.LOCKED_TEST for p in inside)
        set_aside = new[: max(0, math.floor(locked_share * len(inside) + 0.5) - locked)]
        given |= dict.fromkeys(set_aside, Partition.LOCKED_TEST.value)
        inside = [p for p in inside if given.get(p) != Partition.LOCKED_TEST]
        training = sum(kept.get(p) == Partition.TRAINING for p in inside)
        wanted = math.floor(ratio * len(inside) + 0.5) - training
        for i, patient in enumerate(new[len(set_aside) :]):
            given[patient] = (Partition.TRAINING if i < wanted else Partition.INTERNAL_VALIDATION).value
    for patient in outcomes:
        given.setdefault(patient, Partition.EXTERNAL_TEST.value)
    return given


def _refuse_contradictions(
    kept: Mapping[Patient, str], external_sites: Collection[str], locked_sites: Collection[str]
) -> None:
    seen = [patient for patient, part in kept.items() if patient[0] in locked_sites and part != Partition.LOCKED_TEST]
    if seen:
        sites = sorted({site for site, _ in seen})
        raise PartitionConflict(
            f"{len(seen)} patients of {', '.join(sites)} have been used before and cannot be set aside any more.",
            action="Lock sites from the first cohort on, or a share of the patients to come.",
        )
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
