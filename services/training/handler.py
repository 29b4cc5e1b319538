"""Trains classifiers and makes signatures: the whole protocol on a frozen cohort, with its report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from feature_store.errors import NotReady, UsageError
from feature_store.run_progress import RunProgress
from feature_store.store import FeatureStore
from models import artefacts
from models.artefacts import Artefact
from models.spread import Spread
from models.study import run_study
from models.study_result import StudyResult
from pipelines.radiomics.feature_docs import meaning
from services.runs import Progress, Run, RunHandler, RunStatus, read_run
from services.study_inputs import StudyInputs
from services.training.looks import Looks, looks_at
from services.training.messages import TrainRequest

ARTEFACTS = "artefacts"
REPORT = "report/"
"""Files of the report are artefacts whose names begin so."""
RECIPE = (
    "alpha",
    "correlation",
    "clip",
    "lambda_rule",
    "max_components",
    "icc_cutoff",
    "icc_form",
    "max_cv",
    "unmeasured",
    "missing_values",
    "harmonisation",
    "unseen_scanner",
)
"""The settings of a study that a selection run decides."""


Write = Callable[[StudyResult, Path, str], object]
"""Writes a result's files into a folder, under a title."""


class TrainingHandler(RunHandler):
    """Freezes a cohort, runs the protocol, keeps signatures and report. Releases nothing."""

    kind = "training"

    def __init__(
        self,
        store: FeatureStore,
        under_way: RunProgress | None = None,
        *,
        write: Write | None = None,
        spread: Spread | None = None,
    ) -> None:
        """``write``: what is kept as the run's report (default: the whole report).

        ``spread``: where fits are carried out (default: on as many cores of this machine as the study says).
        """
        super().__init__(store, under_way)
        self._write, self._spread = write or _whole_report, spread

    def begin(self, request: TrainRequest, *, inputs: StudyInputs | None = None, begun_by: str = "request") -> str:
        """Record the run on its inputs (default: those of :meth:`inputs`); the run's id. Raises what that raises."""
        inputs = inputs or self.inputs(request)
        settings = {**inputs.settings(), "selection_run": request.selection_run, "begun_by": begun_by}
        return Run.begin(self._store, self.kind, inputs.cohort, inputs.version, settings).status.run_id

    def report_file(self, run_id: str, name: str) -> bytes | None:
        """A file of the run's report; None where there is none. Raises NotFound for an unknown run."""
        digest = self.status(run_id).artefacts.get(REPORT + name)
        return None if digest is None else self._store.blobs.read_bytes(ARTEFACTS, digest)

    def write_report_files(self, run_id: str, out: Path) -> list[Path]:
        """Write the run's report to a folder; files that exist are replaced. Raises NotFound, NotReady."""
        names = [name for name in self.status(run_id).artefacts if name.startswith(REPORT)]
        if not names:
            raise NotReady("This run has no report.", action="Take a finished training run: `asdeg runs`.")
        written = []
        for name in names:
            path = out / name.removeprefix(REPORT)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.report_file(run_id, name.removeprefix(REPORT)) or b"")
            written.append(path)
        return written

    def looks(self, run_id: str) -> Looks:
        """How often the held-out patients of a run's cohort have been looked at by now. Raises NotFound."""
        return looks_at(self._store.snapshot(), self.status(run_id).cohort)

    def inputs(self, request: TrainRequest) -> StudyInputs:
        """Freeze the cohort, or take a selection run's.

        Raises NotReady, TooFewPatients, SettingsError, FeatureTableError (the robustness table is none), NotFound
        (no such selection run or table), UsageError (a robustness table beside a selection run, which has its own).
        """
        if request.selection_run is None:
            return StudyInputs.freeze(self._store, request.cohort, request.study, request.robustness)
        if request.robustness is not None:
            raise UsageError(
                "A selection run brings its own filter.", action="Give the robustness table to the selection run."
            )
        selection = read_run(self._store, request.selection_run)
        if selection.kind != "selection" or selection.state != "finished":
            raise NotReady("That is no finished selection run.", action="`asdeg runs` lists them.")
        inputs = StudyInputs.from_settings(selection.settings)
        recipe = {name: getattr(inputs.study, name) for name in RECIPE}
        study = request.study.model_copy(update=recipe)
        return replace(inputs, study=study)

    def _carry_out(self, run: Run, progress: Progress) -> RunStatus:
        inputs = StudyInputs.from_settings(run.status.settings)
        result = run_study(inputs.tables(self._store), inputs.study, progress, self._spread)
        blobs = self._store.blobs
        kept = {kind: artefacts.save(cast(Artefact, sign), blobs) for kind, sign in result.signatures.items()}
        with tempfile.TemporaryDirectory(prefix="asdeg-report-") as folder:
            self._write(result, Path(folder), f"ASDeg study: cohort {inputs.cohort} version {inputs.version}")
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    name = REPORT + path.relative_to(folder).as_posix()
                    kept[name] = blobs.put_file(ARTEFACTS, path)
        return run.finish(kept, result.metrics)


def _whole_report(result: StudyResult, folder: Path, title: str) -> None:
    from models.report.render import write_report  # brings matplotlib, which nobody else here needs

    write_report(result, folder, title, meaning=meaning)
