"""The tables of a study, checked once: one row a patient, the same patients in the same order in each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.errors import FeatureTableError
from feature_store.scanners import sequence_of
from feature_store.vocabulary import Partition, is_phantom
from models.feature_files import KEYS, NOT_FEATURES, as_floats, features_of, read_table
from models.in_sample import sentence
from models.selection.robustness import read_robustness

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from feature_store.snapshot import Snapshot
    from feature_store.vocabulary import InSample

READERS = ("A", "B", "C")
ONE_SITE = "unknown"
"""The site of patients whose table names none."""
PATIENT_COLUMNS = ("patient_id", "site", "partition", "outcome")
SOURCES = ("radiomics", "deep", "clinical")


@dataclass(frozen=True)
class StudyTables:
    """``patients``: patient_id, site (text), partition, outcome (0 or 1), and where known incident (0, 1), scanner and
    scanner:SEQUENCE (``models.scanners``).

    ``radiomics``, ``deep`` (numbers, NaN where missing), ``clinical`` (numbers or text) and ``reads`` (columns A, B,
    C of 0 and 1): a row for each row of ``patients``, features only. ``repeats``: patient_id, segmentation (and
    site), then radiomics columns; any rows. ``robustness``: what ``asdeg robustness`` wrote, a row a radiomics
    feature and kind.

    ``warnings``: whole sentences about what reading left out. FeatureTableError where tables do not fit together.
    """

    patients: pd.DataFrame
    radiomics: pd.DataFrame | None = None
    deep: pd.DataFrame | None = None
    clinical: pd.DataFrame | None = None
    reads: pd.DataFrame | None = None
    repeats: pd.DataFrame | None = None
    robustness: pd.DataFrame | None = None
    warnings: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    flow: dict[str, int] = field(default_factory=dict)
    """Who was looked at and left out, in order: ``cases`` and counts by reason. Empty where nobody was left out."""
    lost: pd.DataFrame | None = None
    """Clinical variables of eligible patients without an outcome (window open or lost); any rows."""
    windows_passed: NDArray[np.bool_] | None = None
    """Of each in ``lost``, whether the follow-up window is known to have passed; None: no table says."""
    missing_values: list[dict[str, Any]] | None = None
    """Who lacked which clinical variable, as ``models.missing_values`` says it; None: not looked at yet."""
    in_sample: dict[str, Any] | None = None
    """Encoders that were tuned to outcomes of the cohort's patients, as ``training_table`` says it."""

    def __post_init__(self) -> None:
        absent = [column for column in PATIENT_COLUMNS if column not in self.patients.columns]
        if absent:
            raise FeatureTableError(f"The patients lack {', '.join(absent)}.", action="Add the columns.")
        if all(getattr(self, source) is None for source in SOURCES):
            raise FeatureTableError("There is no feature table.", action="Give radiomics, deep or clinical features.")
        for source in (*SOURCES, "reads"):
            table = getattr(self, source)
            if table is not None and len(table) != len(self.patients):
                raise FeatureTableError(
                    f"The {source} table has {len(table)} rows for {len(self.patients)} patients.",
                    action="Give one row a patient, in the same order.",
                )
        unknown = set(self.patients["partition"]) - {p.value for p in Partition}
        if unknown:
            raise FeatureTableError(
                f"{len(unknown)} unknown partitions.", action=f"Use {', '.join(p.value for p in Partition)}."
            )
        if not self.patients["outcome"].isin([0, 1]).all():
            raise FeatureTableError("Outcomes other than 0 and 1.", action="Leave out patients without an outcome.")
        if self.patients.duplicated(["site", "patient_id"]).any():
            raise FeatureTableError(
                f"{int(self.patients.duplicated(['site', 'patient_id']).sum())} patients are there twice.",
                action="Give one row a patient.",
            )

    @property
    def outcome(self) -> NDArray[np.int64]:
        return self.patients["outcome"].to_numpy(dtype=np.int64)

    @property
    def of_phantoms(self) -> bool:
        """Whether any patient is made up: then no figure of the study is a clinical one."""
        return any(map(is_phantom, self.patients["patient_id"].astype(str)))

    def rows(self, partition: str, site: str | None = None) -> NDArray[np.intp]:
        """Positions of a partition's patients, of one site or all."""
        member = self.patients["partition"] == partition
        if site is not None:
            member &= self.patients["site"] == site
        return np.flatnonzero(member.to_numpy())

    def in_order(self) -> tuple[StudyTables, NDArray[np.intp]]:
        """The same study with patients sorted by site and id, and where each of its rows stood.

        Sums and folds then do not depend on the order of rows in a file.
        """
        keys = self.patients[["site", "patient_id"]].astype(str)
        order = np.lexsort((keys["patient_id"].to_numpy(dtype=str), keys["site"].to_numpy(dtype=str)))

        def ordered(table: pd.DataFrame | None) -> pd.DataFrame | None:
            return None if table is None else table.iloc[order].reset_index(drop=True)

        study = replace(
            self,
            patients=self.patients.iloc[order].reset_index(drop=True),
            radiomics=ordered(self.radiomics),
            deep=ordered(self.deep),
            clinical=ordered(self.clinical),
            reads=ordered(self.reads),
        )
        return study, order

    def with_distinct_names(self) -> StudyTables:
        """Names that two sources share get the source in front, so that a signature's features are unambiguous."""
        names = {source: [str(c) for c in t.columns] for source in SOURCES if (t := getattr(self, source)) is not None}
        twice = [source for source, columns in names.items() if len(set(columns)) != len(columns)]
        if twice:
            raise FeatureTableError(
                f"The {twice[0]} table has columns of the same name.", action="Give every column a name of its own."
            )
        flat = [name for columns in names.values() for name in columns]
        shared = {name for name in flat if flat.count(name) > 1} if len(set(flat)) != len(flat) else set()
        renamed = {
            source: getattr(self, source).set_axis([f"{source}:{c}" if c in shared else c for c in columns], axis=1)
            for source, columns in names.items()
        }
        of_radiomics = {name: f"radiomics:{name}" for name in shared & set(names.get("radiomics", []))}
        if self.repeats is not None:
            renamed["repeats"] = self.repeats.rename(columns=of_radiomics)
        if self.lost is not None:
            renamed["lost"] = self.lost.rename(columns={name: f"clinical:{name}" for name in shared})
        if self.robustness is not None:
            renamed["robustness"] = self.robustness.assign(feature=self.robustness["feature"].replace(of_radiomics))
        note = (f"{len(shared)} names are in several tables; there they carry the table's name.",) if shared else ()
        return replace(self, **renamed, warnings=(*self.warnings, *note))


