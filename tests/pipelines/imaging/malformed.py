"""Malformed images and masks: every kind that is tried, how it is made, and the error it has to get.

``python -m tests.pipelines.imaging.malformed`` makes each of them and prints ``kind -> Error: message``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from pydicom.uid import JPEGLSLossless

from tests.pipelines.imaging.malformed_files import FILES, VALUES
from tests.pipelines.imaging.malformed_kind import Kind, attempt
from tests.pipelines.imaging.malformed_masks import DICOM_MASKS, LABEL_MAPS, a_seg, a_structure_set
from tests.pipelines.imaging.malformed_series import SERIES, a_multi_frame, a_series

WHOLE: dict[str, Callable[[Path], tuple[str, str] | None]] = {
    "classic": a_series(),
    "JPEG-LS": a_series(syntax=JPEGLSLossless),
    "multi-frame": a_multi_frame(),
    "SEG": a_seg(),
    "RTSTRUCT": a_structure_set(),
}
"""Nothing wrong with these: what damage is tried on."""

KINDS: dict[str, Kind] = {**FILES, **VALUES, **SERIES, **LABEL_MAPS, **DICOM_MASKS}


def _print() -> None:
    for name, kind in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            case = Path(folder) / "case"
            case.mkdir()
            error = attempt(kind, case)
        print(f"{name} -> {f'{error.code}: {error.message}' if error else 'TAKEN'}")
    print(f"{len(KINDS)} kinds")


if __name__ == "__main__":
    _print()
