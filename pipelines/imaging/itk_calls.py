"""Calls into ITK: silent, and failing with our errors only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import SimpleITK as sitk

from feature_store.errors import InputError

T = TypeVar("T")


def itk_call(call: Callable[[], T], error: type[InputError], message: str, file: str, action: str = "") -> T:
    """Run ``call`` without ITK's warnings on stderr; what it throws becomes ``error``.

    ITK's own text is left out of the message: it holds paths of the machine.
    """
    loud = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return call()
    except (RuntimeError, MemoryError, ValueError) as thrown:
        kind = "not enough memory" if isinstance(thrown, MemoryError) else message
        raise error(
            f"{kind}.", action=action or "Open it in a viewer, and export it again as NIfTI or NRRD.", file=file
        ) from thrown
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(loud)