def from_store(
    snapshot: Snapshot,
    cohort: str,
    feature_sets: Sequence[str],
    encoders: Sequence[str] = (),
    *,
    version: int | None = None,
    clinical: bool = True,
    in_sample: InSample = "refuse",
) -> StudyTables:
    """The tables of a frozen cohort, point in time; patients without an outcome are left out and counted.

    ``feature_sets`` are radiomics feature-set ids, ``encoders`` encoder ids. ``in_sample`` (and errors) as in
    ``training_table``; patients it leaves out are in no table, for all signatures are fitted on the same.
    """
    from feature_store.cohorts import load_cohort
    from feature_store.retrieval import clinical_table, training_table

    frozen = load_cohort(snapshot, cohort, version)
    radiomics = training_table(snapshot, cohort, feature_sets, version=version) if feature_sets else None
    deep = training_table(snapshot, cohort, encoders, version=version, in_sample=in_sample) if encoders else None
    given = deep or radiomics
    if given is None:
        raise FeatureTableError("No feature set and no encoder.", action="Name at least one of them.")
    known = given.patients["outcome"].notna().to_numpy()
    said = given.sources.get("in_sample")
    variables = clinical_table(snapshot, cohort, version) if clinical else None
    if variables is not None:
        names = [c for c in variables.columns if c not in (*PATIENT_COLUMNS, "case_id") and variables[c].notna().any()]
        variables = variables[names] if names else None
    dropped = int((~known).sum())
    members = frozen.members
    kept_keys = pd.MultiIndex.from_frame(given.patients.loc[known, ["site", "patient_id"]])
    rows = pd.MultiIndex.from_frame(members[["site", "patient_id"]]).isin(kept_keys)

    def kept(table: pd.DataFrame | None) -> pd.DataFrame | None:
        if table is None:
            return None
        return table.loc[known if len(table) == len(known) else rows].reset_index(drop=True)

    patients = given.patients.loc[known, list(PATIENT_COLUMNS)].reset_index(drop=True)
    return StudyTables(
        patients.assign(outcome=patients["outcome"].astype(np.int64)),
        radiomics=kept(radiomics.features) if radiomics else None,
        deep=kept(deep.features) if deep else None,
        clinical=kept(variables),
        reads=_stored_reads(snapshot.at(frozen.as_of), patients),
        warnings=(
            *((f"{dropped} patients of the cohort have no outcome yet and are left out.",) if dropped else ()),
            *((sentence(said),) if said else ()),
        ),
        in_sample=said,
        sources={
            "cohort": f"{frozen.name}, version {frozen.version}",
            "rule": frozen.rule,
            "feature_sets": ", ".join(feature_sets),
            "encoders": ", ".join(encoders),
        },
    )


