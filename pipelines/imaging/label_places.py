"""A label map that is filled label by label, and that notices when two of them want the same voxel."""

from __future__ import annotations

import numpy as np

from feature_store.errors import MaskUnreadable

LARGEST_LABEL = 65535


class LabelPlaces:
    """Voxels (z, y, x; uint16) of an image of ``size`` (x, y, z)."""

    def __init__(self, size: tuple[int, ...], file: str) -> None:
        self._voxels = np.zeros(size[::-1], dtype=np.uint16)
        self._file = file
        self._shared: dict[tuple[int, int], int] = {}

    def add(self, label: int, index: np.ndarray) -> None:
        """Give the voxels at ``index`` (n, 3; x, y, z) to a label. Raises MaskUnreadable for an impossible number."""
        if not 1 <= label <= LARGEST_LABEL:
            raise MaskUnreadable(
                f"a region has the number {label}, which is no label.",
                action=f"Number the regions from 1 to {LARGEST_LABEL}.",
                file=self._file,
            )
        places = (index[:, 2], index[:, 1], index[:, 0])
        before = self._voxels[places]
        for other in np.unique(before[(before != 0) & (before != label)]):
            pair = (min(int(other), label), max(int(other), label))
            self._shared[pair] = self._shared.get(pair, 0) + int(np.count_nonzero(before == other))
        self._voxels[places] = label

    def voxels(self) -> np.ndarray:
        """The filled map. Raises MaskUnreadable where labels overlap."""
        if self._shared:
            (one, two), count = max(self._shared.items(), key=lambda item: item[1])
            more = len(self._shared) - 1
            raise MaskUnreadable(
                f"regions overlap: {count} voxels lie in {one} and in {two}"
                + (f", and {more} more pairs overlap." if more else "."),
                action="Declare only regions that do not overlap, or send each as a mask of its own.",
                file=self._file,
            )
        return self._voxels
