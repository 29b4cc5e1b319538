"""Every data table, declared once: columns with type, unit, nullability, key and allowed values.

What the declaration says is what the store checks on a push: a row that breaks a rule is returned with
its reason, the others are written. Three columns are added to every table by the store: ``push_id``
(which push wrote the row), ``row_hash`` (over all declared columns; a row equal to its key's latest
revision is a no-op) and ``withdrawn`` (true in a revision that says the key holds nothing any more).

Clinical time is ``days_from_index`` (the surgery is day 0); calendar dates of patients are not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from feature_store.vocabulary import LEVELS, STRUCTURES, Partition, Side, SignatureKind

STRING = pa.string()
INT = pa.int64()
FLOAT = pa.float64()
BOOL = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")
STRINGS = pa.list_(pa.string())
INTS = pa.list_(pa.int64())
DOUBLES = pa.list_(pa.float64())
FLOATS = pa.list_(pa.float32())


@dataclass(frozen=True)
class Column:
    """One column. ``low`` and ``high`` are inclusive bounds in ``unit``; ``values`` lists what is allowed."""

    name: str
    type: pa.DataType
    note: str
    unit: str = ""
    nullable: bool = False
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableSchema:
    """One table: its columns, the key of which a row is a revision, and whether it is split by site."""

    name: str
    note: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def by_site(self) -> bool:
        """Tables whose key starts with the site are partitioned by it: writers of two sites never meet."""
        return self.key[0] == "site"

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def arrow(self) -> pa.Schema:
        """As stored: the declared columns, then ``push_id``, ``row_hash`` and ``withdrawn``."""
        return self._arrow

    @cached_property
    def _arrow(self) -> pa.Schema:
        declared = [pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns]
        hashed = pa.field("row_hash", STRING, nullable=False)
        if "push_id" in self.column_names:  # the pushes themselves are never withdrawn
            return pa.schema([*declared, hashed])
        return pa.schema([*declared, pa.field("push_id", STRING, nullable=False), hashed, pa.field("withdrawn", BOOL)])


PATIENT = (
    Column("site", STRING, "hospital; a patient id means something only within it"),
    Column("patient_id", STRING, "pseudonym within the site"),
)
CASE = (*PATIENT, Column("case_id", STRING, "one patient's preoperative study"))
ROI = (
    *CASE,
    Column("sequence", STRING, "ct, t1_sag, t2_sag, t2_ax or a site's own name"),
    Column("structure", STRING, "anatomical structure", values=tuple(STRUCTURES)),
    Column("level", STRING, "vertebra, disc, all or unknown", values=LEVELS),
    Column("side", STRING, "left, right or both", values=tuple(Side)),
    Column("segmentation", STRING, "primary, or the name of a repeated one"),
)
IMAGE_SOURCE = (
    Column("image_hash", STRING, "content hash of the image's voxels and geometry"),
    Column("mask_hash", STRING, "content hash of the label map's voxels and geometry"),
)
RUN_TIME = Column("software_version", STRING, "asdeg version and the versions that decide the values")


def _key(columns: Sequence[Column], *more: str) -> tuple[str, ...]:
    return (*(column.name for column in columns), *more)


CASES = TableSchema(
    "cases",
    "One row a patient's preoperative study.",
    _key(CASE),
    (
        *CASE,
        Column("manifest_hash", STRING, "content hash of case.yaml's meaning (keys sorted, dates as offsets)"),
        Column("sequences", STRINGS, "usable sequences, sorted"),
        Column("index_date_known", BOOL, "False while the study date stands in for the surgery"),
        Column("rejected", STRINGS, "what could not be used: 'Code: file: message'", nullable=True),
    ),
)

SERIES = TableSchema(
    "series",
    "One row an image; the scanner columns are the batch for harmonisation.",
    _key(CASE, "sequence"),
    (
        *CASE,
        ROI[3],
        Column("image_hash", STRING, "content hash of the image's voxels and geometry"),
        Column("size", INTS, "x, y, z", unit="voxel"),
        Column("spacing", DOUBLES, "x, y, z", unit="mm"),
        Column("origin", DOUBLES, "of the first voxel's centre, LPS", unit="mm"),
        Column("direction", DOUBLES, "nine direction cosines, row-major"),
        Column("days_from_index", INT, "imaging day", unit="day", nullable=True),
        Column("scanner_vendor", STRING, "manufacturer", nullable=True),
        Column("scanner_model", STRING, "model name", nullable=True),
        Column("field_strength_t", FLOAT, "MR only", unit="T", nullable=True, low=0.0, high=12.0),
    ),
)

ROIS = TableSchema(
    "rois",
    "One row a region of interest.",
    _key(ROI),
    (
        *ROI,
        *IMAGE_SOURCE,
        Column("labels", INTS, "the label numbers of the mask that make up this ROI"),
        Column("levels", STRINGS, "the levels it holds (for `all`: those of the union that are there)"),
        Column("voxel_count", INT, "voxels in the ROI", unit="voxel", low=1),
        Column("volume_mm3", FLOAT, "voxel count times voxel volume", unit="mm³", low=0.0),
        Column("segmenter", STRING, "id in segmenters of the U-Net that drew it; null: drawn by people", nullable=True),
    ),
)

QUALITY_OF_SERIES = "image"
"""Stands in ``quality`` where a ROI's structure does: the row judges the series as a whole."""

