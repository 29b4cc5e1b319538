"""The check finds each kind of damage that is done to a store here, and none where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.check import check
from feature_store.check_table import WHOLE_FILES
from feature_store.checked import Checked, Promise, write_checked
from feature_store.control import Credential
from feature_store.erasure import EraseSettings, erase_patient
from feature_store.location import Location
from feature_store.optimize import OptimizeSettings
from feature_store.schemas import TABLES
from feature_store.store import FeatureStore
from feature_store.withdrawal import withdraw_case
from tests.feature_store.examples import case, embedding, encoder, feature_set, lengths_unlooked_at, radiomics


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
        ("clinical", WHOLE_FILES),
        ("clinical", "rows keep the schema's rules"),
        ("clinical", "rows have the hash they were written with"),
    }


def test_a_lost_row_is_found(folder_store: FeatureStore) -> None:
    file = files(filled(folder_store), "rois")[0]
    pq.write_table(pq.read_table(file, partitioning=None).slice(1), file)
    assert broken(folder_store) == {("rois", WHOLE_FILES), ("rois", "a push is whole")}


def test_a_lost_table_and_a_file_that_is_cut_off_are_found(folder_store: FeatureStore) -> None:
    shutil.rmtree(Path(filled(folder_store).uri) / "tables" / "embeddings")
    file = files(folder_store, "radiomics")[0]
    file.write_bytes(file.read_bytes()[:-100])
    files(folder_store, "series")[0].unlink()
    assert broken(folder_store) == {
        ("embeddings", "a push is whole"),
        ("radiomics", WHOLE_FILES),
        ("radiomics", "a push is whole"),
        ("series", WHOLE_FILES),
        ("series", "a push is whole"),
    }


def test_a_lost_blob_and_a_missing_reference_are_found(folder_store: FeatureStore) -> None:
    shutil.rmtree(Path(filled(folder_store).uri) / "blobs" / "masks")
    with lengths_unlooked_at():
        for row in (radiomics("p2", [1.0], name="other-00000000"), radiomics("p2", [1.0, 2.0])):
            folder_store.push({"radiomics": [row]}, kind="features", source="extraction")
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


# --- what is new since the last check ------------------------------------------------------------
BY = Credential("alice", "operator", None)
AT_ONCE = OptimizeSettings(files_too_many=1, keep_files_hours=0.0)


def since_last(uri: str) -> dict[tuple[str, str], Promise]:
    fresh = FeatureStore.open(uri)
    return {(p.table, p.promise): p for p in fresh.check(last=fresh.last_checked())}


def read_anew(found: dict[tuple[str, str], Promise]) -> dict[str, int]:
    """Rows by table whose hashes were looked at."""
    return {table: p.looked_at for (table, name), p in found.items() if name.startswith("rows have") and p.looked_at}


def test_only_what_is_new_is_read_and_the_rest_is_taken_over(store: FeatureStore) -> None:
    for patient in ("p1", "p2"):
        store.push(case(patient), kind="case", source="a")
    store.push({"feature_sets": [feature_set()]}, kind="feature_set", source="extraction")
    store.push({"radiomics": [radiomics("p1", [1.0, 2.0, 3.0])]}, kind="features", source="extraction")
    whole = since_last(store.uri)  # there was none before
    assert not any(p.taken_over for p in whole.values())
    assert read_anew(since_last(store.uri)) == {}
    store.push({"radiomics": [radiomics("p2", [1.0, 2.0, 3.0])]}, kind="features", source="extraction")
    found = since_last(store.uri)
    assert read_anew(found) == {"radiomics": 1}
    assert found["rois", "rows have the hash they were written with"].taken_over == 4
    assert (found["rois", "a push is whole"].looked_at, found["rois", "a push is whole"].taken_over) == (1, 4)
    lengths = found["radiomics", "values are as long as feature_sets says"]
    assert (lengths.looked_at, lengths.taken_over) == (1, 1)
    everything = {(p.table, p.promise): p.looked_at for p in FeatureStore.open(store.uri).check()}
    assert {key: p.looked_at + p.taken_over for key, p in since_last(store.uri).items()} == everything


def test_damage_to_what_is_new_and_to_what_was_checked_is_found(folder_store: FeatureStore) -> None:
    since_last(filled(folder_store).uri)
    with lengths_unlooked_at():
        folder_store.push({"radiomics": [radiomics("p2", [1.0])]}, kind="features", source="extraction")
    lengths = ("radiomics", "values are as long as feature_sets says")
    for _ in range(2):  # what is broken is not taken over
        assert [key for key, p in since_last(folder_store.uri).items() if p.broken] == [lengths]
    files(folder_store, "rois")[0].unlink()
    cut = files(folder_store, "clinical")[0]
    cut.write_bytes(cut.read_bytes()[:-1])
    shutil.rmtree(Path(folder_store.uri) / "blobs" / "images")
    found = {key for key, p in since_last(folder_store.uri).items() if p.broken}
    assert found >= {
        ("rois", WHOLE_FILES),
        ("clinical", WHOLE_FILES),
        ("series", "every image_hash is kept among images"),
    }


def test_rows_of_a_push_that_was_under_way_are_looked_at_when_it_is_there(folder_store: FeatureStore) -> None:
    filled(folder_store)
    before = folder_store.snapshot().sequence
    folder_store.push({"radiomics": [radiomics("p2", [1.0, 2.0, 3.0])]}, kind="features", source="extraction")
    as_of = folder_store.snapshot(before)  # its rows are in a file, and it is not committed yet
    checking = check(as_of, {name: folder_store.log(name) for name in TABLES}, folder_store.blobs)
    *_, last = collected(checking)
    write_checked(Location.parse(folder_store.uri), last)
    found = since_last(folder_store.uri)
    assert read_anew(found) == {"radiomics": 1}
    assert found["radiomics", "a push is whole"].looked_at == 1


def collected(checking: Generator[Promise, None, Checked]) -> tuple[list[Promise], Checked]:
    found = []
    while True:
        try:
            found.append(next(checking))
        except StopIteration as end:
            return found, end.value


def test_rewritten_files_are_read_again_and_pushes_judged_anew(folder_store: FeatureStore) -> None:
    since_last(filled(folder_store).uri)
    folder_store.optimize(AT_ONCE)
    found = since_last(folder_store.uri)
    assert read_anew(found)["rois"] == 4
    assert not any(p.broken for p in found.values())
    # whoever rewrites loses a row: its hash is fine, its push is not whole
    log = folder_store.log("rois")
    log.remove({"site": "a", "patient_id": "p2", "structure": "vertebral_body"})
    lost = [key for key, p in since_last(folder_store.uri).items() if p.broken]
    assert lost == [("rois", "a push is whole")]


def test_an_erasure_since_is_looked_for_in_what_was_checked(folder_store: FeatureStore) -> None:
    since_last(filled(folder_store).uri)
    settings = EraseSettings(grace_hours=0.0, patience_s=0.0)
    report = erase_patient(folder_store, None, "a", "p1", reason="x", erased_by=BY, settings=settings)
    assert report.state == "finished"
    found = since_last(folder_store.uri)
    assert not [key for key, p in found.items() if p.broken]
    assert found["cases", "no row is of an erased patient"].looked_at == 1
    assert "p1" not in (Path(folder_store.uri) / "checked.json").read_text()


def test_blobs_are_read_once_and_again_when_they_were_written_since(folder_store: FeatureStore) -> None:
    filled(folder_store)
    read: list[str] = []

    def look() -> list[str]:
        fresh = FeatureStore.open(folder_store.uri)
        read.clear()
        assert not [p for p in fresh.check(lambda kind, name: read.append(kind), fresh.last_checked()) if p.broken]
        return sorted(read)

    since_last(folder_store.uri)  # has read none
    for blob in (Path(folder_store.uri) / "blobs").rglob("*.nrrd"):
        os.utime(blob, (0, 10_000.0 * 3600))
    assert look() == ["artefacts", "images", "images", "masks"]
    assert look() == ["artefacts"]  # written within the hour by which clocks may differ
    since_last(folder_store.uri)
    assert look() == ["artefacts"]
    mask = next((Path(folder_store.uri) / "blobs" / "masks").rglob("*.nrrd"))
    os.utime(mask)
    assert look() == ["artefacts", "masks"]