def _stored_reads(view: Snapshot, patients: pd.DataFrame) -> pd.DataFrame | None:
    """Surgeons' readings of these patients, columns A, B, C (NaN where there is none); None without any."""
    sites = sorted(set(patients["site"]))
    found = view.table("surgeon_reads", where={"site": sites}).to_pandas()
    found = found[found["surgeon"].isin(READERS)]
    wide = found.pivot(index=["site", "patient_id"], columns="surgeon", values="prediction").astype("float64")
    keys = pd.MultiIndex.from_frame(patients[["site", "patient_id"]])
    reads = wide.reindex(index=keys, columns=[reader for reader in READERS if reader in wide]).reset_index(drop=True)
    return reads if reads.notna().to_numpy().any() else None


def from_files(
    *,
    outcome: Path,
    radiomics: Path | None = None,
    deep: Path | None = None,
    clinical: Path | None = None,
    reads: Path | None = None,
    repeats: Path | None = None,
    robustness: Path | None = None,
) -> StudyTables:
    """Reads the tables of ``asdeg study``, joined on patient_id (and site, where a table has it as well).

    The outcome file says who is in the study. A patient whom a feature table lacks has missing values there;
    one whom all of them lack is left out. FeatureTableError names the file, the rule and the count.
    """
    everybody, notes = _patients(outcome)
    patients = everybody[everybody["outcome"].notna()].reset_index(drop=True)
    patients["outcome"] = patients["outcome"].astype(np.int64)
    without = everybody[everybody["outcome"].isna()].reset_index(drop=True)
    flow = {"cases": len(everybody), **({"no outcome": len(without)} if len(without) else {})}
    lost = None
    tables: dict[str, pd.DataFrame] = {}
    present = np.zeros(len(patients), dtype=bool)
    for source, path in (("radiomics", radiomics), ("deep", deep), ("clinical", clinical)):
        if path is None:
            continue
        table = read_table(path)
        features, of_file = (_clinical(table), list[str]()) if source == "clinical" else features_of(table, path.name)
        joined, found = _joined(patients, table, features, path.name)
        if source == "clinical" and len(without):
            lost = _joined(without, table, features, path.name)[0]
        missing = int((~found).sum())
        lacks = [f"{path.name} lacks {missing} of {len(patients)} patients; their values there are imputed."]
        notes += [*of_file, *(lacks if missing else [])]
        tables[source] = joined
        present |= found
    if not tables:
        raise FeatureTableError("There is no feature table.", action="Give --radiomics, --deep or --clinical.")
    if not present.any():
        raise FeatureTableError(
            "No patient of the outcome file is in a feature table.", action="Check that the ids are the same."
        )
    if not present.all():
        notes.append(f"{int((~present).sum())} patients are in no feature table and are left out.")
        flow["in no feature table"] = int((~present).sum())
    if reads is not None:
        table = read_table(reads)
        tables["reads"] = _joined(patients, table, _reads(table, reads.name), reads.name)[0]
    kept = {source: table.loc[present].reset_index(drop=True) for source, table in tables.items()}
    return StudyTables(
        patients.loc[present].reset_index(drop=True),
        radiomics=kept.get("radiomics"),
        deep=kept.get("deep"),
        clinical=kept.get("clinical"),
        reads=kept.get("reads"),
        repeats=None if repeats is None else _repeats(repeats),
        robustness=None if robustness is None else read_robustness(robustness),
        warnings=tuple(notes),
        flow=flow,
        lost=lost if lost is not None or not len(without) else pd.DataFrame(index=range(len(without))),
    )


