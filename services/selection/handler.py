"""Trains selectors: which radiomics features and which components of the embeddings carry the outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from feature_store.vocabulary import Partition
from models import artefacts
from models.protocol import sign_source
from models.scanners import Scanners
from models.selection.matrix import FeatureMatrix
from models.selection.repeatability import robust_radiomics
from services.runs import Progress, Run, RunHandler, RunStatus
from services.selection.messages import SelectRequest
from services.study_inputs import StudyInputs

SOURCES = {"rad": "radiomics", "dl": "deep"}


class SelectionHandler(RunHandler):
    """Freezes a cohort, fits the selectors on its training patients, keeps them as artefacts."""

    kind = "selection"

    def begin(self, request: SelectRequest) -> str:
        """Freeze the cohort and record the run; the run's id. Raises NotReady, TooFewPatients, SettingsError."""
        inputs = StudyInputs.freeze(self._store, request.cohort, request.study, request.robustness)
        return Run.begin(self._store, self.kind, inputs.cohort, inputs.version, inputs.settings()).status.run_id

    def _carry_out(self, run: Run, progress: Progress) -> RunStatus:
        inputs = StudyInputs.from_settings(run.status.settings)
        progress("reading features", 0.0)
        tables, _ = inputs.tables(self._store).in_order()
        robust = robust_radiomics(tables, inputs.study.robustness_rule())
        tables = replace(tables, radiomics=robust.table)
        rows = tables.rows(Partition.TRAINING.value)
        scanners = Scanners.of_patients(tables.patients)
        kept: dict[str, str] = {}
        found: dict[str, Any] = {}
        for number, (kind, name) in enumerate(SOURCES.items()):
            table = getattr(tables, name)
            if table is None:
                continue
            progress(f"selecting for {kind}", 0.1 + 0.4 * number)
            source = sign_source(kind, FeatureMatrix.from_frame(table), inputs.study, scanners)
            selector, _ = source.fit(rows, tables.outcome, inputs.study.seed)
            kept[kind] = artefacts.save(selector, self._store.blobs)
            found[kind] = {
                "n_given": table.shape[1],
                "n_features": len(selector.names),
                "lambda": float(selector.lambda_),
                "features": [
                    {"name": name, "coefficient": float(value)}
                    for name, value in zip(selector.names, selector.coefficients, strict=True)
                ],
            }
        progress("done", 1.0)
        patients = {"training": len(rows), "events": int(tables.outcome[rows].sum())}
        filtered = {"robustness": robust.record} if robust.record is not None else {}
        tuned = {"in_sample": tables.in_sample} if tables.in_sample is not None else {}
        made_up = {"phantom": True} if tables.of_phantoms else {}
        return run.finish(kept, {"selectors": found, "patients": patients, **filtered, **tuned, **made_up})
