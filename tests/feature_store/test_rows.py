from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import SchemaError
from feature_store.rows import check_rows, composite, row_hashes
from feature_store.schemas import CLINICAL, RADIOMICS, ROIS, SCORES, Column, TableSchema
from tests.feature_store.examples import case, radiomics

SECRET = "Anna Beispiel"


def rules(schema: TableSchema, row: dict[str, Any]) -> set[tuple[str, str]]:
    valid, rejected = check_rows(schema, [row])
    assert len(valid) == (0 if rejected else 1)
    return {(r.column, r.rule) for r in rejected}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, set()),
        ({"age": None}, set()),
        ({"age": 120}, set()),
        ({"age": 120.001}, {("age", "range")}),
        ({"age": -0.5}, {("age", "range")}),
        ({"age": float("nan")}, {("age", "finite")}),
        ({"age": "50"}, {("age", "type")}),
        ({"age": True}, {("age", "type")}),
        ({"surgical_segments": 1.5}, {("surgical_segments", "type")}),
        ({"surgical_segments": 2.0}, {("surgical_segments", "type")}),
        ({"surgical_segments": 2**70}, {("surgical_segments", "type")}),
        ({"surgical_segments": np.int32(2)}, set()),
        ({"surgical_segments": 4}, {("surgical_segments", "range")}),
        ({"days_from_index": 1}, {("days_from_index", "range")}),
        ({"sex": "F"}, {("sex", "allowed")}),
        ({"sex": "\ud800"}, {("sex", "type")}),
        ({"fused_levels": "L4-L5"}, {("fused_levels", "type")}),
        ({"fused_levels": ["L4-L5", None]}, {("fused_levels", "type")}),
        ({"osteoporosis": 1}, {("osteoporosis", "type")}),
        ({"patient_id": ""}, {("patient_id", "not_empty")}),
        ({"patient_id": None}, {("patient_id", "required")}),
        ({"age": 200.0, "bmi": 1.0}, {("age", "range"), ("bmi", "range")}),
    ],
)
def test_each_rule(change: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    assert rules(CLINICAL, case("p1")["clinical"][0] | change) == expected


def test_lists_and_times() -> None:
    assert rules(RADIOMICS, radiomics("p1", [1.0, float("nan")])) == set()
    assert rules(RADIOMICS, radiomics("p1", np.arange(3.0))) == set()
    assert rules(RADIOMICS, radiomics("p1", ["1"])) == {("values", "type")}
    assert rules(RADIOMICS, radiomics("p1", np.zeros((2, 2)))) == {("values", "type")}
    row: dict[str, Any] = dict.fromkeys(SCORES.column_names, "x") | {
        "kind": "rad", "probability": 0.5, "high_risk": True, "threshold": 0.5, "as_of": 1,
        "risk_low": None, "risk_high": None,
    }  # fmt: skip
    assert rules(SCORES, row | {"asked_at": datetime(2026, 1, 1)}) == {("asked_at", "type")}


def test_good_rows_go_on_and_positions_are_those_of_the_push() -> None:
    good = case("p1")["clinical"][0]
    rows = [good | {"age": 500.0}, good, good | {"patient_id": "p2", "sex": 3}, good | {"patient_id": "p3"}]
    valid, rejected = check_rows(CLINICAL, rows)
    assert valid["patient_id"].to_pylist() == ["p1", "p3"]
    assert [(r.row, r.column) for r in rejected] == [(0, "age"), (2, "sex")]


def test_a_key_twice_in_one_push_is_rejected_and_the_first_stays() -> None:
    good = case("p1")["clinical"][0]
    valid, rejected = check_rows(CLINICAL, [good, good | {"age": 60.0}])
    assert valid["age"].to_pylist() == [50.0]
    assert [(r.row, r.rule) for r in rejected] == [(1, "unique")]


def test_messages_hold_no_value() -> None:
    row = case(SECRET)["clinical"][0] | {"age": 777.25, "sex": SECRET, "surgical_segments": SECRET}
    _, rejected = check_rows(CLINICAL, [row, row])
    text = " ".join(r.message for r in rejected)
    assert rejected
    assert SECRET not in text
    assert "777" not in text


def test_columns_that_are_not_the_tables_are_a_schema_error() -> None:
    good = case("p1")["clinical"][0]
    with pytest.raises(SchemaError, match="no column weight"):
        check_rows(CLINICAL, [good | {"weight": 1.0}])
    with pytest.raises(SchemaError, match="lack case_id"):
        check_rows(CLINICAL, [{k: v for k, v in good.items() if k != "case_id"}])


def test_arrow_tables_are_checked_like_rows() -> None:
    rows = case("p1")["clinical"] + [case("p2")["clinical"][0] | {"age": 300.0}]
    valid, rejected = check_rows(CLINICAL, pa.Table.from_pylist(rows))
    assert valid["patient_id"].to_pylist() == ["p1"]
    assert [(r.row, r.rule) for r in rejected] == [(1, "range")]
    texts = pa.Table.from_pylist([{**row, "age": "x"} for row in rows])
    assert {r.rule for r in check_rows(CLINICAL, texts)[1]} == {"type"}


def test_hash_is_of_the_values_wherever_they_come_from() -> None:
    as_list, _ = check_rows(RADIOMICS, [radiomics("p1", [1.0, 2.0, float("nan")])])
    other_nan = np.array([1.0, 2.0, 0.0])
    other_nan.view(np.uint64)[2] = 0xFFF8000000000001
    as_array, _ = check_rows(RADIOMICS, [radiomics("p1", other_nan)])
    sliced = pa.concat_tables([as_list, as_array]).combine_chunks().slice(1)
    hashes = [row_hashes(RADIOMICS, t)[0].as_py() for t in (as_list, as_array, sliced)]
    assert len(set(hashes)) == 1
    changed, _ = check_rows(RADIOMICS, [radiomics("p1", [1.0, np.nextafter(2.0, 3.0), float("nan")])])
    assert row_hashes(RADIOMICS, changed)[0].as_py() != hashes[0]


def test_a_nullable_column_declared_later_leaves_hashes_as_they_are() -> None:
    table, _ = check_rows(CLINICAL, case("p1")["clinical"])
    grown = TableSchema(
        CLINICAL.name, CLINICAL.note, CLINICAL.key,
        (*CLINICAL.columns, Column("smoker", pa.bool_(), "later", nullable=True)),
    )  # fmt: skip
    wider, _ = check_rows(grown, case("p1")["clinical"])
    assert row_hashes(CLINICAL, table) == row_hashes(grown, wider)


def test_every_column_enters_the_hash() -> None:
    base = case("p1")["rois"][0] | {"segmenter": "ct-0a1b2c3d"}
    other: dict[str, Any] = {str: "other", int: 77, float: 7.7}
    seen = {row_hashes(ROIS, check_rows(ROIS, [base])[0])[0].as_py()}
    for column in ROIS.columns:
        value = base[column.name]
        if isinstance(value, list):
            new: Any = [*value, *value]
        else:
            new = next(v for v in (*column.values, other[type(value)]) if v != value)
        valid, _ = check_rows(ROIS, [base | {column.name: new}])
        seen.add(row_hashes(ROIS, valid)[0].as_py())
    assert len(seen) == len(ROIS.columns) + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), min_size=2, max_size=6))
def test_composite_is_equal_only_where_all_columns_are(pairs: list[tuple[str, str]]) -> None:
    table = pa.table(
        {"a": pa.array([a for a, _ in pairs], pa.string()), "b": pa.array([b for _, b in pairs], pa.string())}
    )
    keys = composite(table, ["a", "b"]).to_pylist()
    assert len(set(keys)) == len(set(pairs))
