"""Real images go the whole way: case folder, ingest, extraction on Ray, retrieval; the values are stock PyRadiomics'.

What stock is given is read from the original files by SimpleITK, not by our readers.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from feature_store.control import ControlDatabase, default_url
from feature_store.retrieval import patient_features
from feature_store.store import FeatureStore
from feature_store.vocabulary import RoiName
from pipelines.extraction.plan import ExtractionSettings
from pipelines.extraction.run import extract
from pipelines.radiomics.feature_sets import STUDY_CT, STUDY_MR
from services.ingest.handler import IngestHandler
from tests.pipelines.real_cases import REAL_CASES, SITE, write_real_cases

pytestmark = [pytest.mark.cores, pytest.mark.slow]

STOCK = {
    STUDY_CT.id: {"binWidth": 25},
    STUDY_MR.id: {"binWidth": 5, "normalize": True, "normalizeScale": 100, "voxelArrayShift": 300},
}
ORIGINALS = {
    "ct-lumbar": ("spine/ct_lumbar/ct.nii.gz", "spine/ct_lumbar/totalsegmentator_seg.nii.gz"),
    "t2-disc": (
        "spine/t2_single_disc/sub-mri_label-6_T2w.nii.gz",
        "spine/t2_single_disc/sub-mri_seg-vert_label-6_msk.nii.gz",
    ),
}


@pytest.fixture(scope="module")
def store(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """All six real cases, ingested and extracted with every label and the default encoder."""
    folder = tmp_path_factory.mktemp("real")
    uri = str(folder / "store")
    store = FeatureStore.open(uri, create=True)
    control = ControlDatabase.open(default_url(uri))
    ingest = IngestHandler(store, control)
    for case_dir in write_real_cases(shared_data, folder / "cases"):
        receipt = ingest.ingest_folder(case_dir, SITE)
        assert receipt.state == "validated"
        assert receipt.findings == []
    report = extract(store, ExtractionSettings(rois="every", cpus=2), control)
    assert report.failed == 0
    assert {state.state for state in control.cases()} == {"extracted"}
    return store


def test_every_roi_of_the_six_cases_has_radiomics_and_an_embedding(store: FeatureStore) -> None:
    snapshot = store.snapshot()
    key = ["patient_id", "sequence", "structure", "level", "side", "segmentation"]
    rois = {tuple(row.values()) for row in snapshot.table("rois", columns=key).select(key).to_pylist()}
    assert len({roi[0] for roi in rois}) == len(REAL_CASES)
    for table in ("radiomics", "embeddings"):
        rows = snapshot.table(table).to_pylist()
        assert {tuple(row[name] for name in key) for row in rows} == rois
        assert all(row["error"] is None for row in rows)


@pytest.mark.parametrize("patient_id", ORIGINALS)
def test_values_are_those_of_stock_pyradiomics_on_the_whole_image(
    store: FeatureStore, shared_data: Path, patient_id: str
) -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the sum behind the z-score depends on it
    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    image, mask = (sitk.ReadImage(str(shared_data / name)) for name in ORIGINALS[patient_id])
    voxels = sitk.GetArrayFromImage(mask)
    snapshot = store.snapshot()
    rois = snapshot.table("rois", where={"site": SITE, "patient_id": patient_id}).to_pylist()
    assert len(rois) >= 2
    for roi in rois:
        name = RoiName(roi["sequence"], roi["structure"], roi["level"], roi["side"], roi["segmentation"])
        (feature_set,) = {
            row["feature_set"]
            for row in snapshot.table("radiomics", where={"site": SITE, "patient_id": patient_id}).to_pylist()
        }
        got = patient_features(snapshot, SITE, patient_id, [feature_set], rois=[name])
        want = _stock(image, np.isin(voxels, roi["labels"]), mask, STOCK[feature_set])
        assert len(want) == 851
        ours = np.array([got[name.feature_name(feature)] for feature in want])
        np.testing.assert_allclose(ours, np.array(list(want.values())), rtol=1e-9, atol=0, err_msg=str(name))


def _stock(image: Any, roi: Any, mask: Any, settings: dict[str, Any]) -> dict[str, float]:
    from radiomics import featureextractor

    label = sitk.GetImageFromArray(roi.astype(np.uint8))
    label.CopyInformation(mask)
    extractor = featureextractor.RadiomicsFeatureExtractor(additionalInfo=False, **settings)
    extractor.enableImageTypeByName("Wavelet")
    return {name: float(value) for name, value in extractor.execute(image, label).items()}
