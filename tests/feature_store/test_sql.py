from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from feature_store.errors import UsageError
from feature_store.schemas import TABLES
from feature_store.sql import ask
from feature_store.store import FeatureStore
from tests.feature_store.examples import ROIS, case, embedding, encoder, feature_set, radiomics


@pytest.fixture
def filled(folder_store: FeatureStore) -> FeatureStore:
    rows = [radiomics("p1", [1.0, 2.0, 3.0]), radiomics("p1", [4.0, 5.0, 6.0], ROIS[1]), radiomics("p2", None)]
    folder_store.push(
        {**case("p1"), "feature_sets": [feature_set()], "radiomics": rows, "encoders": [encoder()],
         "embeddings": [embedding("p1", [1.0, 2.0, 3.0, 4.0])]},
        kind="case", source="a",
    )  # fmt: skip
    folder_store.push({"radiomics": [radiomics("p1", [10.0, 2.0, 3.0])]}, kind="features", source="x")
    return folder_store


def test_a_view_for_every_table_even_an_empty_one(folder_store: FeatureStore) -> None:
    shown = ask(folder_store.snapshot(), "show tables")["name"].to_pylist()
    assert set(TABLES) <= set(shown)
    for name in TABLES:
        assert ask(folder_store.snapshot(), f"select * from {name}").num_rows == 0


def test_views_show_the_latest_revision(filled: FeatureStore) -> None:
    snapshot = filled.snapshot()
    found = ask(snapshot, "select sequence, values[1] as v from radiomics where patient_id = 'p1' order by sequence")
    assert found.to_pylist() == [{"sequence": "ct", "v": 10.0}, {"sequence": "t2_sag", "v": 4.0}]
    assert ask(snapshot.at(1), "select max(values[1]) as v from radiomics")["v"].to_pylist() == [4.0]


def test_a_column_a_feature(filled: FeatureStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ask(
            filled.snapshot(),
            'select patient_id, sequence, original_shape_MeshVolume as v, "wavelet-HHH_gldm_DependenceVariance" as w '
            "from radiomics_study_mr_0a1b2c3d order by all",
        )
    assert found.to_pylist() == [
        {"patient_id": "p1", "sequence": "ct", "v": 10.0, "w": 3.0},
        {"patient_id": "p1", "sequence": "t2_sag", "v": 4.0, "w": 6.0},
        {"patient_id": "p2", "sequence": "ct", "v": None, "w": None},
    ]
    wide = ask(filled.snapshot(), "select e_003 from embeddings_vit_small_0a1b2c3d")
    assert wide["e_003"].to_pylist() == [4.0]


@pytest.mark.parametrize(
    "query",
    [
        "drop view cases", "copy cases to 'x.csv'", "insert into cases select * from cases", "attach 'x.db'",
        "select * from read_csv('/etc/passwd')", "select * from '/etc/passwd'", "set threads = 1", "selec 1",
        "select * from nothing", "install httpfs", "select 1; drop view cases", "",
    ],
)  # fmt: skip
def test_only_reading_and_only_the_store(
    filled: FeatureStore, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    snapshot = filled.snapshot()
    if query:
        with pytest.raises(UsageError):
            ask(snapshot, query)
    else:
        assert ask(snapshot, query).num_rows == 0
    assert ask(snapshot, "select count(*) as n from cases")["n"].to_pylist() == [1]
    assert list(tmp_path.glob("x.*")) == []
