"""How long values are: the row of their feature set or encoder says so.

Values of another length would stop whoever reads that feature set, so they are not let in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.rows import Rule
from feature_store.snapshot import Snapshot


class Declaration(NamedTuple):
    """``column`` of a table of values names a row of ``table``, whose ``length`` its values have."""

    column: str
    table: str
    length: Callable[[Mapping[str, Any]], int]
    reads: str


DECLARATIONS = {
    "radiomics": Declaration("feature_set", "feature_sets", lambda row: len(row["feature_names"]), "feature_names"),
    "embeddings": Declaration("encoder", "encoders", lambda row: int(row["dimension"]), "dimension"),
}


class DeclaredLengths:
    """Looked up once each: what an id stands for never changes."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}

    def rules(self, name: str, pushed: Mapping[str, pa.Table], view: Snapshot) -> list[Rule]:
        """Of the rows of table ``name``, by what is in ``view`` and among the rows ``pushed`` with them."""
        found = DECLARATIONS.get(name)
        if found is None:
            return []
        target = found.table

        def lengths(rows: pa.Table) -> np.ndarray:
            with_them = {}
            if target in pushed:
                with_them = {row[found.column]: found.length(row) for row in pushed[target].to_pylist()}
            wanted = set(pc.unique(rows[found.column]).to_pylist()) - set(with_them)
            if new := [one for one in wanted if (target, one) not in self._known]:
                for row in view.table(target, [found.column, found.reads], {found.column: new}).to_pylist():
                    self._known[target, row[found.column]] = found.length(row)
            known = with_them | {one: self._known[target, one] for one in wanted if (target, one) in self._known}
            return np.array([known.get(one, -1) for one in rows[found.column].to_pylist()], np.int64)

        def undeclared(rows: pa.Table) -> np.ndarray:
            return lengths(rows) < 0

        def other(rows: pa.Table) -> np.ndarray:
            here = np.asarray(pc.fill_null(pc.list_value_length(rows["values"]).cast(pa.int64()), -1))
            return (here >= 0) & (here != lengths(rows))

        return [
            Rule(found.column, "declared", f"is no {found.column} of {target}", undeclared),
            Rule("values", "length", f"is not as long as {target} says", other),
        ]
