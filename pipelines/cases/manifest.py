"""Reading ``case.yaml``: as a whole, or what of it can be used.

:func:`load_manifest` takes a manifest as a whole or not at all. :func:`read_manifest` drops the single
variable, series or label that breaks a rule, says so, and keeps the rest of the case. Messages name keys and
rules, never values. Calendar dates end here: :func:`day_offsets` turns them into days from the index date.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from feature_store.errors import LabelMapError, ManifestError
from pipelines.cases.broken_rules import broken_rule, key_path
from pipelines.cases.label_map import YAML, LabelMap, read_label_map, shipped_label_map
from pipelines.cases.manifest_schema import CaseManifest, SeriesEntry, case_id, inside
from pipelines.cases.strict_yaml import read_strict_yaml

__all__ = ["MANIFEST", "CaseManifest", "case_id", "day_offsets", "load_manifest", "read_manifest", "resolve_inside"]

MANIFEST = "case.yaml"


def load_manifest(case_dir: Path) -> CaseManifest:
    """The manifest of a case folder. Raises ManifestError for the first rule it breaks."""
    manifest, errors = read_manifest(case_dir)
    if errors:
        raise errors[0]
    return manifest


def read_manifest(case_dir: Path) -> tuple[CaseManifest, list[ManifestError]]:
    """The usable part of a manifest, and an error for each clinical variable, series or label left out.

    Raises ManifestError where nothing can be kept: no YAML, unknown keys at the top, patient, site or
    index date missing or wrong, no series at all.
    """
    raw = read_strict_yaml(case_dir / MANIFEST, ManifestError, MANIFEST)
    if not raw.get("series"):
        raise _error(("series",), "needs at least one entry with sequence and image")
    if raw.get("clinical", ...) is None:
        del raw["clinical"]  # the key stands there with nothing under it
    entries = raw["series"]
    kept = dict(enumerate(entries)) if isinstance(entries, list) else {}
    errors: list[ManifestError] = []
    for place in list(kept):
        try:
            kept[place] = _with_label_map(case_dir, kept[place], place)
        except ManifestError as error:
            errors.append(error)
            del kept[place]
    while True:
        places = list(kept)
        tried = {**raw, "series": [kept[place] for place in places]} if kept or isinstance(entries, list) else raw
        try:
            manifest = CaseManifest.model_validate(tried)
        except ValidationError as thrown:
            for fault in thrown.errors(include_url=False, include_input=False, include_context=False):
                loc = fault["loc"]
                if loc[0] == "series" and len(loc) > 1:
                    loc = ("series", places[int(loc[1])], *loc[2:])
                errors.append(_error(loc, broken_rule(fault["type"], fault["msg"])))
                if not _drop(raw, kept, loc):
                    raise errors[-1] from None
            continue
        break
    clashes = _clashes(manifest.series)
    errors += [_error(("series", places[i]), rule) for i, rule in clashes.items()]
    series = [entry for i, entry in enumerate(manifest.series) if i not in clashes]
    return manifest.model_copy(update={"series": series}), errors


def _with_label_map(case_dir: Path, entry: Any, place: int) -> Any:
    """The entry with the map it names under ``labels``: a shipped one, or a file of the case folder."""
    if not isinstance(entry, dict):
        return entry
    if "label_map" in entry:
        raise _error(("series", place, "label_map"), "is no key that is known here")
    if not isinstance(entry.get("labels"), str):
        return entry
    rest = {key: value for key, value in entry.items() if key != "labels"}
    return {**rest, "label_map": _label_map(case_dir, entry["labels"], place)}


def _label_map(case_dir: Path, named: str, place: int) -> LabelMap:
    where = key_path(("series", place, "labels"))
    if not named.endswith(YAML):
        try:
            return shipped_label_map(named)
        except LabelMapError as error:
            raise LabelMapError(f"{where}: {error.message}", action=error.action, file=MANIFEST) from None
    try:
        inner = inside(named)
    except ValueError as error:
        raise LabelMapError(f"{where} {error}.", action="Put the map into the case folder.", file=MANIFEST) from None
    return read_label_map(resolve_inside(case_dir, inner, where), inner)


def _drop(raw: dict[Any, Any], kept: dict[int, Any], loc: tuple[int | str, ...]) -> bool:
    """Take out the smallest part that holds the fault; False where the case cannot do without it."""
    if loc[0] == "clinical" and len(loc) > 1:
        raw["clinical"] = {k: v for k, v in raw["clinical"].items() if str(k) != str(loc[1])}
        return True
    if loc[0] != "series" or len(loc) < 2:
        return False
    place = int(loc[1])
    entry = kept.get(place)
    if len(loc) > 3 and loc[2] in ("labels", "scanner") and isinstance(entry, dict):
        part = str(loc[2])
        kept[place] = {**entry, part: {k: v for k, v in entry[part].items() if str(k) != str(loc[3])}}
    else:
        kept.pop(place, None)
    return True


def _clashes(series: Sequence[SeriesEntry]) -> dict[int, str]:
    """Entries that contradict an earlier one: by position, the rule they break."""
    images: dict[str, tuple[str, int | None]] = {}
    drawn: set[tuple[str, str, str]] = set()
    clashes: dict[int, str] = {}
    for i, entry in enumerate(series):
        keys = {(entry.sequence, entry.segmentation, label.structure) for label in entry.labels.values()}
        image = (entry.image, entry.series_number)
        if images.setdefault(entry.sequence, image) != image:
            clashes[i] = "names another image for a sequence that has one (a case has one image a sequence)"
        elif keys & drawn:
            clashes[i] = "draws a structure again: give a repeated segmentation a name of its own in `segmentation`"
        else:
            drawn |= keys
    return clashes


def _error(loc: tuple[int | str, ...], rule: str) -> ManifestError:
    return ManifestError(f"{key_path(loc)} {rule}.", action="Mend that key and send the case again.", file=MANIFEST)


def resolve_inside(case_dir: Path, inner: str, key: str) -> Path:
    """Where a manifest's path leads. Raises ManifestError where a link leads out of the case folder."""
    home = case_dir.resolve()
    path = home / inner
    try:
        members = [path, *path.rglob("*")] if path.is_dir() else [path]
        inside = all(member.resolve().is_relative_to(home) for member in members)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        inside = False
    if not inside:
        raise ManifestError(
            f"{key} leads out of the case folder by a link, or cannot be opened.",
            action="Put the file itself there.",
            file=MANIFEST,
        )
    return path


def day_offsets(index: date | None, studies: Sequence[date | None]) -> list[int | None]:
    """Imaging days relative to the index date; where it is not known yet, the latest study stands in for it."""
    known = [study for study in studies if study is not None]
    day_zero = index or max(known, default=None)
    return [None if study is None or day_zero is None else (study - day_zero).days for study in studies]
