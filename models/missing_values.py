"""Who lacks which clinical variable, and what becomes of them: declared per variable, counted, decided before fitting.

Leaving a patient out and refusing to go on are decided patient by patient, from the patient's own values; what stands
in for a missing value is fitted in each fold (``models.clinical_columns``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.errors import FeatureTableError, SettingsError
from feature_store.vocabulary import MissingPolicy, Partition
from models.clinical_columns import ClinicalColumns, ClinicalEncoder, ClinicalVariable
from models.study_tables import StudyTables

Policies = Mapping[str, MissingPolicy]


def settle_missing(tables: StudyTables, policies: Policies) -> StudyTables:
    """The study without patients who lack what its settings ask of everybody; ``missing_values`` says who lacked what.

    ``policies``: by variable, whatever its column is called beside other sources. Tables that were settled before
    come back as they are.
    SettingsError for a policy of a column that is not there (or that nobody has), FeatureTableError where somebody
    lacks a variable that nobody may lack.
    """
    if tables.missing_values is not None:
        return tables
    clinical = pd.DataFrame(index=range(len(tables.patients))) if tables.clinical is None else tables.clinical
    unknown = sorted(set(policies) - {_given(str(name)) for name in clinical.columns})
    if unknown:
        raise SettingsError(
            f"There is no clinical variable {', '.join(unknown)} here, or no patient has a value of it.",
            action="Mend missing_values, or send the variable.",
        )
    partition = tables.patients["partition"].to_numpy(dtype=str)
    columns = ClinicalColumns.from_frame(clinical, tables.rows(Partition.TRAINING))
    missing = {str(name): _lacking(columns, clinical, str(name)) for name in clinical.columns}
    kept = np.ones(len(partition), dtype=np.bool_)
    rows = []
    for name in sorted(missing):
        policy = policies.get(_given(name))
        if policy == "refuse" and missing[name].any():
            raise FeatureTableError(
                f"{_counted(partition[missing[name]])} lack {_given(name)}, and the settings refuse to go on so.",
                action="Send the values, or declare another policy for it in missing_values.",
            )
        out = missing[name] & kept if policy == "complete" else np.zeros(len(kept), dtype=np.bool_)
        kept &= ~out
        rows.append(
            {
                "variable": _given(name),
                "policy": policy,
                "patients": dict(Counter(partition.tolist())),
                "missing": dict(Counter(partition[missing[name]].tolist())),
                "left_out": dict(Counter(partition[out].tolist())),
            }
        )
    return replace(_only(tables, kept, rows, policies), missing_values=rows)


def missing_record(tables: StudyTables, clinical: ClinicalColumns | None, training: NDArray[np.intp]) -> list[Any]:
    """A row a clinical variable for metrics.json: ``policy`` (declared, or the default of its kind) and counts.

    ``patients``, ``missing`` and ``left_out`` are by partition, before anybody was left out. ``used``: whether the
    variable varies among training patients; ``column``: whether the final fit has a term for those who lack it.
    """
    used = {} if clinical is None else {_given(v.name): v for v in clinical.variables}
    marked = set()
    if clinical is not None:
        marked = {_given(e.variable.name) for e in ClinicalEncoder.fit(clinical, training).encoded if e.marked}
    record = []
    for row in tables.missing_values or []:
        name = row["variable"]
        variable = used.get(name)
        policy = row["policy"] or (clinical.policy(variable) if clinical and variable else None)
        own = {"declared": row["policy"] is not None, "used": variable is not None, "column": name in marked}
        record.append({**row, "policy": policy, "kind": variable and variable.kind, **own})
    return record


def of_columns(frame: pd.DataFrame, policies: Policies) -> dict[str, MissingPolicy]:
    """The policies by the names that columns have beside other sources (``StudyTables.with_distinct_names``)."""
    return {str(c): policies[_given(str(c))] for c in frame.columns if _given(str(c)) in policies}


def _given(name: str) -> str:
    return name.removeprefix("clinical:")


def _lacking(columns: ClinicalColumns, clinical: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    if name in columns.values:
        return np.array([value is None for value in columns.values[name]], dtype=np.bool_)
    as_text = ClinicalVariable(name, "categorical")
    return np.array([as_text.read(value) is None for value in clinical[name].tolist()], dtype=np.bool_)


def _only(tables: StudyTables, kept: NDArray[np.bool_], rows: list[dict[str, Any]], policies: Policies) -> StudyTables:
    if kept.all():
        return tables

    def of_kept(table: pd.DataFrame | None) -> pd.DataFrame | None:
        return None if table is None else table.loc[kept].reset_index(drop=True)

    lost, passed = tables.lost, tables.windows_passed
    if lost is not None:  # who lacks it would not have been in the study with an outcome either
        required = [name for name in lost.columns if policies.get(_given(str(name))) == "complete"]
        eligible = lost[required].notna().all(axis=1).to_numpy()
        lost = lost.loc[eligible].reset_index(drop=True)
        passed = None if passed is None else passed[eligible]
    patients = tables.patients.loc[kept].reset_index(drop=True)
    gone = {f"lacks {row['variable']}": n for row in rows if (n := sum(row["left_out"].values()))}
    return replace(
        tables,
        patients=patients,
        radiomics=of_kept(tables.radiomics),
        deep=of_kept(tables.deep),
        clinical=of_kept(tables.clinical),
        reads=of_kept(tables.reads),
        flow={"cases": len(kept), **tables.flow, **gone},
        lost=lost,
        windows_passed=passed,
    )


def _counted(partitions: NDArray[np.str_]) -> str:
    counts = Counter(partitions.tolist())
    parts = ", ".join(f"{p.value} {counts[p.value]}" for p in Partition if counts[p.value])
    return f"{len(partitions)} patients ({parts})"
