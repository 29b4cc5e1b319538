"""Tables for learning and for scoring, point-in-time and free of leaks.

A training table is read as of the push its cohort was frozen at: nothing committed later is in it, so
the same call gives the same numbers a year later. Predictors from after the surgery are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from feature_store.cohorts import MEMBER_COLUMNS, Cohort, load_cohort
from feature_store.errors import NotFound, UsageError
from feature_store.files import Where
from feature_store.matrix import read_matrix
from feature_store.schemas import TABLES
from feature_store.snapshot import Snapshot
from feature_store.vocabulary import PAPER_ROIS, PRIMARY_SEGMENTATION, InSample, Partition, RoiName

CLINICAL_COLUMNS = ("age", "sex", "bmi", "surgical_segments", "osteoporosis", "diagnosis")
TEXT_COLUMNS = ("sex", "diagnosis")


@dataclass(frozen=True)
class TrainingTable:
    """``patients`` (site, patient_id, case_id, partition, outcome) and ``features`` (float64) row by row.

    ``sources`` says where it came from: cohort, version, as_of, rule, feature sets, ROIs nobody has, how
    many rows were refused because their image was made after the surgery, encoders tuned in sample, and the
    erasures that took members out of the cohort (empty: the table is, bit for bit, the one it was).
    """

    patients: pd.DataFrame
    features: pd.DataFrame
    sources: dict[str, Any]


def training_table(
    snapshot: Snapshot,
    cohort: str,
    feature_sets: Sequence[str],
    *,
    version: int | None = None,
    rois: Sequence[RoiName] = PAPER_ROIS,
    segmentation: str = PRIMARY_SEGMENTATION,
    as_of: int | None = None,
    in_sample: InSample = "refuse",
) -> TrainingTable:
    """One row a patient of the frozen cohort, one column a feature, by full name.

    ``feature_sets`` are ids of radiomics feature sets and encoders; an embedding's columns are
    ``sequence.structure.level.ENCODER_000`` and so on. NaN where a patient lacks an ROI; an ROI that no
    patient has gives no columns and is named in ``sources``. ``as_of`` (a push sequence; default: the
    cohort's own) may look at another moment.

    An encoder that has seen test patients, even their images alone, is always refused. Where one was tuned to
    the outcomes of training patients (subset A), ``in_sample`` decides: ``refuse``; ``leave_out`` those patients,
    so that what is fitted is fitted on the disjoint subset B; or ``apparent``, the paper's own way, where all stay
    and every figure of the training patients is apparent. ``sources`` says which encoders and how many patients.

    Raises NotFound (cohort), FeaturesMissing (nothing extracted as of then), UsageError.
    """
    frozen = load_cohort(snapshot, cohort, version)
    view = snapshot.at(frozen.as_of if as_of is None else as_of)
    wanted = [replace(roi, segmentation=segmentation) for roi in rois]
    members, tuned = _fit_members(snapshot, frozen, feature_sets, in_sample)
    cases = list(zip(*(members[name].tolist() for name in ("site", "patient_id", "case_id")), strict=True))
    matrix = read_matrix(view, cases, feature_sets, wanted)
    return TrainingTable(
        patients=members[MEMBER_COLUMNS].copy(),
        features=pd.DataFrame(matrix.values, columns=matrix.names, copy=False),
        sources={
            "cohort": frozen.name,
            "version": frozen.version,
            "as_of": view.sequence,
            "rule": frozen.rule,
            "feature_sets": matrix.sets,
            "segmentation": segmentation,
            "missing_rois": matrix.missing_rois,
            "refused_rows": matrix.refused_rows,
            "in_sample": tuned,
            "erased_by": list(frozen.erased),
        },
    )


def clinical_table(
    snapshot: Snapshot, cohort: str, version: int | None = None, *, as_of: int | None = None
) -> pd.DataFrame:
    """CLINICAL_COLUMNS of the cohort's patients, in the order of :func:`training_table`.

    Numbers (osteoporosis as 0 and 1) are float64 with NaN, texts are objects with None where unknown.
    """
    frozen = load_cohort(snapshot, cohort, version)
    view = snapshot.at(frozen.as_of if as_of is None else as_of)
    members = frozen.members
    return clinical_of(view, list(zip(members["site"], members["patient_id"], members["case_id"], strict=True)))


def clinical_of(view: Snapshot, cases: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """CLINICAL_COLUMNS of these cases (site, patient, case), in their order, as of ``view``."""
    rows = view.table("clinical", where={"site": sorted({site for site, _, _ in cases})}).to_pylist()
    found = {
        (row["site"], row["patient_id"], row["case_id"]): row
        for row in rows
        if row["days_from_index"] is None or row["days_from_index"] <= 0
    }
    values = [found.get(key, {}) for key in cases]
    table = {}
    for name in CLINICAL_COLUMNS:
        column = [row.get(name) for row in values]
        if name in TEXT_COLUMNS:
            table[name] = pd.Series(column, dtype=object)
        else:
            table[name] = pd.Series([np.nan if v is None else float(v) for v in column], dtype="float64")
    return pd.DataFrame(table)


def export_cohort(
    snapshot: Snapshot, cohort: str, feature_sets: Sequence[str] | None = None, *, version: int | None = None
) -> pd.DataFrame:
    """A frozen cohort as one table, a row a patient: who, partition, outcome, clinical variables, features.

    ``feature_sets``: ids of feature sets and encoders (default: all that had values when it was frozen). Embeddings
    of an encoder that was tuned to these patients' outcomes are in it; its row in ``encoders`` says so.
    Raises what :func:`training_table` raises.
    """
    if feature_sets is None:
        view = snapshot.at(load_cohort(snapshot, cohort, version).as_of)
        found = [(table, TABLES[table].key[-1]) for table in ("radiomics", "embeddings")]
        feature_sets = sorted({name for t, column in found for name in view.table(t, [column])[column].to_pylist()})
    table = training_table(snapshot, cohort, feature_sets, version=version, in_sample="apparent")
    clinical = clinical_table(snapshot, cohort, version)
    return pd.concat([table.patients, clinical.add_prefix("clinical."), table.features], axis=1)


def patient_features(
    snapshot: Snapshot,
    site: str,
    patient_id: str,
    feature_sets: Sequence[str],
    rois: Sequence[RoiName] = PAPER_ROIS,
) -> dict[str, float]:
    """One patient's features by full name, the same numbers as in a training table.

    Only ROIs that have values are there (NaN where one of their features is undefined).
    Raises NotFound where the site has no such patient.
    """
    cases = newest_cases(snapshot, {"site": site, "patient_id": patient_id})
    if not cases:
        raise NotFound("There is no such patient.", action="Send the case first.")
    matrix = read_matrix(snapshot, cases, feature_sets, rois)
    found: dict[str, float] = {}
    for block in matrix.blocks:
        values = matrix.values[0, block]
        if not np.isnan(values).all():
            found.update(zip(matrix.names[block], values.tolist(), strict=True))
    return found


def newest_cases(snapshot: Snapshot, where: Where | None = None) -> list[tuple[str, str, str]]:
    """Site, patient_id and case_id of every patient, with the case that came last."""
    heads = snapshot.heads("cases", where)
    found: dict[tuple[str, str], tuple[int, str]] = {}
    columns = ("site", "patient_id", "case_id", "push_sequence")
    rows = [] if heads is None else zip(*(heads.keys[name].to_pylist() for name in columns), strict=True)
    for site, patient_id, case_id, sequence in rows:
        last = (sequence, case_id)
        found[site, patient_id] = max(last, found.get((site, patient_id), last))
    return [(*patient, case_id) for patient, (_, case_id) in found.items()]


def _fit_members(
    newest: Snapshot, cohort: Cohort, feature_sets: Sequence[str], in_sample: InSample
) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    """The members to read, and what was done about encoders that know some of them (None: none does).

    What is known of an encoder today counts, not what was known when the cohort was frozen.
    """
    columns = ["encoder", "outcomes_seen", "patients_seen", "outcomes_of"]
    names = cohort.members["site"] + "/" + cohort.members["patient_id"]
    training = cohort.members["partition"] == Partition.TRAINING
    tests = set(names[~training])
    tuned_on: set[str] = set()
    encoders = []
    for row in newest.table("encoders", columns, {"encoder": list(feature_sets)}).to_pylist():
        seen = set(row["patients_seen"] or [])
        # without outcomes an encoder may know the training patients' images, never the test patients'
        if count := len(seen & tests):
            raise UsageError(
                f"Encoder {row['encoder']} was fitted on {count} patients it would be judged on.",
                action="Use an encoder that has not seen them.",
            )
        of = seen if row["outcomes_of"] is None else set(row["outcomes_of"])
        count = len(of & set(names)) if row["outcomes_seen"] else 0
        if count and in_sample == "refuse":
            raise UsageError(
                f"Encoder {row['encoder']} was fitted on {count} patients it would be used on.",
                action="Use an encoder that has not seen their outcomes, or leave those patients out.",
            )
        if count:
            encoders.append(row["encoder"])
            tuned_on |= of
    if not encoders:
        return cohort.members, None
    known = names.isin(tuned_on)
    said = {"encoders": sorted(encoders), "tuned_on": int(known.sum()), "handling": in_sample}
    return (cohort.members if in_sample == "apparent" else cohort.members[~known].reset_index(drop=True)), said
