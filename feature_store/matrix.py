"""Features of many patients as one float64 matrix, filled straight from the stored lists.

Which column a row's values go to is decided from the keys; the numbers are then copied batch by batch
from Arrow's buffers, without passing through Python objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.codes import positions
from feature_store.errors import FeaturesMissing, StoreError, UsageError
from feature_store.files import Where
from feature_store.heads import CellReader, Heads
from feature_store.row_groups import ahead
from feature_store.schemas import EMBEDDINGS, RADIOMICS, ROIS, SERIES, TableSchema
from feature_store.snapshot import Snapshot
from feature_store.vocabulary import RoiName

ROI_COLUMNS = ("sequence", "structure", "level", "side", "segmentation")
CASE_COLUMNS = ("site", "patient_id", "case_id")
SOURCE_COLUMNS = ("image_hash", "mask_hash")
PATIENTS_BY_NAME = 2000  # more are cheaper to read by site


@dataclass
class FeatureMatrix:
    """``values`` n × p, NaN where an ROI is missing or failed; ``names`` p full names; ``sets`` id to feature count.

    ``blocks`` are the column ranges that belong to one ROI and feature set.
    """

    values: np.ndarray
    names: list[str]
    blocks: list[slice]
    missing_rois: list[str]
    refused_rows: int
    sets: dict[str, int] = field(default_factory=dict)


def read_matrix(
    view: Snapshot, cases: Sequence[tuple[str, str, str]], feature_sets: Sequence[str], rois: Sequence[RoiName]
) -> FeatureMatrix:
    """Features of ``cases`` (site, patient_id, case_id), a column a feature of every ROI any of them has.

    ``feature_sets`` holds ids of radiomics feature sets and of encoders. Rows of images made after the
    surgery are refused (counted, never read). Raises UsageError where two radiomics feature sets have
    values for the same ROI (their columns would have the same names), FeaturesMissing for an id that the
    view does not know.

    Features count only while the ROI they were cut from is the current one: those of a region that was
    withdrawn, or whose image or mask was replaced, are not there until they have been extracted again.
    """
    return MatrixPlan(view, cases, feature_sets, rois).read()


class MatrixPlan:
    """Which stored row goes where in the matrix of :func:`read_matrix`; no value has been read yet."""

    def __init__(
        self,
        view: Snapshot,
        cases: Sequence[tuple[str, str, str]],
        feature_sets: Sequence[str],
        rois: Sequence[RoiName],
    ) -> None:
        where = _where(cases)
        known = _feature_names(view, feature_sets)
        self._rows, self._wanted = len(cases), rois
        self._sets = {name: len(known[name][1]) for name in feature_sets}
        asked = {s: [name for name in feature_sets if known[name][0] is s] for s in (RADIOMICS, EMBEDDINGS)}
        asked = {schema: ids for schema, ids in asked.items() if ids}
        reads = [(SERIES, where, ("days_from_index",)), (ROIS, where, SOURCE_COLUMNS)]
        reads += [(schema, {**where, schema.key[-1]: ids}, SOURCE_COLUMNS) for schema, ids in asked.items()]
        series, regions, *stored = ahead(lambda read: view.heads(read[0].name, *read[1:]), reads)
        self._parts = []
        for (schema, ids), heads in zip(asked.items(), stored, strict=True):
            names = [known[name][1] for name in ids]
            self._parts.append(_Part(schema, heads, ids, names, cases, rois, _after_surgery(series), regions))

    def read(self) -> FeatureMatrix:
        """The matrix."""
        width = sum(part.width for part in self._parts)
        values = np.empty((self._rows, width))
        start, names, blocks = 0, [], []
        for part in self._parts:
            part.fill(values[:, start : start + part.width])
            blocks += [slice(start + b.start, start + b.stop) for b in part.blocks]
            start += part.width
            names += part.names
        present = {roi for part in self._parts for roi in part.rois}
        return FeatureMatrix(
            values=values,
            names=names,
            blocks=blocks,
            missing_rois=[str(roi) for roi in self._wanted if roi not in present],
            refused_rows=sum(part.refused for part in self._parts),
            sets=self._sets,
        )

    def of_case(self, case: int) -> Iterator[tuple[list[str], np.ndarray]]:
        """Names and values of each block that case number ``case`` has."""
        for part in self._parts:
            yield from part.of_case(case)


class _Part:
    """One values table: which rows are wanted, and the column block each goes to."""

    def __init__(
        self,
        schema: TableSchema,
        heads: Heads | None,
        ids: Sequence[str],
        names: Sequence[Sequence[str]],
        cases: Sequence[tuple[str, str, str]],
        rois: Sequence[RoiName],
        late: pa.Table | None,
        regions: Heads | None,
    ) -> None:
        kind = schema.key[-1]
        self._heads, self._names = heads, names
        self.width, self.refused = 0, 0
        self.names: list[str] = []
        self.blocks: list[slice] = []
        self.rois: set[RoiName] = set()
        self._starts: dict[int, int] = {}
        if heads is None:
            return
        keys = heads.coded
        self._case = positions(keys, _rows(CASE_COLUMNS, cases), CASE_COLUMNS)
        roi = positions(keys, _rows(ROI_COLUMNS, [_roi_row(roi) for roi in rois]), ROI_COLUMNS)
        set_at = positions(keys, _rows([kind], [(name,) for name in ids]), [kind])
        wanted = (self._case >= 0) & (roi >= 0) & (set_at >= 0) & _current(heads, regions)
        refused = np.zeros(len(keys), bool)
        if late is not None:
            refused = wanted & (positions(keys, late, (*CASE_COLUMNS, "sequence")) >= 0)
        self.refused = int(refused.sum())
        self._block = np.where(wanted & ~refused, set_at * len(rois) + roi, -1)
        for block in np.unique(self._block[self._block >= 0]).tolist():
            which, at = divmod(block, len(rois))
            if schema is RADIOMICS and rois[at] in self.rois:
                raise UsageError(
                    f"Two feature sets have values for {rois[at]}.", action="Ask for one feature set a sequence."
                )
            self.rois.add(rois[at])
            self._starts[block] = self.width
            full = self._names[which] if schema is RADIOMICS else [f"{ids[which]}_{n}" for n in self._names[which]]
            prefix = rois[at].feature_name("")
            self.names += [prefix + feature for feature in full]
            self.width += len(full)
            self.blocks.append(slice(self._starts[block], self.width))
        self._lengths = {block: len(self._names[block // len(rois)]) for block in self._starts}
        self._cases = len(cases)

    @cached_property
    def _by_case(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows that go anywhere, by case, and where each case's begin."""
        used = np.flatnonzero(self._block >= 0)
        order = used[np.argsort(self._case[used], kind="stable")]
        return order, np.searchsorted(self._case[order], np.arange(self._cases + 1))

    @cached_property
    def _reader(self) -> CellReader:
        assert self._heads is not None
        return self._heads.reader("values")

    def of_case(self, case: int) -> Iterator[tuple[list[str], np.ndarray]]:
        if self._heads is None or not self._starts:
            return
        order, bounds = self._by_case
        rows = order[bounds[case] : bounds[case + 1]]
        for row, cell in zip(rows.tolist(), self._reader.cells(rows), strict=True):
            block = int(self._block[row])
            if cell is not None:
                if len(cell) != self._lengths[block]:
                    raise _wrong_length()
                yield self.names[self._starts[block] : self._starts[block] + self._lengths[block]], cell

    def fill(self, out: np.ndarray) -> None:
        """Into ``out``, which may hold anything; what no row fills is NaN."""
        filled = np.zeros((len(out), len(self.blocks)), bool)
        self._fill(out, filled)
        for number, block in enumerate(self.blocks):  # the rest only: to write the whole matrix twice takes time
            out[np.flatnonzero(~filled[:, number]), block] = np.nan

    def _fill(self, out: np.ndarray, filled: np.ndarray) -> None:
        if self._heads is None or not self._starts:
            return
        number_of = np.full(max(self._starts) + 1, -1)
        number_of[list(self._starts)] = np.arange(len(self._starts))
        lengths = set(self._lengths.values())
        length = lengths.pop() if len(lengths) == 1 else 0  # of every block, where they are all as long
        # a row of the matrix is looked up once, not the row and the block, where there is nothing between the blocks
        flat = out.reshape(-1, length) if length and out.flags.c_contiguous else None

        def put(places: np.ndarray, cells: Any) -> None:
            blocks, cases = self._block[places], self._case[places]
            if isinstance(cells, np.ndarray) and flat is not None and cells.shape[1] == length and (blocks >= 0).all():
                numbers = number_of[blocks]
                flat[cases * len(self.blocks) + numbers] = cells
                filled[cases, numbers] = True
                return
            if isinstance(cells, np.ndarray):
                lengths, has_values = np.full(len(cells), cells.shape[1]), np.ones(len(cells), bool)
            else:
                lengths, has_values = np.diff(cells.offsets.to_numpy()), cells.is_valid().to_numpy(zero_copy_only=False)
            for block in np.unique(blocks[(blocks >= 0) & has_values]).tolist():
                chosen = np.flatnonzero((blocks == block) & has_values)
                width = self._lengths[block]
                if (lengths[chosen] != width).any():
                    raise _wrong_length()
                if isinstance(cells, np.ndarray):
                    values = cells[chosen]
                else:
                    numbers = cells.take(pa.array(chosen)).flatten().to_numpy(zero_copy_only=False)
                    values = numbers.reshape(len(chosen), width)
                out[cases[chosen], self.blocks[number_of[block]]] = values
                filled[cases[chosen], number_of[block]] = True

        self._heads.each("values", put)


