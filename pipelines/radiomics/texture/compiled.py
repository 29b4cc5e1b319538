"""How kernels are compiled: by Numba, once a machine, and again when any of them changes.

Numba keeps compiled functions beside their source and compiles them again when that one file changes. Kernels
call kernels of other files, whose code is built into theirs: after a change there the old code would go on
silently. So what is kept is stamped with the sources of all kernels.

Processes that compile at once may also keep their code under each other's name: Numba notes the name first and
writes the file afterwards. What is loaded is therefore looked at: it must be for the types it is called with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def _sources() -> str:
    """Hash of every file of this folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


SOURCES = _sources()


def kernel(function: Function) -> Function:
    """Compile the function on its first call and keep it for every process after this one."""
    dispatcher = njit(function)
    dispatcher.enable_caching()
    # insides of Numba 0.68, which pyproject.toml pins; tests/pipelines/radiomics/test_compiled.py holds it to that
    kept = dispatcher._cache
    kept._cache_file._source_stamp = (kept._cache_file._source_stamp, SOURCES)
    load = kept.load_overload

    def load_checked(types: Any, target: Any) -> Any:
        found = load(types, target)
        return found if found is None or tuple(found.signature.args) == tuple(types) else None

    kept.load_overload = load_checked
    return dispatcher