QUALITY = TableSchema(
    "quality",
    "One row a series (structure `image`, level `all`) and one a ROI: a verdict, its reasons, what was measured.",
    _key(ROI),
    (
        *ROI[:4],
        Column("structure", STRING, "of the ROI, or `image`", values=(QUALITY_OF_SERIES, *STRUCTURES)),
        *ROI[5:],
        Column("verdict", STRING, "a ROI of verdict fail is not extracted", values=("pass", "warn", "fail")),
        Column("reasons", STRINGS, "what is not as it should be, gravest first: 'Code: sentence'"),
        Column("measured", STRING, "JSON: what was measured, units in the names"),
        Column("quality_settings", STRING, "name-hash of the bounds it was judged by"),
        IMAGE_SOURCE[0],
        Column("mask_hash", STRING, "of the label map; null for a series", nullable=True),
        Column("overlay_hash", STRING, "the picture's blob (kind overlays)", nullable=True),
        RUN_TIME,
    ),
)

CLINICAL = TableSchema(
    "clinical",
    "Baseline variables of a case, all known before surgery.",
    _key(CASE),
    (
        *CASE,
        Column("days_from_index", INT, "day the variables describe", unit="day", nullable=True, high=0),
        Column("age", FLOAT, "at surgery", unit="year", nullable=True, low=0, high=120),
        Column("sex", STRING, "as recorded", nullable=True, values=("female", "male", "other")),
        Column("bmi", FLOAT, "body mass index", unit="kg/m²", nullable=True, low=8, high=90),
        Column("surgical_segments", INT, "planned number of fused segments", nullable=True, low=1, high=3),
        Column("fused_levels", STRINGS, "discs to be fused, for example L4-L5", nullable=True),
        Column("osteoporosis", BOOL, "diagnosed", nullable=True),
        Column("diagnosis", STRING, "the site's word for the lumbar disease", nullable=True),
        Column("procedure", STRING, "for inclusion: PLIF in the paper", nullable=True),
        Column("prior_surgery", BOOL, "for exclusion: earlier spinal surgery", nullable=True),
        Column("infection_or_tumour", BOOL, "for exclusion", nullable=True),
        Column("image_quality", STRING, "for exclusion", nullable=True, values=("good", "acceptable", "poor")),
    ),
)

FOLLOW_UP = TableSchema(
    "follow_up",
    "One row a measurement of one disc level by one rater; baseline grades have days_from_index <= 0.",
    _key(PATIENT, "days_from_index", "rater", "level"),
    (
        *PATIENT,
        Column("days_from_index", INT, "days since surgery", unit="day", low=-3650, high=36500),
        Column("rater", STRING, "who measured; `adjudicator` settles disagreement"),
        Column("level", STRING, "disc, for example L3-L4", values=LEVELS),
        Column("spondylolisthesis_mm", FLOAT, "slip", unit="mm", nullable=True, low=0, high=60),
        Column("angular_motion_deg", FLOAT, "segmental motion", unit="degree", nullable=True, low=0, high=90),
        Column(
            "disc_height_loss_pct",
            FLOAT,
            "against baseline; negative is gain",
            unit="%",
            nullable=True,
            low=-100,
            high=100,
        ),
        Column("ucla", INT, "UCLA disc degeneration grade", nullable=True, low=1, high=4),
        Column("pfirrmann", INT, "Pfirrmann grade I to V as 1 to 5", nullable=True, low=1, high=5),
    ),
)

