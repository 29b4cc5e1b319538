"""From cohort settings to the tables that are fitted on: what selection and training begin with alike."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.cohort_settings import CohortSettings
from feature_store.cohorts import FOLLOW_UP, freeze_cohort, left_out, load_cohort
from feature_store.errors import FeatureTableError, SettingsError
from feature_store.follow_up_window import Case, least_days
from feature_store.retrieval import CLINICAL_COLUMNS, clinical_of
from feature_store.scanners import scanner_names
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from models.missing_values import settle_missing
from models.scanners import Scanners
from models.selection.robustness import checked
from models.study_settings import StudySettings
from models.study_tables import StudyTables, from_store
from services.feature_sources import FeatureSources, feature_sources

ARTEFACTS = "artefacts"


def keep_table(store: FeatureStore, table: pd.DataFrame) -> str:
    """Keep a robustness table among the artefacts, so that a run can be repeated from its settings; its hash."""
    buffer = io.BytesIO()
    checked(table).to_parquet(buffer, index=False)
    return store.blobs.put_bytes(ARTEFACTS, buffer.getvalue())


def read_table(store: FeatureStore, name: str) -> pd.DataFrame:
    """A robustness table that was kept. Raises NotFound, FeatureTableError."""
    content = store.blobs.read_bytes(ARTEFACTS, name)
    try:
        return checked(pd.read_parquet(io.BytesIO(content)))
    except (ValueError, OSError) as error:
        raise FeatureTableError("That artefact is no table.", action="Name a kept robustness table.") from error


@dataclass(frozen=True)
class StudyInputs:
    """A frozen cohort and what is read for it; kept in the run's settings, so that the run can be repeated."""

    plan: CohortSettings
    study: StudySettings
    cohort: str
    version: int
    sources: FeatureSources
    robustness: str | None = None
    """Content hash of a robustness table among the artefacts: the filter in front of selection."""

    @classmethod
    def freeze(
        cls, store: FeatureStore, plan: CohortSettings, study: StudySettings, robustness: str | None = None
    ) -> StudyInputs:
        """Freeze the cohort now.

        Raises NotReady where the store has no features to read, NotFound and FeatureTableError for a robustness
        table that is not there or is none, SettingsError for policies of missing values that cannot be kept to.
        """
        study = _with_policies(study, plan)
        if robustness is not None:
            read_table(store, robustness)
        sources = feature_sources(store.snapshot(), plan)
        cohort = freeze_cohort(store, plan)
        return cls(plan, study, cohort.name, cohort.version, sources, robustness)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> StudyInputs:
        """The inverse of :meth:`settings`."""
        return cls(
            plan=CohortSettings.model_validate(settings["plan"]),
            study=StudySettings.model_validate(settings["study"]),
            cohort=settings["cohort"],
            version=settings["version"],
            sources=FeatureSources(tuple(settings["radiomics"]), tuple(settings["encoders"])),
            robustness=settings.get("robustness"),  # runs from before it existed have none
        )

    def settings(self) -> dict[str, Any]:
        """What a run's row keeps; ``feature_sets`` is what scoring reads a patient's features by."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            # a number of folds that nobody asked for is left to the number of patients
            "study": self.study.model_dump(
                mode="json", exclude=None if "n_folds" in self.study.model_fields_set else {"n_folds"}
            ),
            "cohort": self.cohort,
            "version": self.version,
            "radiomics": list(self.sources.radiomics),
            "encoders": list(self.sources.encoders),
            "feature_sets": [*self.sources.radiomics, *self.sources.encoders],
            "robustness": self.robustness,
        }

    def tables(self, store: FeatureStore) -> StudyTables:
        """The cohort's tables, point in time, with the plan's sequences only.

        Without patients who lack what the settings ask of everybody; raises as ``settle_missing``.
        """
        radiomics, encoders = self.sources.radiomics, self.sources.encoders
        tables = from_store(
            store.snapshot(),
            self.cohort,
            radiomics,
            encoders,
            version=self.version,
            in_sample=self.plan.in_sample_encoder,
        )
        table = None if self.robustness is None else read_table(store, self.robustness)
        if table is not None:  # a sequence that the plan leaves out is no unknown feature
            table = table[table["feature"].str.split(".").str[0].isin(self.plan.sequences)]
        radiomics_table, deep = self._of_plan(tables.radiomics), self._of_plan(tables.deep)
        whole = replace(tables, radiomics=radiomics_table, deep=deep, robustness=table)
        return settle_missing(self._with_those_left_out(whole, store), self.study.missing_values)

    def _with_those_left_out(self, tables: StudyTables, store: FeatureStore) -> StudyTables:
        """Counts by reason for the flow, clinical variables of those without an outcome, incident labels, scanners.

        Of whom follow-up is short or missing, whether the window has passed.
        """
        snapshot = store.snapshot()
        cohort = load_cohort(snapshot, self.cohort, self.version)
        view = snapshot.at(cohort.as_of)
        out = left_out(view, self.plan)
        reasons = Counter(found[0] for found in out.values())
        lost = [case for case, found in out.items() if set(found) <= set(FOLLOW_UP)]
        labels = view.table("labels", ["site", "patient_id", "incident"], {"rule": cohort.rule}).to_pylist()
        incident = {(row["site"], row["patient_id"]): row["incident"] for row in labels}
        keys = list(zip(tables.patients["site"], tables.patients["patient_id"], strict=True))
        known = pd.Series([incident.get(key) for key in keys], dtype="float64")
        members = cohort.members.set_index(["site", "patient_id"])["case_id"]
        cases = [(*key, str(members[key])) for key in keys]
        scanners = scanner_names(view, cases, self.plan.sequences)
        return replace(
            tables,
            patients=tables.patients.assign(incident=known.to_numpy(), **scanners),
            flow={"cases": len(cohort.members) + len(out), **dict(reasons.most_common())},
            lost=clinical_of(view, lost) if lost else None,
            windows_passed=_passed(view, lost, max(self.plan.min_days, self.plan.inclusion.follow_up_days)),
        )

    def _of_plan(self, table: pd.DataFrame | None) -> pd.DataFrame | None:
        if table is None:
            return None
        kept = [name for name in table.columns if str(name).split(".")[0] in self.plan.sequences]
        return table[kept] if kept else None


def _passed(view: Snapshot, cases: Sequence[Case], days: int) -> NDArray[np.bool_]:
    """Of each case, whether a follow-up window of so many days is known to lie behind it."""
    return np.array([least is not None and least >= days for least in least_days(view, cases)], dtype=np.bool_)


def scoring_frame(tables: StudyTables, features: Sequence[str]) -> pd.DataFrame:
    """What a signature asks for, one row a patient; a feature nobody has is missing for all."""
    scanners = Scanners.of_patients(tables.patients).frame()
    found = [table for table in (scanners, tables.radiomics, tables.deep, tables.clinical) if table is not None]
    frame = pd.concat([table.reset_index(drop=True) for table in found], axis=1)
    absent = [name for name in features if name not in frame.columns]
    return frame if not absent else frame.join(pd.DataFrame(np.nan, index=frame.index, columns=absent))


def _with_policies(study: StudySettings, plan: CohortSettings) -> StudySettings:
    """The study's settings with the cohort's policies of missing values."""
    if study.missing_values and study.missing_values != plan.missing_values:
        raise SettingsError(
            "Policies of missing values are declared beside the cohort's.", action="Declare them in cohort.yaml."
        )
    if unknown := sorted(set(plan.missing_values) - set(CLINICAL_COLUMNS)):
        raise SettingsError(
            f"missing_values names {', '.join(unknown)}, which is no clinical variable.",
            action=f"Known: {', '.join(CLINICAL_COLUMNS)}.",
        )
    return study.model_copy(update={"missing_values": dict(plan.missing_values)})
