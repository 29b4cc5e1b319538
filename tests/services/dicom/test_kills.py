"""Acknowledged instances survive a SIGKILL at any instant, and a killed assembly is done again."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.services.dicom.doors import Doors
from tests.services.dicom.studies import ct_study, ct_with_mask

KILLS = 10


def test_what_was_acknowledged_is_there_after_every_kill(tmp_path: Path) -> None:
    study = [*ct_with_mask(), *ct_study("SECRET-2", slices=30, study="1.2.5", series="1.2.5.1", seed=3)]
    whole = Doors(tmp_path / "whole")
    whole.take(*study)
    whole.assembled()
    (tmp_path / "killed/keys").mkdir(parents=True)
    for name in ("site_a", "site_b"):
        (tmp_path / f"killed/keys/{name}.key").write_bytes((tmp_path / f"whole/keys/{name}.key").read_bytes())
        (tmp_path / f"killed/keys/{name}.key").chmod(0o600)
    (tmp_path / "study").write_bytes(pickle.dumps(study))

    taken = _killed(tmp_path, "take", KILLS, 0.02)
    acknowledged = taken["acknowledged"]
    assert acknowledged
    assert taken["finished"] < KILLS
    killed = Doors(tmp_path / "killed")
    there = sum(len(case.names()) for case in killed.staging.cases())
    assert there >= len(acknowledged)
    assert set(killed.take(*(study[i] for i in acknowledged))) == {0}  # each is here whole, with the same content
    assert sum(len(case.names()) for case in killed.staging.cases()) == there

    killed.take(*study)
    assert _killed(tmp_path, "assemble", 2, 0.3)["finished"] < 2
    killed.assembled()
    assert killed.assembled() == []
    assert killed.case_rows() == whole.case_rows()
    assert {status.state for status in killed.handler.cases()} == {"validated"}


def _killed(folder: Path, job: str, kills: int, longest: float) -> dict[str, list[int]]:
    command = [sys.executable, "-m", "tests.services.dicom.killed", str(folder), job, str(kills), str(longest)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found
