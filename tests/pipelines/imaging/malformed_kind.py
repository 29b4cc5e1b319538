"""A kind of malformed input, and what reading it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feature_store.errors import (
    InputError,
)
from pipelines.imaging.images import check_image, load_image
from pipelines.imaging.masks import align_mask, read_mask

IMAGE, MASK = "image", "mask"


@dataclass(frozen=True)
class Kind:
    """``make`` writes into a folder; what it returns is the image's name there, or image and mask.

    ``says`` is a part of the message, so that the right rule refuses it.
    """

    error: type[InputError]
    says: str
    make: Callable[[Path], str | tuple[str, str] | None]
    sequence: str = ""
    series_number: int | None = None


def attempt(kind: Kind, folder: Path) -> InputError | None:
    """Make it and read it as a case does; the error it got, or None if it was taken."""
    made = kind.make(folder)
    image, mask = made if isinstance(made, tuple) else (made or IMAGE, None)
    try:
        loaded = load_image(folder / image, "sent", sequence=kind.sequence, series_number=kind.series_number)
        check_image(loaded.image, kind.sequence, "sent")
        if mask:
            align_mask(read_mask(folder / mask, "sent", loaded), loaded.image, "sent")
    except InputError as error:
        return error
    return None
