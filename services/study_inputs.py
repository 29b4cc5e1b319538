"""From cohort settings to the tables that are fitted on: what selection and training begin with alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from feature_store.cohort_settings import CohortSettings
from feature_store.cohorts import freeze_cohort
from feature_store.store import FeatureStore
from models.study_settings import StudySettings
from models.study_tables import StudyTables, from_store
from services.feature_sources import FeatureSources, feature_sources


@dataclass(frozen=True)
class StudyInputs:
    """A frozen cohort and what is read for it; kept in the run's settings, so that the run can be repeated."""

    plan: CohortSettings
    study: StudySettings
    cohort: str
    version: int
    sources: FeatureSources

    @classmethod
    def freeze(cls, store: FeatureStore, plan: CohortSettings, study: StudySettings) -> StudyInputs:
        """Freeze the cohort now. Raises NotReady where the store has no features to read."""
        sources = feature_sources(store.snapshot(), plan)
        cohort = freeze_cohort(store, plan)
        return cls(plan, study, cohort.name, cohort.version, sources)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> StudyInputs:
        """The inverse of :meth:`settings`."""
        return cls(
            plan=CohortSettings.model_validate(settings["plan"]),
            study=StudySettings.model_validate(settings["study"]),
            cohort=settings["cohort"],
            version=settings["version"],
            sources=FeatureSources(tuple(settings["radiomics"]), tuple(settings["encoders"])),
        )

    def settings(self) -> dict[str, Any]:
        """What a run's row keeps; ``feature_sets`` is what scoring reads a patient's features by."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "study": self.study.model_dump(mode="json"),
            "cohort": self.cohort,
            "version": self.version,
            "radiomics": list(self.sources.radiomics),
            "encoders": list(self.sources.encoders),
            "feature_sets": [*self.sources.radiomics, *self.sources.encoders],
        }

    def tables(self, store: FeatureStore) -> StudyTables:
        """The cohort's tables, point in time, with the plan's sequences only."""
        radiomics, encoders = self.sources.radiomics, self.sources.encoders
        tables = from_store(store.snapshot(), self.cohort, radiomics, encoders, version=self.version)
        return replace(tables, radiomics=self._of_plan(tables.radiomics), deep=self._of_plan(tables.deep))

    def _of_plan(self, table: pd.DataFrame | None) -> pd.DataFrame | None:
        if table is None:
            return None
        kept = [name for name in table.columns if str(name).split(".")[0] in self.plan.sequences]
        return table[kept] if kept else None