LABELS = TableSchema(
    "labels",
    "The outcome derived from follow_up by a versioned rule.",
    _key(PATIENT, "rule"),
    (
        *PATIENT,
        Column("rule", STRING, "name and version of the label rule"),
        Column("outcome", INT, "1 ASDeg, 0 none, null unknown", nullable=True, low=0, high=1),
        Column(
            "incident",
            INT,
            "the same, leaving out criteria already positive before surgery",
            nullable=True,
            low=0,
            high=1,
        ),
        Column("criteria", STRINGS, "positive criteria, as level:criterion"),
        Column("reason", STRING, "why the outcome is what it is"),
        Column("last_day", INT, "latest follow-up used", unit="day", nullable=True),
    ),
)

SURGEON_READS = TableSchema(
    "surgeon_reads",
    "A surgeon's own prediction from the same preoperative material.",
    _key(PATIENT, "surgeon"),
    (
        *PATIENT,
        Column("surgeon", STRING, "A, B, or C who adjudicates"),
        Column("prediction", INT, "1 expects ASDeg", low=0, high=1),
    ),
)

FEATURE_SETS = TableSchema(
    "feature_sets",
    "Named, versioned extraction settings; the id carries a hash of the settings.",
    ("feature_set",),
    (
        Column("feature_set", STRING, "name-hash"),
        Column("name", STRING, "name without the hash"),
        Column("settings", STRING, "canonical JSON"),
        Column("feature_names", STRINGS, "PyRadiomics' names, in the order of radiomics.values"),
        Column("ibsi_codes", STRINGS, "IBSI code a feature, empty where there is none", nullable=True),
        Column("families", STRINGS, "class a feature (shape, firstorder, glcm, …)", nullable=True),
        Column("units", STRINGS, "unit a feature, 1 where it has none", nullable=True),
    ),
)

RADIOMICS = TableSchema(
    "radiomics",
    "One row an ROI and feature set; values in the order of feature_sets.feature_names.",
    _key(ROI, "feature_set"),
    (
        *ROI,
        Column("feature_set", STRING, "id in feature_sets"),
        *IMAGE_SOURCE,
        Column("values", DOUBLES, "one value a feature; null where the ROI failed", nullable=True),
        Column("error", STRING, "why there are no values", nullable=True),
        RUN_TIME,
    ),
)

ENCODERS = TableSchema(
    "encoders",
    "Checkpoints of embedding nets, with their origin stated truthfully.",
    ("encoder",),
    (
        Column("encoder", STRING, "name-hash"),
        Column("architecture", STRING, "vit_small or vit_base"),
        Column("settings", STRING, "canonical JSON: architecture, input size, margin"),
        Column("checkpoint_hash", STRING, "SHA-256 of the weights"),
        Column("origin", STRING, "random:SEED, self_supervised, fine_tuned, or file:SHA256"),
        Column("outcomes_seen", BOOL, "whether any outcome was used to fit it"),
        Column("patients_seen", STRINGS, "site/patient_id it was fitted on", nullable=True),
        Column("dimension", INT, "length of an embedding"),
        Column(
            "outcomes_of",
            STRINGS,
            "of patients_seen, those whose outcome was used; null: of all of them",
            nullable=True,
        ),
        Column("derived", STRING, "JSON: how the weights were made (inflation, training, its curve)", nullable=True),
    ),
)

EMBEDDINGS = TableSchema(
    "embeddings",
    "One row an ROI and encoder: the average-pooled penultimate layer.",
    _key(ROI, "encoder"),
    (
        *ROI,
        Column("encoder", STRING, "id in encoders"),
        *IMAGE_SOURCE,
        Column("values", FLOATS, "one value a dimension; null where the ROI failed", nullable=True),
        Column("error", STRING, "why there are no values", nullable=True),
        RUN_TIME,
    ),
)