def _patients(path: Path) -> tuple[pd.DataFrame, list[str]]:
    table = read_table(path)
    absent = [column for column in ("outcome", "cohort") if column not in table.columns]
    if absent:
        raise FeatureTableError(
            f"It has no column {' and no column '.join(absent)}.",
            action="Give patient_id, outcome (0 or 1) and cohort (training, internal_validation, external_test).",
            file=path.name,
        )
    site = [name or ONE_SITE for name in table["site"]] if "site" in table.columns else ONE_SITE
    cohort = [str(name).strip() for name in table["cohort"]]
    unknown = sum(name not in {p.value for p in Partition} for name in cohort)
    if unknown:
        raise FeatureTableError(
            f"{unknown} rows have a cohort that is none of ours.",
            action="Write training, internal_validation or external_test.",
            file=path.name,
        )
    blank = table["outcome"].isna().to_numpy()
    values = as_floats(table["outcome"])
    wrong = int((~blank & ~np.isin(values, (0.0, 1.0))).sum())
    if wrong:
        raise FeatureTableError(
            f"{wrong} outcomes are neither 0 nor 1.", action="Write 0, 1, or nothing where unknown.", file=path.name
        )
    patients = pd.DataFrame({"patient_id": table["patient_id"], "site": site, "partition": cohort})
    if "scanner" in table.columns:
        patients["scanner"] = _texts(table["scanner"])
    for column in (name for name in table.columns if sequence_of(name)):
        patients[column] = _texts(table[column])
    twice = int(patients.duplicated(["site", "patient_id"]).sum())
    if twice:
        raise FeatureTableError(f"{twice} patients are there twice.", action="Give one row a patient.", file=path.name)
    if "incident" in table.columns:
        incident = as_floats(table["incident"])
        patients["incident"] = np.where(np.isin(incident, (0.0, 1.0)), incident, np.nan)
    patients["outcome"] = np.where(blank, np.nan, values)
    return patients, [f"{int(blank.sum())} patients have no outcome and are left out."] if blank.any() else []


def _texts(column: pd.Series) -> list[str]:
    return [str(value) if pd.notna(value) else "unknown" for value in column]


def _joined(
    patients: pd.DataFrame, table: pd.DataFrame, features: pd.DataFrame, file: str
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """The features in the patients' order, and which patients the table has."""
    by_site = "site" in table.columns and bool((patients["site"] != ONE_SITE).any())
    keys = list(KEYS) if by_site else ["patient_id"]
    if patients.duplicated(keys).any():
        raise FeatureTableError(
            "Two sites have patients of the same id, and this table has no site.",
            action="Add the site column.",
            file=file,
        )
    twice = int(table.duplicated(keys).sum())
    if twice:
        raise FeatureTableError(f"{twice} patients are there twice.", action="Give one row a patient.", file=file)
    index = pd.MultiIndex.from_frame(table[keys])
    places = index.get_indexer(pd.MultiIndex.from_frame(patients[keys]))
    found = places >= 0
    joined = features.iloc[np.where(found, places, 0)].reset_index(drop=True)
    return joined.where(pd.Series(found)) if not found.all() else joined, found


def _clinical(table: pd.DataFrame) -> pd.DataFrame:
    return table[[c for c in table.columns if c not in (*KEYS, *NOT_FEATURES)]]


def _reads(table: pd.DataFrame, file: str) -> pd.DataFrame:
    """Columns A, B, C, also where they are called surgeon_a or reader_a."""
    found = {}
    for column in table.columns:
        reader = column.lower().removeprefix("surgeon_").removeprefix("reader_").upper()
        if reader in READERS:
            found[reader] = as_floats(table[column])
    if not found or any(not np.isin(v[~np.isnan(v)], (0.0, 1.0)).all() for v in found.values()):
        raise FeatureTableError(
            "It needs columns A, B or C with 0 or 1.", action="Write one column a surgeon.", file=file
        )
    return pd.DataFrame(found, index=table.index)


def _repeats(path: Path) -> pd.DataFrame:
    table = read_table(path)
    if "segmentation" not in table.columns:
        raise FeatureTableError(
            "It has no column segmentation.", action="Say which segmentation each row is of.", file=path.name
        )
    features, _ = features_of(table.drop(columns="segmentation"), path.name)
    return pd.concat([table[[c for c in (*KEYS, "segmentation") if c in table.columns]], features], axis=1)
