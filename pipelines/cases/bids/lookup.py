"""A lookup table (``*_dseg.tsv``: index, name) as a label map, by the names that shipped label maps know.

BIDS lets every data set number as it likes, and asks for this table. A name means the same in every shipped map,
so the table's names say what its numbers mean, whatever those are.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from feature_store.errors import BidsError
from pipelines.cases.bids.tables import read_tsv
from pipelines.cases.label_map import LabelMap, MapLabel, shipped_label_map, shipped_names
from pipelines.imaging.masks import LARGEST_LABEL

BACKGROUND = frozenset({"background", "unknown"})


def read_lookup(path: Path, file: str) -> LabelMap:
    """The map that a lookup table makes. Names that no shipped map knows are left alone, unless it is all of them.

    Raises BidsError: columns missing, an index that is no whole number or stands twice, only unknown names.
    """
    names: dict[int, str] = {}
    for number, row in enumerate(read_tsv(path, ("index", "name"), file), 2):
        if not re.fullmatch("[0-9]{1,5}", row["index"]) or int(row["index"]) > LARGEST_LABEL:
            raise BidsError(
                f"row {number}: index must be a whole number up to {LARGEST_LABEL}.", action="Mend it.", file=file
            )
        index = int(row["index"])
        if index in names:
            raise BidsError(f"the index {index} stands twice.", action="Keep one row an index.", file=file)
        if index and _plain(row["name"]) not in BACKGROUND:
            names[index] = row["name"][:80] or str(index)
    known = _known()
    index_of = {_plain(name): index for index, name in names.items()}
    labels = {
        index: _renumbered(known[_plain(name)], index_of) for index, name in names.items() if _plain(name) in known
    }
    if not labels:
        raise BidsError(
            f"none of its {len(names)} names is one that a shipped label map has a structure for.",
            action="Give a label map of your own by --label-map FILE.yaml.",
            file=file,
        )
    return LabelMap(
        name="lookup-table",
        note="Made from a lookup table by the names of the shipped label maps.",
        labels=labels,
        also={index: name for index, name in names.items() if index not in labels},
        order=[index_of[name] for name in _order() if name in index_of],
    )


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


@functools.cache
def _known() -> dict[str, tuple[MapLabel, tuple[str, ...]]]:
    """Each name of a shipped map: its label, and the names of the vertebrae it lies between."""
    found = {}
    for shipped in map(shipped_label_map, shipped_names()):
        for label in shipped.labels.values():
            if label.name:
                between = tuple(_plain(shipped.own_name(n)) for n in label.between or ())
                found[_plain(label.name)] = (label, between)
    return found


@functools.cache
def _order() -> tuple[str, ...]:
    """Names of vertebrae from head to foot, from the shipped map that has an order."""
    (shipped,) = (found for found in map(shipped_label_map, shipped_names()) if found.order)
    return tuple(_plain(shipped.own_name(number)) for number in shipped.order)


def _renumbered(known: tuple[MapLabel, tuple[str, ...]], index_of: dict[str, int]) -> MapLabel:
    label, between = known
    numbers = [index_of[name] for name in between if name in index_of]
    return label.model_copy(update={"between": numbers if len(numbers) == 2 else None})
