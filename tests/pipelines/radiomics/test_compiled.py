"""A kernel kept from before is never used once another kernel's file has changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pipelines.radiomics.texture as texture

HELPER = """
from pipelines.radiomics.texture.compiled import kernel
@kernel
def plus(a):
    return a + {step}
"""
CALLER = """
from helper import plus
from pipelines.radiomics.texture.compiled import kernel
@kernel
def twice(a):
    return plus(plus(a))
"""
RUN = """
import caller
print(caller.twice(1.0), caller.twice({whole}), sum(caller.twice.stats.cache_hits.values()))
"""


def test_code_that_does_not_fit_is_not_used(tmp_path: Path) -> None:
    # the package as it is, in a place of its own, with two small kernels beside it
    for name in ("", "radiomics", "radiomics/texture"):
        (tmp_path / "pipelines" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "pipelines" / name / "__init__.py").touch()
    folder = tmp_path / "pipelines" / "radiomics" / "texture"
    shutil.copy(Path(texture.__file__).parent / "compiled.py", folder)
    (folder / "caller.py").write_text(CALLER)

    def run(step: int, whole: int = 1) -> list[str]:
        (folder / "helper.py").write_text(HELPER.format(step=step))
        environment = {"PYTHONPATH": f"{tmp_path}:{folder}", "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-c", RUN.format(whole=whole)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
        return done.stdout.split()

    assert run(1) == ["3.0", "3", "0"]
    assert run(1) == ["3.0", "3", "2"]
    # two processes that compile at once can leave each other's code under their names
    one, other = sorted((folder / "__pycache__").glob("caller.twice-*.nbc"))
    one.rename(tmp_path / "kept")
    other.rename(one)
    (tmp_path / "kept").rename(other)
    assert run(1, whole=7)[:2] == ["3.0", "9"]
    # Numba alone would find `twice` in its cache, with the old helper inside
    assert run(50) == ["101.0", "101", "0"]
