"""Read the store with SQL: DuckDB over a snapshot, a view per table and a wide view per feature set.

Every table is a view of its latest revisions. ``radiomics_<feature set>`` and ``embeddings_<encoder>``
(hyphens become underscores) have a column a feature; columns that a query does not name are not read.
"""

from __future__ import annotations

import re
from typing import Any

import duckdb
import pyarrow as pa

from feature_store.errors import UsageError
from feature_store.schemas import EMBEDDINGS, RADIOMICS, TABLES, TableSchema
from feature_store.snapshot import Snapshot

VALUE_TABLES = (RADIOMICS, EMBEDDINGS)
READING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}


def ask(snapshot: Snapshot, query: str) -> pa.Table:
    """Answer of one query over the snapshot. Raises UsageError with DuckDB's own words where it cannot be run."""
    return answer(connect(snapshot), query)


def connect(snapshot: Snapshot) -> Any:
    """An in-memory DuckDB connection that sees the snapshot and nothing else (no files, no network)."""
    connection = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    for schema in TABLES.values():
        if schema in VALUE_TABLES:
            _view_of_values(connection, snapshot, schema)
        else:
            connection.register(schema.name, snapshot.table(schema.name))
    for row in snapshot.table("feature_sets", ["feature_set", "feature_names"]).to_pylist():
        _wide_view(connection, RADIOMICS, row["feature_set"], row["feature_names"])
    for row in snapshot.table("encoders", ["encoder", "dimension"]).to_pylist():
        _wide_view(connection, EMBEDDINGS, row["encoder"], [f"e_{i:03d}" for i in range(row["dimension"])])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def answer(connection: Any, query: str) -> pa.Table:
    """Run a query. Raises UsageError with DuckDB's own words where it cannot be run."""
    try:
        kinds = {statement.type for statement in connection.extract_statements(query)}
        if kinds <= READING:
            found = connection.sql(query)
            return pa.table({}) if found is None else found.to_arrow_table()
    except duckdb.Error as error:
        raise UsageError(str(error).splitlines()[0], action="Mend the query; `SHOW TABLES` lists the views.") from error
    raise UsageError("The store can only be read with SQL.", action="Write a SELECT.")


def view_name(table: str, name: str) -> str:
    """Name of a wide view: ``radiomics_study_mr_1a2b3c4d``."""
    return f"{table}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"


def _view_of_values(connection: Any, snapshot: Snapshot, schema: TableSchema) -> None:
    """Latest rows by a join on the keys that won, so that values are streamed and never sorted."""
    name = schema.name
    heads = snapshot.heads(name)
    files = snapshot.files(name)
    if heads is None or files is None:
        connection.register(name, schema.arrow().empty_table().drop_columns(["row_hash", "withdrawn"]))
        return
    connection.register(f"_{name}_files", files.dataset())
    connection.register(f"_{name}_latest", heads.keys.select([*schema.key, "push_id"]))
    columns = ", ".join(f'f."{column}"' for column in (*schema.column_names, "push_id"))
    same = " AND ".join(f'f."{column}" = l."{column}"' for column in (*schema.key, "push_id"))
    connection.execute(
        f"CREATE VIEW {name} AS SELECT {columns} FROM _{name}_files f SEMI JOIN _{name}_latest l ON {same}"
    )


def _wide_view(connection: Any, schema: TableSchema, set_id: str, names: list[str]) -> None:
    kind = schema.key[-1]  # the column that names the feature set or encoder
    others = [column for column in schema.column_names if column not in ("values", kind)]
    columns = [f'"{column}"' for column in (*others, "push_id")]
    columns += [f'"values"[{i}] AS {_quoted(name)}' for i, name in enumerate(names, start=1)]
    literal = "'" + set_id.replace("'", "''") + "'"
    connection.execute(
        f"CREATE VIEW {_quoted(view_name(schema.name, set_id))} AS "
        f'SELECT {", ".join(columns)} FROM {schema.name} WHERE "{kind}" = {literal}'
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
