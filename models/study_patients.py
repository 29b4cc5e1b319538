"""A study's patients as arrays: what the protocol takes, and frames to score."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.vocabulary import Partition
from models.clinical_columns import ClinicalColumns
from models.missing_values import Policies, of_columns
from models.protocol import TrainingPatients
from models.scanners import Scanners
from models.selection.matrix import FeatureMatrix
from models.study_tables import StudyTables

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class StudyPatients:
    """All patients of a study, in one order: ``y``, ``partition`` and ``site`` (n,), ``scanner``, and each source."""

    y: NDArray[np.int64]
    partition: NDArray[np.str_]
    site: NDArray[np.str_]
    scanner: Scanners
    radiomics: FeatureMatrix | None
    deep: FeatureMatrix | None
    clinical: ClinicalColumns | None

    @classmethod
    def from_tables(
        cls, tables: StudyTables, radiomics: pd.DataFrame | None, missing: Policies | None = None
    ) -> StudyPatients:
        """``radiomics`` is the table's, less the columns a filter took out; ``missing``: policies by variable."""
        training = tables.rows(Partition.TRAINING)
        clinical = None
        if tables.clinical is not None:
            policies = of_columns(tables.clinical, missing or {})
            clinical = ClinicalColumns.from_frame(tables.clinical, training, policies)
        return cls(
            tables.outcome,
            tables.patients["partition"].to_numpy(dtype=str),
            tables.patients["site"].to_numpy(dtype=str),
            Scanners.of_patients(tables.patients),
            None if radiomics is None else FeatureMatrix.from_frame(radiomics),
            None if tables.deep is None else FeatureMatrix.from_frame(tables.deep),
            clinical if clinical is not None and clinical.variables else None,
        )

    def rows(self, partition: str) -> Ints:
        return np.flatnonzero(self.partition == partition)

    def groups(self) -> NDArray[np.str_]:
        """Partition and site, within which outcomes may be permuted."""
        return np.char.add(np.char.add(self.partition, "\n"), self.site)

    def with_outcomes(self, y: NDArray[np.int64]) -> StudyPatients:
        return replace(self, y=y)

    def training(self) -> TrainingPatients:
        """Training patients only."""
        everybody = TrainingPatients(self.y, self.radiomics, self.deep, self.clinical, self.scanner)
        return everybody.take(self.rows(Partition.TRAINING))

    def frame(self, rows: Ints) -> pd.DataFrame:
        """All sources side by side, one row a patient, as a signature scores them."""
        parts = [self.scanner.take(rows).frame()]
        for matrix in (self.radiomics, self.deep):
            if matrix is not None:
                parts.append(pd.DataFrame(matrix.values[rows], columns=list(matrix.names)))
        if self.clinical is not None:
            values = {name: [column[i] for i in rows] for name, column in self.clinical.values.items()}
            parts.append(pd.DataFrame(values, dtype=object))
        return pd.concat(parts, axis=1)