SEGMENTERS = TableSchema(
    "segmenters",
    "Trained U-Nets that draw masks, with whom they were trained on and how they did on others.",
    ("segmenter",),
    (
        Column("segmenter", STRING, "name-hash of settings and weights"),
        Column("sequence", STRING, "the sequence it is for"),
        Column("classes", STRINGS, "structure/level/side of output channels 1, 2, …; channel 0 is background"),
        Column("settings", STRING, "canonical JSON of the recipe"),
        Column("checkpoint_hash", STRING, "SHA-256 of the weights"),
        Column("origin", STRING, "trained, or trained_on_phantoms", values=("trained", "trained_on_phantoms")),
        Column("patients_seen", STRINGS, "site/patient_id it was trained on"),
        Column("patients_held_out", STRINGS, "site/patient_id the metrics are of; empty: nobody was held out"),
        Column("metrics", STRING, "JSON: held-out Dice and surface distances by class", nullable=True),
        RUN_TIME,
    ),
)

COHORTS = TableSchema(
    "cohorts",
    "A frozen, named list of patients with their partitions; a new freeze is a new version.",
    ("cohort", "version", "site", "patient_id"),
    (
        Column("cohort", STRING, "name"),
        Column("version", INT, "1, 2, …", low=1),
        *CASE,
        Column("partition", STRING, "given once, for ever", values=tuple(Partition)),
        Column("outcome", INT, "as labelled when frozen", low=0, high=1),
        Column("rule", STRING, "label rule"),
        Column("as_of", INT, "push sequence the cohort was frozen at", low=0),
    ),
)

SCORES = TableSchema(
    "scores",
    "Every answer given.",
    ("site", "score_id"),
    (
        *CASE,
        Column("score_id", STRING, "unique"),
        Column("kind", STRING, "signature kind", values=tuple(SignatureKind)),
        Column("signature", STRING, "content hash of the signature"),
        Column("probability", FLOAT, "calibrated risk", low=0, high=1),
        Column("high_risk", BOOL, "probability at or above the threshold"),
        Column("threshold", FLOAT, "the signature's stated threshold", low=0, high=1),
        Column("risk_low", FLOAT, "uncertainty of the risk: lower end", low=0, high=1, nullable=True),
        Column("risk_high", FLOAT, "its upper end; null without bootstraps", low=0, high=1, nullable=True),
        Column("moved_by", STRING, "JSON: the features that moved it most"),
        Column("asked_by", STRING, "name of the credential"),
        Column("asked_at", TIME, "when"),
        Column("as_of", INT, "push sequence of the features", low=0),
    ),
)

TRAINING_RUNS = TableSchema(
    "training_runs",
    "Every selection and training run.",
    ("run_id",),
    (
        Column("run_id", STRING, "unique, sorts by time"),
        Column("kind", STRING, "selection or training", values=("selection", "training")),
        Column("state", STRING, "how it ended", values=("running", "finished", "failed", "cancelled")),
        Column("cohort", STRING, "cohort name"),
        Column("version", INT, "cohort version"),
        Column("settings", STRING, "canonical JSON"),
        Column("artefacts", STRING, "JSON: name to content hash (selectors, signatures, report)"),
        Column("metrics", STRING, "JSON as metrics.json", nullable=True),
        Column("error", STRING, "why it failed", nullable=True),
        Column("started_at", TIME, "when"),
        Column("wall_s", FLOAT, "wall time", unit="s", nullable=True),
        RUN_TIME,
    ),
)

RELEASES = TableSchema(
    "releases",
    "Which signature is current: the latest row of a kind says.",
    ("release_id",),
    (
        Column("release_id", STRING, "unique, sorts by time"),
        Column("kind", STRING, "signature kind", values=tuple(SignatureKind)),
        Column("signature", STRING, "content hash; null after a recall with nothing before it", nullable=True),
        Column("run_id", STRING, "the run that made it", nullable=True),
        Column("recalled", STRING, "recall only: content hash that never comes back", nullable=True),
        Column("action", STRING, "what was done", values=("release", "rollback", "recall")),
        Column("reason", STRING, "why, in the releaser's words", nullable=True),
        Column("released_by", STRING, "who"),
        Column("released_at", TIME, "when"),
    ),
)

