"""The check finds each kind of damage that is done to a store here, and none where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.store import FeatureStore
from feature_store.withdrawal import withdraw_case
from tests.feature_store.examples import case, embedding, encoder, feature_set, radiomics


def filled(store: FeatureStore) -> FeatureStore:
    store.blobs.put_bytes("artefacts", b"weights")
    for kind, name in (("images", "a" * 16), ("masks", "b" * 16)):
        file = Path(store.uri) / "blob"
        file.write_bytes(b"voxels")
        store.blobs.put_file(kind, file, sha256=name)
    for patient in ("p1", "p2"):
        tables = case(patient)
        for table in ("series", "rois"):
            for row in tables[table]:
                row |= {"image_hash": "a" * 16} | ({"mask_hash": "b" * 16} if table == "rois" else {})
        store.push(tables, kind="case", source="a")
    checkpoint = {"checkpoint_hash": store.blobs.put_bytes("artefacts", b"weights")}
    sets = {"feature_sets": [feature_set()], "encoders": [encoder() | checkpoint]}
    store.push(sets, kind="feature_set", source="extraction")
    values = {"radiomics": [radiomics("p1", [1.0, 2.0, 3.0])], "embeddings": [embedding("p1", [1.0, 2.0, 3.0, 4.0])]}
    store.push(values, kind="features", source="extraction")
    return store


def broken(store: FeatureStore) -> set[tuple[str, str]]:
    fresh = FeatureStore.open(store.uri)
    return {(p.table, p.promise) for p in fresh.check() if p.broken}


def files(store: FeatureStore, table: str) -> list[Path]:
    return sorted((Path(store.uri) / "tables" / table).rglob("*.parquet"))


def test_a_sound_store_keeps_every_promise(folder_store: FeatureStore) -> None:
    found = list(filled(folder_store).check())
    assert not [promise for promise in found if promise.broken]
    looked = {(p.table, p.promise): p.looked_at for p in found}
    assert looked["cases", "a push is whole"] == 4
    assert looked["rois", "rows have the hash they were written with"] == 4
    assert looked["radiomics", "values are as long as feature_sets says"] == 1
    assert looked["series", "every image_hash is kept among images"] == 1


def test_withdrawn_rows_keep_every_promise_too(folder_store: FeatureStore) -> None:
    withdraw_case(filled(folder_store), "a", "p1", "wrong side", "registry")
    assert broken(folder_store) == set()


def test_a_changed_cell_is_found(folder_store: FeatureStore) -> None:
    file = files(filled(folder_store), "clinical")[0]
    table = pq.read_table(file, partitioning=None)
    age = table.schema.get_field_index("age")
    pq.write_table(table.set_column(age, table.schema.field(age), pa.array([-1.0] * len(table))), file)
    assert broken(folder_store) == {
        ("clinical", "rows keep the schema's rules"),
        ("clinical", "rows have the hash they were written with"),
    }


def test_a_lost_row_is_found(folder_store: FeatureStore) -> None:
    file = files(filled(folder_store), "rois")[0]
    pq.write_table(pq.read_table(file, partitioning=None).slice(1), file)
    assert broken(folder_store) == {("rois", "a push is whole")}


def test_a_lost_blob_and_a_missing_reference_are_found(folder_store: FeatureStore) -> None:
    shutil.rmtree(Path(filled(folder_store).uri) / "blobs" / "masks")
    folder_store.push(
        {"radiomics": [radiomics("p2", [1.0], name="other-00000000")]}, kind="features", source="extraction"
    )
    folder_store.push({"radiomics": [radiomics("p2", [1.0, 2.0])]}, kind="features", source="extraction")
    assert broken(folder_store) == {
        ("rois", "every mask_hash is kept among masks"),
        ("radiomics", "feature_set is a row of feature_sets"),
        ("radiomics", "values are as long as feature_sets says"),
    }


def test_a_patient_in_two_partitions_is_found(folder_store: FeatureStore) -> None:
    row = {"cohort": "c", "site": "a", "patient_id": "p1", "case_id": "x", "outcome": 1, "rule": "r", "as_of": 1}
    rows = [row | {"version": v, "partition": p} for v, p in ((1, "training"), (2, "external_test"))]
    filled(folder_store).push({"cohorts": rows}, kind="cohort", source="c")
    assert broken(folder_store) == {("cohorts", "a patient has one partition for ever")}


def test_blobs_are_read_where_that_is_asked_for(folder_store: FeatureStore) -> None:
    read = []
    found = list(filled(folder_store).check(lambda kind, name: read.append(kind)))
    assert sorted(read) == ["artefacts", "images", "images", "masks"]
    assert not [promise for promise in found if promise.broken]
