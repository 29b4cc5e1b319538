"""Who used what has changed since: scores, cohorts, runs, signatures and nets of cases that were corrected, withdrawn
or erased.

A correction is a new revision of an image, a region, a mask or a clinical variable that was there before, or
another outcome than a cohort was frozen with. What comes for the first time (another series, new features) corrects
nothing. Features follow from images and masks and need no look of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from feature_store.erasures import erasures
from feature_store.schemas import TABLES
from feature_store.snapshot import Snapshot
from feature_store.vocabulary import SignatureKind

CORRECTABLE = ("series", "rois", "clinical")
NETS = (("encoders", "encoder"), ("segmenters", "segmenter"))
Change = Literal["corrected", "withdrawn", "erased"]


@dataclass(frozen=True)
class Touched:
    """A change, and what had used the case before it. ``case_id`` is None where the patient was erased."""

    change: Change
    site: str
    case_id: str | None
    reason: str
    changed_at: datetime
    scores: int
    cohorts: tuple[str, ...]
    runs: tuple[str, ...]
    signatures: tuple[str, ...]
    nets: tuple[str, ...]
    """Encoders and segmenters that were fitted on the patient."""
    score_ids: tuple[str, ...] = ()
    """The answers that ``scores`` counts, by id; none where the patient was erased, as they were with it."""

    @property
    def used(self) -> bool:
        """Whether anything had used the case."""
        return bool(self.scores or self.cohorts or self.nets)


def touched(snapshot: Snapshot, site: str | None = None) -> list[Touched]:
    """Every withdrawn case and erased patient, and every correction of a case that had been used; newest first.
    ``site`` limits it to one."""
    uses = _Uses(snapshot)
    found = [*_withdrawn(snapshot, uses), *(one for one in _corrected(snapshot, uses) if one.used), *_erased(snapshot)]
    mine = [one for one in found if site is None or one.site == site]
    return sorted(mine, key=lambda one: one.changed_at, reverse=True)


def users_of(snapshot: Snapshot, site: str, patient_id: str) -> dict[str, Any]:
    """What has used a patient, in whichever case: the fields of :class:`Touched`, as JSON has them."""
    found = _Uses(snapshot).of(site, patient_id)
    del found["score_ids"]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def changed_since(snapshot: Snapshot, site: str, patient_id: str, case_id: str, as_of: int) -> Change | None:
    """What became, after push ``as_of``, of the case that an answer of then was given for: withdrawn, corrected, or
    None."""
    where = {"site": site, "patient_id": patient_id, "case_id": case_id}
    withdrawn = snapshot.revisions("withdrawals", ["push_id"], where=where)["push_sequence"].to_pylist()
    if any(sequence > as_of for sequence in withdrawn):
        return "withdrawn"
    corrected = any(sequence > as_of for _, _, sequence, _ in _corrections(snapshot, where))
    return "corrected" if corrected else None


def touched_cohorts(snapshot: Snapshot) -> dict[str, list[str]]:
    """Cohorts that lost a member by erasure ("name v1"), with the ids of the erasures."""
    found: dict[str, list[str]] = {}
    for one in erasures(snapshot):
        for name in one.touched["cohorts"]:
            found.setdefault(name, []).append(one.erasure)
    return found


class _Uses:
    """Members, scores, runs and nets of a snapshot, to be asked who used a patient before some push."""

    def __init__(self, snapshot: Snapshot) -> None:
        columns = ["cohort", "version", "site", "patient_id", "case_id", "as_of", "outcome", "rule"]
        self.members = snapshot.table("cohorts", columns).to_pylist()
        self.scores = snapshot.table("scores", ["score_id", "site", "patient_id", "case_id", "as_of"]).to_pylist()
        self._runs = snapshot.table("training_runs", ["run_id", "cohort", "version", "artefacts"]).to_pylist()
        self._nets = list(_nets(snapshot))

    def of(self, site: str, patient_id: str, case_id: str | None = None, before: int | None = None) -> dict[str, Any]:
        """What used the patient (in that case) as of a push earlier than ``before``."""

        def mine(row: Mapping[str, Any]) -> bool:
            same = row["site"] == site and row["patient_id"] == patient_id
            return same and case_id in (None, row["case_id"]) and (before is None or row["as_of"] < before)

        return self.by(
            {(row["cohort"], row["version"]) for row in self.members if mine(row)},
            [row["score_id"] for row in self.scores if mine(row)],
            [
                name
                for name, seen, made in self._nets
                if f"{site}/{patient_id}" in seen and (before is None or made < before)
            ],
        )

    def by(
        self, cohorts: Iterable[tuple[str, int]], scores: Sequence[str] = (), nets: Sequence[str] = ()
    ) -> dict[str, Any]:
        """With the runs on these cohorts and their signatures."""
        versions = set(cohorts)
        used = [run for run in self._runs if (run["cohort"], run["version"]) in versions]
        made = {digest for run in used for digest in _signatures(run["artefacts"])}
        return {
            "scores": len(scores),
            "score_ids": tuple(sorted(scores)),
            "cohorts": tuple(f"{name} v{version}" for name, version in sorted(versions)),
            "runs": tuple(sorted(run["run_id"] for run in used)),
            "signatures": tuple(sorted(made)),
            "nets": tuple(sorted(set(nets))),
        }


def _withdrawn(snapshot: Snapshot, uses: _Uses) -> Iterator[Touched]:
    for row in snapshot.revisions("withdrawals").to_pylist():  # a case may come back, and be withdrawn again
        used = uses.of(row["site"], row["patient_id"], row["case_id"], before=row["push_sequence"])
        yield Touched("withdrawn", row["site"], row["case_id"], row["reason"], row["withdrawn_at"], **used)


def _erased(snapshot: Snapshot) -> Iterator[Touched]:
    for one in erasures(snapshot):
        used: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in one.touched.items()}
        yield Touched("erased", one.site, None, f"{one.reason} ({one.state})", one.erased_at, **used)


def _corrected(snapshot: Snapshot, uses: _Uses) -> Iterator[Touched]:
    asked = {(row["site"], row["patient_id"], row["case_id"]) for row in (*uses.members, *uses.scores)}
    if fitted := _nets_patients(snapshot):
        cases = snapshot.revisions("cases", ["site", "patient_id", "case_id"]).select(["site", "patient_id", "case_id"])
        asked |= {case for case in map(tuple, (row.values() for row in cases.to_pylist())) if case[:2] in fitted}
    sites = sorted({case[0] for case in asked})
    changes: dict[tuple[str, str, str], dict[int, tuple[datetime, set[str]]]] = {}
    for name, case, sequence, committed_at in _corrections(snapshot, {"site": sites}):
        if case in asked:
            changes.setdefault(case, {}).setdefault(sequence, (committed_at, set()))[1].add(name)
    for (site, patient_id, case_id), pushes in changes.items():
        newest = max(pushes)
        what = ", ".join(sorted(set().union(*(tables for _, tables in pushes.values()))))
        used = uses.of(site, patient_id, case_id, before=newest)
        yield Touched("corrected", site, case_id, f"another {what}", pushes[newest][0], **used)
    yield from _other_outcomes(snapshot, uses)


def _corrections(
    snapshot: Snapshot, where: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[str, str, str], int, datetime]]:
    """Table, case, push and time of every revision of something that was there before, made by whoever sent it."""
    kinds = snapshot.pushes["kind"].to_pylist()
    for name in CORRECTABLE:
        schema = TABLES[name]
        seen: set[tuple[Any, ...]] = set()
        for row in snapshot.revisions(name, schema.key, where=dict(where)).to_pylist():  # by key and push
            key = tuple(row[column] for column in schema.key)
            if key in seen and kinds[row["push_sequence"] - 1] not in ("withdrawal", "erasure"):
                yield name, (row["site"], row["patient_id"], row["case_id"]), row["push_sequence"], row["committed_at"]
            seen.add(key)


def _other_outcomes(snapshot: Snapshot, uses: _Uses) -> Iterator[Touched]:
    labels = {
        (row["site"], row["patient_id"], row["rule"]): row
        for row in snapshot.revisions("labels", ["site", "patient_id", "rule", "outcome"]).to_pylist()
    }  # the last one of a key stays
    found: dict[tuple[str, str, datetime], set[tuple[str, int]]] = {}
    for member in uses.members:
        label = labels.get((member["site"], member["patient_id"], member["rule"]))
        if label is not None and label["push_sequence"] > member["as_of"] and label["outcome"] != member["outcome"]:
            key = (member["site"], member["case_id"], label["committed_at"])
            found.setdefault(key, set()).add((member["cohort"], member["version"]))
    for (site, case_id, changed_at), cohorts in found.items():
        yield Touched("corrected", site, case_id, "another outcome", changed_at, **uses.by(cohorts))


def _nets(snapshot: Snapshot) -> Iterator[tuple[str, set[str], int]]:
    """Name, whom it was fitted on, and the push that made it known."""
    for table, key in NETS:
        for row in snapshot.revisions(table, [key, "patients_seen", "withdrawn"]).to_pylist():
            if not row["withdrawn"]:
                yield row[key], set(row["patients_seen"] or ()), row["push_sequence"]


def _nets_patients(snapshot: Snapshot) -> set[tuple[str, str]]:
    return {tuple(name.split("/", 1)) for _, seen, _ in _nets(snapshot) for name in seen if "/" in name}  # type: ignore[misc]


def _signatures(artefacts: str) -> Sequence[str]:
    return [digest for name, digest in json.loads(artefacts).items() if name in tuple(SignatureKind)]
