"""The steps without Ray: every kind of feature set gets from a stored series the features of its image."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from feature_store.store import FeatureStore
from pipelines.extraction.plan import ExtractionSettings, plan_extraction
from pipelines.extraction.steps import RadiomicsStep, ReadStep, WorkerConfig
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_sets import REGISTRY, FeatureSet
from pipelines.radiomics.preprocessing import preprocess, preprocess_mask
from tests.pipelines.extraction.extraction_store import add_series, make_image, make_mask


@pytest.mark.parametrize("name", ["study-ct-32bins", "study-mr-log", "study-mr-1mm", "study-ct-1mm"])
def test_rows_have_the_values_of_the_whole_preprocessed_image(tmp_path: Path, name: str) -> None:
    settings: FeatureSet = REGISTRY[name]
    sequence = "ct" if "-ct" in name else "t2_sag"
    store = FeatureStore.open(tmp_path / "store", create=True)
    add_series(store, "p1", sequence, seed=3)
    plan = plan_extraction(store.snapshot(), ExtractionSettings(feature_set=name, encoder=None, rois="every"), None)
    config = WorkerConfig(store.uri, plan.feature_sets)
    step = RadiomicsStep(config)
    rows = [step(row) for row in ReadStep(config)({"series": pickle.dumps(plan.series[0])})]
    assert len(rows) == 3
    image = preprocess(make_image(3, sequence), settings)
    labels = sitk.GetArrayFromImage(preprocess_mask(make_mask(make_image(3, sequence)), settings))
    for row in rows:
        assert row["radiomics_error"] == ""
        mask = np.isin(labels, pickle.loads(row["job"]).labels)
        expected = RadiomicsExtractor(settings).extract(image, mask)
        assert np.array_equal(np.frombuffer(row["values"]), expected, equal_nan=True)
