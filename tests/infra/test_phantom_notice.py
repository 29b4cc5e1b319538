"""Whatever shows figures of made-up patients says so: on the command line, in JSON, in what a run keeps."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

import infra.cli
from feature_store.cohorts import freeze_cohort
from feature_store.store import FeatureStore
from feature_store.vocabulary import PHANTOM_NOTICE, PHANTOM_PREFIX
from services.selection.handler import SelectionHandler
from services.selection.messages import SelectRequest
from tests.services.study_store import COHORT, STUDY, study_store


@pytest.fixture(scope="module", params=["", PHANTOM_PREFIX], ids=["patients", "phantoms"])
def cohort(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, bool]:
    """A store with a frozen cohort, and whether its patients are made up."""
    folder = tmp_path_factory.mktemp("notice") / "store"
    return study_store(folder, patients=16, prefix=request.param), bool(request.param)


def test_a_look_at_locked_patients(cohort: tuple[FeatureStore, bool], capsys: pytest.CaptureFixture[str]) -> None:
    store, made_up = cohort
    frozen = freeze_cohort(store, COHORT)
    measures = ("n", "events", "auc", "sensitivity", "specificity", "brier", "calibration_slope")
    look = {
        "look_id": "look-1", "look": 1, "run_id": "training-1", "cohort": frozen.name, "version": frozen.version,
        "figures": json.dumps({"rad": dict.fromkeys(measures, 1)}), "reason": "tests", "looked_by": "tests",
        "looked_at": datetime.now(UTC),
    }  # fmt: skip
    assert not store.push({"locked_looks": [look]}, kind="locked_look", source="tests").rejected
    folder = store.uri.removeprefix("file://")
    assert infra.cli.main(["locked-test", "--store", folder]) == 0
    assert (PHANTOM_NOTICE in capsys.readouterr().out) == made_up
    assert infra.cli.main(["locked-test", "--store", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["phantom"] == made_up


def test_what_a_run_keeps(cohort: tuple[FeatureStore, bool]) -> None:
    store, made_up = cohort
    handler = SelectionHandler(store)
    run = handler.execute(handler.begin(SelectRequest(cohort=COHORT, study=STUDY)))
    assert (run.metrics or {}).get("phantom", False) == made_up
