"""A value tells what it was made from, also after it was made again."""

from __future__ import annotations

import pytest

from feature_store.errors import NotFound, UsageError
from feature_store.lineage import explain
from feature_store.store import FeatureStore
from tests.feature_store.examples import NAMES, ROIS, case, embedding, encoder, feature_set, radiomics

NAME = ROIS[0].feature_name(NAMES[1])


def test_a_value_and_its_earlier_revision(folder_store: FeatureStore) -> None:
    sets = feature_set() | {"units": ["mm³", "HU", "1"], "ibsi_codes": ["RNU0", "Q4LE", ""]}
    folder_store.push({"feature_sets": [sets]}, kind="feature_set", source="extraction")
    folder_store.push(case("p1"), kind="case", source="a")
    folder_store.push({"radiomics": [radiomics("p1", [1.0, 2.5, 3.0])]}, kind="features", source="extraction")
    (first,) = explain(folder_store.snapshot(), "a", "p1", NAME)
    assert (first.value, first.counts, first.unit, first.ibsi_code) == (2.5, True, "HU", "Q4LE")
    assert (first.made_with, first.settings) == ("study-mr-0a1b2c3d", "{}")
    assert (first.image_hash, first.mask_hash, first.software_version) == ("aa", "bb", "test")
    assert (first.push_sequence, first.pushed_by) == (3, "extraction")
    assert (first.site, first.sent_by, first.sent_in_push) == ("a", "a", 2)  # who brought the mask, and when
    assert first.region is not None
    assert first.region["voxel_count"] == 100
    assert first.image is not None
    corrected = case("p1")
    corrected["rois"][0]["mask_hash"] = "ee"
    folder_store.push(corrected, kind="case", source="a")
    assert not explain(folder_store.snapshot(), "a", "p1", NAME)[0].counts  # of a mask that was replaced
    again = radiomics("p1", [1.0, 9.5, 3.0]) | {"mask_hash": "ee"}
    folder_store.push({"radiomics": [again]}, kind="features", source="extraction")
    newest, earlier = explain(folder_store.snapshot(), "a", "p1", NAME)
    assert (newest.value, newest.counts, newest.mask_hash) == (9.5, True, "ee")
    assert (earlier.value, earlier.counts, earlier.mask_hash) == (2.5, False, "bb")
    assert (newest.sent_in_push, earlier.sent_in_push) == (4, 2)
    assert newest.region is not None
    assert earlier.region is not None
    assert (newest.region["mask_hash"], earlier.region["mask_hash"]) == ("ee", "bb")


def test_an_embeddings_column(folder_store: FeatureStore) -> None:
    folder_store.push({"encoders": [encoder()]}, kind="encoder", source="extraction")
    rows = {"embeddings": [embedding("p1", [1.0, 2.0, 3.0, 4.0])]}
    folder_store.push({**case("p1"), **rows}, kind="case", source="a")
    (found,) = explain(folder_store.snapshot(), "a", "p1", ROIS[0].feature_name("vit_small-0a1b2c3d_002"))
    assert (found.value, found.made_with, found.counts) == (3.0, "vit_small-0a1b2c3d", True)
    assert (found.image_hash, found.mask_hash, found.sent_by, found.sent_in_push) == ("aa", "bb", "a", 2)
    with pytest.raises(NotFound):
        explain(folder_store.snapshot(), "a", "p1", ROIS[0].feature_name("vit_small-0a1b2c3d_004"))


def test_what_is_not_there(folder_store: FeatureStore) -> None:
    folder_store.push(case("p1"), kind="case", source="a")
    with pytest.raises(NotFound):
        explain(folder_store.snapshot(), "a", "p1", NAME)
    with pytest.raises(UsageError):
        explain(folder_store.snapshot(), "a", "p1", "MeshVolume")
