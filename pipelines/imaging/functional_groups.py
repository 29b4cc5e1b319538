"""A frame's header: what its own functional groups say, before the shared ones, before the top of the file.

Enhanced multi-frame objects (DICOM PS3.3 C.7.6.16) keep per frame what a classic file keeps at its top. Each
group is a sequence of one item, so one flat look-up by keyword serves both; the attributes used here have the
same keyword in whichever group they stand.
"""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset


class FrameHeader:
    """Look-ups for one frame; of a classic file there is one."""

    def __init__(self, dataset: Dataset, own: dict[str, Any], shared: dict[str, Any]) -> None:
        self._dataset, self._own, self._shared = dataset, own, shared

    def get(self, *keywords: str) -> Any:
        """The first of the keywords that has a value; None where none has."""
        for keyword in keywords:
            for group in (self._own, self._shared):
                if not _absent(group.get(keyword)):
                    return group[keyword]
            value = self._dataset.get(keyword)
            if not _absent(value):
                return value
        return None

    def text(self, *keywords: str) -> str:
        """As text without surrounding blanks; '' where there is none."""
        value = self.get(*keywords)
        return "" if value is None else str(value).strip()

    def texts(self, *keywords: str) -> tuple[str, ...]:
        """A multi-valued text, in capitals."""
        value = self.get(*keywords)
        if value is None:
            return ()
        parts = [value] if isinstance(value, str) else list(value)
        return tuple(str(part).strip().upper() for part in parts)

    def numbers(self, count: int, *keywords: str) -> tuple[float, ...] | None:
        """Exactly that many finite numbers, or None."""
        value = self.get(*keywords)
        if value is None:
            return None
        parts = list(value) if not isinstance(value, str) and hasattr(value, "__iter__") else [value]
        try:
            found = tuple(float(part) for part in parts)
        except (TypeError, ValueError):
            return None
        return found if len(found) == count and all(abs(one) < 1e30 for one in found) else None

    def number(self, *keywords: str) -> float | None:
        """One finite number, or None."""
        found = self.numbers(1, *keywords)
        return found[0] if found else None


def frame_headers(dataset: Dataset) -> list[FrameHeader]:
    """One header a frame. Empty where a multi-frame file does not have a functional group item for each frame."""
    count = int(dataset.get("NumberOfFrames") or 1)
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared_items = dataset.get("SharedFunctionalGroupsSequence") or []
    shared = _flat(shared_items[0]) if shared_items else {}
    if not own and count == 1:
        return [FrameHeader(dataset, {}, shared)]
    if len(own) != count:
        return []
    return [FrameHeader(dataset, _flat(item), shared) for item in own]


def _flat(item: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for group in item:
        if group.VR == "SQ" and group.value:
            for element in group.value[0]:
                if element.VR != "SQ" and element.keyword:
                    found.setdefault(element.keyword, element.value)
        elif group.keyword:
            found.setdefault(group.keyword, group.value)
    return found


def _absent(value: Any) -> bool:
    return value is None or (hasattr(value, "__len__") and len(value) == 0)
