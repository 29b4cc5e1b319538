"""Trains selectors: which radiomics features and which components of the embeddings carry the outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feature_store.store import FeatureStore
from feature_store.vocabulary import Partition
from models import artefacts
from models.protocol import recipe_for
from models.selection.matrix import FeatureMatrix
from services.runs import Run, RunStatus, list_runs, read_run
from services.selection.messages import SelectRequest
from services.study_inputs import StudyInputs

Progress = Callable[[str, float], None]
SOURCES = {"rad": "radiomics", "dl": "deep"}


class SelectionHandler:
    """Freezes a cohort, fits the selectors on its training patients, keeps them as artefacts."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def begin(self, request: SelectRequest) -> str:
        """Freeze the cohort and record the run; the run's id. Raises NotReady, TooFewPatients, SettingsError."""
        inputs = StudyInputs.freeze(self._store, request.cohort, request.study)
        return Run.begin(self._store, "selection", inputs.cohort, inputs.version, inputs.settings()).status.run_id

    def execute(self, run_id: str, progress: Progress | None = None) -> RunStatus:
        """Carry a run out. What it raises is recorded in the run as well."""
        run = Run.resume(self._store, run_id)
        try:
            return self._fit(run, progress or (lambda step, done: None))
        except BaseException as error:
            run.fail(error)
            raise

    def abandon(self, run_id: str, error: BaseException) -> None:
        """Record that the process of a run died, unless the run says already how it ended."""
        run = Run.resume(self._store, run_id)
        if run.status.state == "running":
            run.fail(error)

    def status(self, run_id: str) -> RunStatus:
        """Raises NotFound."""
        return read_run(self._store, run_id)

    def runs(self) -> list[RunStatus]:
        """All selection runs, oldest first."""
        return list_runs(self._store, "selection")

    def _fit(self, run: Run, progress: Progress) -> RunStatus:
        inputs = StudyInputs.from_settings(run.status.settings)
        progress("reading features", 0.0)
        tables, _ = inputs.tables(self._store).in_order()
        rows = tables.rows(Partition.TRAINING.value)
        y = tables.outcome[rows]
        kept: dict[str, str] = {}
        found: dict[str, Any] = {}
        for number, (kind, source) in enumerate(SOURCES.items()):
            table = getattr(tables, source)
            if table is None:
                continue
            progress(f"selecting for {kind}", 0.1 + 0.4 * number)
            selector = recipe_for(kind, inputs.study).fit(
                FeatureMatrix.from_frame(table).take(rows), y, inputs.study.seed
            )
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
        patients = {"training": len(rows), "events": int(y.sum())}
        return run.finish(kept, {"selectors": found, "patients": patients})
