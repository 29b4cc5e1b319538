"""`asdeg store erase`, `readmit`, `optimize` and `asdeg audit` as people and programs call them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import infra.cli
from feature_store.audit import Act, AuditLog
from feature_store.control import ControlDatabase, Credential, default_url
from feature_store.errors import PatientErased
from feature_store.leases import Leases
from feature_store.optimize_alone import LEASE
from feature_store.store import FeatureStore
from tests.feature_store.examples import case, ids


def test_a_patient_is_erased_and_let_in_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = str(tmp_path / "store")
    store = FeatureStore.open(uri, create=True)
    for patient in ("p1", "p2"):
        store.push(case(patient), kind="case", source="a")
    control = ControlDatabase.open(default_url(uri))
    AuditLog(control).record(Credential("pacs", "site", "a"), Act("push", "a", "p1", ids("p1")["case_id"]))

    def run(*arguments: str, as_json: bool = True) -> Any:
        code = infra.cli.main(["--store", uri, *(["--json"] if as_json else []), *arguments])
        said = capsys.readouterr()
        return (code, json.loads(said.out)) if code == 0 and as_json else (code, said.out + said.err)

    code, verified = run("audit", "verify")
    assert (code, verified["rows"]) == (0, 1)
    assert [row["patient_id"] for row in run("audit", "list", "--site", "a")[1]] == ["p1"]
    erase = ("store", "erase", "p1", "--site", "a", "--reason", "request", "--grace-hours", "0")
    code, said = run(*erase)
    assert code == 2  # nobody is there to be asked
    assert "--yes" in said
    assert run("store", "erase", "p9", "--site", "a", "--yes")[0] == 1
    code, done = run(*erase, "--yes")
    assert (code, done["state"]) == (0, "finished")
    assert done["rows"]["clinical"] == 2
    code, said = run("store", "check")
    assert code == 1  # example cases have no images
    code, said = run("store", "check", "--since-last", as_json=False)
    assert (code, "Taken over from push 4, checked" in said) == (1, True)
    code, listed = run("withdrawals")
    assert [(row["change"], row["site"], row["case_id"]) for row in listed] == [("erased", "a", None)]
    assert run("audit", "verify", "--head", verified["head"])[1]["rows"] == 2
    assert [row["action"] for row in run("audit", "list")[1]] == ["push", "erase"]
    assert [row["forgotten"] for row in run("audit", "list")[1]] == [True, False]
    with pytest.raises(PatientErased):
        store.push(case("p1"), kind="case", source="a")
    assert run("store", "readmit", "p1", "--site", "a", "--consent", "signed anew")[1]["state"] == "readmitted"
    assert store.push(case("p1"), kind="case", source="a").written["cases"] == 1
    # a copy has no control database, and gets none
    place = str(tmp_path / "backup")
    assert run("store", "backup", place)[0] == 0
    assert infra.cli.main(["--store", place, "store", "erase", "p1", "--site", "a", "--yes", "--grace-hours", "0"]) == 0
    assert "Backups hold the patient" in capsys.readouterr().out
    assert not (tmp_path / "backup/control.sqlite").exists()


def test_whoever_optimises_second_says_who_is_at_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = str(tmp_path / "store")
    FeatureStore.open(uri, create=True).push(case("p1"), kind="case", source="a")
    with Leases(ControlDatabase.open(default_url(uri))).keep(LEASE, 60):
        assert infra.cli.main(["--store", uri, "--json", "store", "optimize"]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out) == []
        assert f"optimised by process {os.getpid()} on " in said.err
    assert infra.cli.main(["--store", uri, "--json", "store", "optimize"]) == 0
    assert "clinical" in [row["table"] for row in json.loads(capsys.readouterr().out)]
