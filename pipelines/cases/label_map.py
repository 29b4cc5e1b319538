"""Label maps: a named file that says what the label numbers of a segmentation tool or of a site stand for.

A map names many labels that one image does not hold; :meth:`LabelMap.read` says what those that are there mean.
What lies outside the vocabulary (organs, and the levels of transitional anatomy: T13, L6) is listed under
``also`` and left alone. A label that stands for vertebrae or discs of every level at once has the level
``unknown``: ``all`` would claim to be the union of L1 to L5, and such a label holds what else is in view.
A site whose label does hold exactly L1 to L5 writes ``level: all`` in a map of its own.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from feature_store.errors import LabelMapError
from feature_store.vocabulary import STRUCTURES, UNKNOWN, StructureKind
from pipelines.cases.broken_rules import broken_rule, key_path
from pipelines.cases.label_meaning import LabelMeaning, LabelNumber, Strict
from pipelines.cases.rois import LabelName
from pipelines.cases.strict_yaml import read_strict_yaml

SHIPPED = Path(__file__).parent / "label_maps"
YAML = (".yaml", ".yml")
NAMES_IN_A_NOTE = 6
"""More names than these are counted, not listed."""

MapName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
OwnName = Annotated[str, Field(min_length=1, max_length=80)]


class MapLabel(LabelMeaning):
    """One label. ``name`` is the numbering's own word for it.

    ``between`` (discs, optional) are the numbers of the vertebrae above and below: the level holds only where
    the next vertebra below, of those in the mask, is the one named here.
    """

    name: OwnName | None = None
    between: list[LabelNumber] | None = None


class LabelMap(Strict):
    """A numbering: where it comes from, what its labels mean, and which others it knows.

    ``order`` lists vertebrae from head to foot, with those outside the vocabulary, for ``between``.
    """

    name: MapName
    note: Annotated[str, Field(min_length=1, max_length=4000)]
    labels: dict[LabelNumber, MapLabel]
    also: dict[LabelNumber, OwnName] = Field(default_factory=dict)
    order: list[LabelNumber] = Field(default_factory=list)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> LabelMap:
        if not self.labels:
            raise ValueError("needs at least one label")
        if both := sorted(set(self.labels) & set(self.also)):
            raise ValueError(f"has a number both under labels and under also ({both[0]})")
        for number, label in self.labels.items():
            if label.between is None:
                continue
            if STRUCTURES[label.structure] is not StructureKind.DISC:
                raise ValueError(f"has a `between` at a label that is no disc ({number})")
            places = [self.order.index(n) for n in label.between if n in self.order]
            if len(label.between) != 2 or len(places) != 2 or places[0] >= places[1]:
                raise ValueError(f"needs two numbers of `order`, upper first, in every `between` (label {number})")
        return self

    @property
    def id(self) -> str:
        """Name and eight hex digits over what the labels mean; the note does not count."""
        meaning = self.model_dump(mode="json", exclude={"name", "note"})
        return f"{self.name}-{hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:8]}"

    @property
    def shipped(self) -> bool:
        """Whether it comes with the software."""
        return self.name in shipped_names() and self.id == shipped_label_map(self.name).id

    @property
    def tells_levels(self) -> bool:
        """Whether any label has a level; numbers that are only counted, or stand for all at once, tell none."""
        return any(label.level != UNKNOWN for label in self.labels.values())

    def own_name(self, number: int) -> str:
        """The numbering's own word for a label, or the number where it has none."""
        if number in self.labels:
            return self.labels[number].name or str(number)
        return self.also.get(number, str(number))

    def read(self, present: Iterable[int]) -> tuple[dict[int, LabelName], list[str]]:
        """What the numbers of a mask (0 is none) mean, and notes on those that are left alone."""
        numbers = sorted(int(number) for number in set(present) if number)
        named = {n: self.labels[n].label_name for n in numbers if n in self.labels}
        notes = []
        for number in [n for n in named if self._misplaced(n, numbers)]:
            level = named.pop(number).level
            notes.append(
                f"label {number} ({self.own_name(number)}) is left alone: the next vertebra below it in the mask "
                f"is not the one of {level} (transitional anatomy?)"
            )
        outside = [n for n in numbers if n in self.also]
        if outside:
            outside.sort(key=lambda n: (n not in self.order, n))  # T13 and L6 before the organs
            notes.append(
                f"{len(outside)} labels of {self.name} outside the vocabulary are left alone: "
                + _listed([self.also[n] for n in outside])
            )
        if unknown := [str(n) for n in numbers if n not in self.labels and n not in self.also]:
            notes.append(f"{len(unknown)} labels that {self.name} does not know are left alone: {_listed(unknown)}")
        return named, notes

    def _misplaced(self, number: int, present: list[int]) -> bool:
        between = self.labels[number].between
        if between is None:
            return False
        below = self.order[self.order.index(between[0]) + 1 :]
        return next((n for n in below if n in present), between[1]) != between[1]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_IN_A_NOTE} more" if len(names) > NAMES_IN_A_NOTE else ""
    return ", ".join(names[:NAMES_IN_A_NOTE]) + more


def read_label_map(path: Path, file: str | None = None) -> LabelMap:
    """A label map file. Raises LabelMapError for the first rule it breaks; ``file`` is its name in errors."""
    file = file or path.name
    raw = read_strict_yaml(path, LabelMapError, file)
    try:
        return LabelMap.model_validate(raw)
    except ValidationError as thrown:
        fault = thrown.errors(include_url=False, include_input=False, include_context=False)[0]
        where = key_path(fault["loc"]) or "the map"
        raise LabelMapError(
            f"{where} {broken_rule(fault['type'], fault['msg'])}.",
            action="Mend that key; `asdeg label-maps NAME` prints one to compare with.",
            file=file,
        ) from None


def shipped_names() -> list[str]:
    """Names of the maps that come with the software."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


@functools.cache
def shipped_label_map(name: str) -> LabelMap:
    """A map that comes with the software. Raises LabelMapError."""
    if name not in shipped_names():
        raise LabelMapError(
            "there is no label map of that name.",
            action=f"Names are {', '.join(shipped_names())}; or name a .yaml file of your own.",
        )
    return read_label_map(SHIPPED / f"{name}.yaml")


def named_label_map(written: str) -> LabelMap:
    """What a user names: a shipped map, or a .yaml file. Raises LabelMapError."""
    return read_label_map(Path(written)) if written.endswith(YAML) else shipped_label_map(written)
