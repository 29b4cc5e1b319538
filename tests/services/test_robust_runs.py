"""Selection and training runs behind the filter of robust features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.errors import FeatureTableError, NotFound, UsageError
from models.selection.robustness import PERTURBATION, TRAINING, robustness_rows
from services.selection.handler import SelectionHandler
from services.selection.messages import SelectRequest
from services.study_inputs import keep_table, read_table
from services.training.handler import TrainingHandler
from services.training.messages import TrainRequest
from tests.feature_store import examples
from tests.services.study_store import COHORT, NAMES, STUDY, study_store


def robustness(names: list[str], noisy: list[int]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    values = rng.normal(10, 1, (20, 1, len(names))) + rng.normal(0, 0.1, (20, 5, len(names)))
    values[:, :, noisy] += rng.normal(0, 3, (20, 5, len(noisy)))
    return robustness_rows(PERTURBATION, names, values, TRAINING)


def test_a_run_keeps_its_filter_and_training_takes_it_over(tmp_path: Path) -> None:
    store = study_store(tmp_path / "store")
    names = [examples.ROIS[1].feature_name(name) for name in NAMES]
    table = robustness([*names, "t1_sag.vertebral_body.all.original_firstorder_F0"], [0, 5])
    kept = keep_table(store, table)
    pd.testing.assert_frame_equal(read_table(store, kept), table, check_dtype=False)
    plan = COHORT.model_copy(update={"sequences": ("ct", "t2_sag")})  # t1_sag is no unknown feature here
    selection = SelectionHandler(store)
    study = STUDY.model_copy(update={"icc_cutoff": 0.9, "icc_form": "icc_3_1"})
    run = selection.execute(selection.begin(SelectRequest(cohort=plan, study=study, robustness=kept)))
    assert run.metrics is not None
    assert run.settings["robustness"] == kept
    assert run.metrics["robustness"]["dropped"] == 2
    assert run.metrics["selectors"]["rad"]["n_given"] == 6
    assert names[0] not in {feature["name"] for feature in run.metrics["selectors"]["rad"]["features"]}

    training = TrainingHandler(store)
    begun = training.status(training.begin(TrainRequest(study=STUDY, selection_run=run.run_id)))
    assert begun.settings["robustness"] == kept
    assert (begun.settings["study"]["icc_cutoff"], begun.settings["study"]["icc_form"]) == (0.9, "icc_3_1")
    with pytest.raises(UsageError, match="brings its own filter"):
        training.begin(TrainRequest(study=STUDY, selection_run=run.run_id, robustness=kept))


def test_a_table_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    store = study_store(tmp_path / "store", patients=6)
    handler = TrainingHandler(store)
    with pytest.raises(NotFound):
        handler.begin(TrainRequest(cohort=COHORT, study=STUDY, robustness="0" * 64))
    with pytest.raises(FeatureTableError, match="no table"):
        handler.begin(TrainRequest(cohort=COHORT, study=STUDY, robustness=store.blobs.put_bytes("artefacts", b"x")))
    with pytest.raises(FeatureTableError, match="no column"):
        keep_table(store, pd.DataFrame({"feature": ["a"]}))
