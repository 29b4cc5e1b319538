"""Checklists of reporting (TRIPOD+AI, CLEAR, METRICS), filled in from a run's own records.

Each item is met, not met, not applicable or unknown, with where to look or why. It is met only where the records
hold what it asks for; what records cannot know is unknown, and never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

State = Literal["met", "not met", "not applicable", "unknown"]
FILES = ("tripod_ai", "clear", "metrics")


class Item(BaseModel):
    """One line of a checklist file. Exactly one of ``there``, ``unknown``, ``not_applicable``.

    ``there``: paths into the records, all of which must lead to something (``*``: any key or entry): then it is met,
    and ``where`` in the report it stands; else ``otherwise`` ``because``. Nothing is met without a record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    item: str
    there: tuple[str, ...] = ()
    then: State = "met"
    where: str = ""
    otherwise: State = "not met"
    because: str = "the run has no such record"
    unknown: str = ""
    not_applicable: str = ""

    @model_validator(mode="after")
    def _one(self) -> Item:
        given = [self.there, self.unknown, self.not_applicable]
        if sum(bool(value) for value in given) != 1 or bool(self.there) != bool(self.where):
            raise ValueError(f"item {self.id} needs exactly one way to be answered")
        return self


class Checklist(BaseModel):
    """A checklist as its file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    items: tuple[Item, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Answer:
    """An item with its state, and where it is met or why it is not."""

    id: str
    item: str
    state: State
    where: str


def load() -> list[Checklist]:
    """All checklists, in the order they are shown."""
    folder = resources.files(__package__)
    return [
        Checklist.model_validate(yaml.safe_load(folder.joinpath(f"{name}.yaml").read_text("utf-8"))) for name in FILES
    ]


def answers(checklist: Checklist, records: Mapping[str, Any]) -> list[Answer]:
    """Every item held against ``records`` (``models.report.evidence`` says what is in them)."""
    return [Answer(item.id, item.item, *_judged(item, records)) for item in checklist.items]


def counted(found: Sequence[Answer]) -> dict[str, int]:
    """How many items are in each state."""
    states = [answer.state for answer in found]
    return {state: states.count(state) for state in ("met", "not met", "not applicable", "unknown")}


def _judged(item: Item, records: Mapping[str, Any]) -> tuple[State, str]:
    if item.unknown:
        return "unknown", item.unknown
    if item.not_applicable:
        return "not applicable", item.not_applicable
    if all(any(_found(records, path.split("."))) for path in item.there):
        return item.then, item.where
    return item.otherwise, item.because


def _found(value: Any, path: Sequence[str]) -> Iterator[bool]:
    """Whether something is there at the end of each way that ``path`` leads."""
    if not path:
        yield value is not None and value is not False and (not hasattr(value, "__len__") or len(value) > 0)
        return
    if isinstance(value, (list, tuple)) and path[0] == "*":
        for entry in value:
            yield from _found(entry, path[1:])
    elif isinstance(value, Mapping):
        keys = list(value) if path[0] == "*" else [path[0]]
        for key in keys:
            if key in value:
                yield from _found(value[key], path[1:])