RETRAININGS = TableSchema(
    "retrainings",
    "One row a run that `asdeg retrain` decided about: released or left as a candidate, with every gate's figure.",
    ("retraining_id",),
    (
        Column("retraining_id", STRING, "unique, sorts by time"),
        Column("run_id", STRING, "the run that was judged"),
        Column("cohort", STRING, "cohort name"),
        Column("version", INT, "cohort version"),
        Column("decision", STRING, "what became of it", values=("released", "candidate")),
        Column("reason", STRING, "why"),
        Column("gates", STRING, "JSON: signature kind to its gates (name, verdict, bound, reason, figures)"),
        Column(
            "looks", INT, "finished runs that had shown figures of the cohort's held-out patients, this one included"
        ),
        Column("decided_by", STRING, "schedule, or who called"),
        Column("decided_at", TIME, "when"),
    ),
)

LOCKED_LOOKS = TableSchema(
    "locked_looks",
    "One row a look at the patients set aside (partition `locked_test`), written before the figures are given.",
    ("look_id",),
    (
        Column("look_id", STRING, "unique, sorts by time"),
        Column("look", INT, "1, 2, …: how often the store's locked patients had been looked at, this time included"),
        Column("run_id", STRING, "the run whose signatures were asked"),
        Column("cohort", STRING, "cohort name"),
        Column("version", INT, "cohort version"),
        Column("figures", STRING, "JSON: signature kind to its measures"),
        Column("reason", STRING, "why"),
        Column("looked_by", STRING, "who"),
        Column("looked_at", TIME, "when"),
    ),
)

WITHDRAWALS = TableSchema(
    "withdrawals",
    "One row a withdrawn case: why, by whom, and the last push that still had it.",
    _key(CASE),
    (
        *CASE,
        Column("reason", STRING, "in the site's words"),
        Column("withdrawn_by", STRING, "name of the credential, or of the user"),
        Column("withdrawn_at", TIME, "when"),
        Column("as_of", INT, "push sequence of the newest data that was withdrawn", low=0),
    ),
)

ERASURES = TableSchema(
    "erasures",
    "One row an erased patient, whom it names by a salted hash only; what was erased and what had used it.",
    ("erasure",),
    (
        Column("erasure", STRING, "unique"),
        Column("site", STRING, "the patient's site"),
        Column("patient_hash", STRING, "SHA-256 of salt, site and patient id: whoever has the id can find the row"),
        Column("salt", STRING, "of the hash"),
        Column(
            "state",
            STRING,
            "begun: nobody sees the patient, files are being cleaned; finished; readmitted: may be pushed again",
            values=("begun", "finished", "readmitted"),
        ),
        Column("reason", STRING, "no patient's name in it"),
        Column("erased_by", STRING, "name of the user"),
        Column("erased_at", TIME, "when nobody saw the patient any more"),
        Column("removed", STRING, "JSON: table to push to the number of its rows that went"),
        Column("touched", STRING, "JSON: cohorts, runs, signatures and nets that had used the patient; scores given"),
        Column("cleaned", STRING, "JSON: what was cleaned; null until it is finished", nullable=True),
        Column("finished_at", TIME, "when no byte was left", nullable=True),
        Column("readmitted_by", STRING, "name of the user", nullable=True),
        Column("consent", STRING, "why the patient may be pushed again", nullable=True),
    ),
)

PUSHES = TableSchema(
    "pushes",
    "The commit record: a push's rows are visible once its row is here; `sequence` orders revisions.",
    ("push_id",),
    (
        Column("push_id", STRING, "unique"),
        Column("sequence", INT, "1, 2, … without gaps, in commit order", low=1),
        Column("kind", STRING, "case, outcome, features, cohort, run, release, scores, …"),
        Column("source", STRING, "site or service that pushed"),
        Column("tables", STRING, "JSON: table to number of rows written"),
        Column("committed_at", TIME, "when"),
        RUN_TIME,
        Column("given_up", STRINGS, "pushes that died uncommitted and can no longer be committed", nullable=True),
    ),
)

TABLES: dict[str, TableSchema] = {
    schema.name: schema
    for schema in (
        CASES, SERIES, ROIS, QUALITY, CLINICAL, FOLLOW_UP, LABELS, SURGEON_READS, FEATURE_SETS, RADIOMICS,
        ENCODERS, EMBEDDINGS, SEGMENTERS, COHORTS, SCORES, TRAINING_RUNS, RELEASES, RETRAININGS, LOCKED_LOOKS,
        WITHDRAWALS, ERASURES, PUSHES,
    )
}  # fmt: skip