def _wrong_length() -> StoreError:
    return StoreError("A row of values does not have its feature set's length.", action="Extract those cases again.")


def _where(cases: Sequence[tuple[str, str, str]]) -> Where:
    where = {"site": sorted({case[0] for case in cases})}
    patients = sorted({case[1] for case in cases})
    if len(patients) <= PATIENTS_BY_NAME:
        where["patient_id"] = patients
    return where


def _roi_row(roi: RoiName) -> tuple[str, ...]:
    return (roi.sequence, roi.structure, roi.level, str(roi.side), roi.segmentation)


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> pa.Table:
    arrays = [pa.array([row[i] for row in rows], pa.string()) for i in range(len(columns))]
    return pa.table(arrays, names=list(columns))


def _current(heads: Heads, regions: Heads | None) -> np.ndarray:
    """Which rows are of a region as it is now: there is one, cut from the same image and mask."""
    if regions is None:
        return np.zeros(len(heads.keys), bool)
    at = positions(heads.coded, regions.coded, (*CASE_COLUMNS, *ROI_COLUMNS))
    found = at >= 0
    of_row = pa.array(at, mask=~found)
    for name in SOURCE_COLUMNS:
        found &= np.asarray(pc.fill_null(pc.equal(heads.keys[name], regions.keys[name].take(of_row)), False))
    return found


def _after_surgery(series: Heads | None) -> pa.Table | None:
    """Case and sequence of the images that were made after the surgery; None where there is none."""
    if series is None:
        return None
    late = np.flatnonzero(pc.fill_null(pc.greater(series.keys["days_from_index"], 0), False))
    return series.coded.take(pa.array(late)) if len(late) else None


def _feature_names(view: Snapshot, ids: Sequence[str]) -> dict[str, tuple[TableSchema, list[str]]]:
    known: dict[str, tuple[TableSchema, list[str]]] = {}
    for row in view.table("feature_sets", ["feature_set", "feature_names"], {"feature_set": list(ids)}).to_pylist():
        known[row["feature_set"]] = (RADIOMICS, row["feature_names"])
    if encoders := [name for name in ids if name not in known]:
        for row in view.table("encoders", ["encoder", "dimension"], {"encoder": encoders}).to_pylist():
            known[row["encoder"]] = (EMBEDDINGS, [f"{i:03d}" for i in range(row["dimension"])])
    if missing := sorted(set(ids) - set(known)):
        raise FeaturesMissing(
            f"Nothing had been extracted with {', '.join(missing)} as of push {view.sequence}.",
            action="Extract first; a cohort frozen before that has to be frozen again.",
        )
    return known
