"""The command line as people and programs meet it: help, exit codes, one line on stderr, JSON."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer.main

import infra.cli
from feature_store.control import ControlDatabase, default_url
from infra.cli.app import build
from pipelines.phantom import PhantomCohort, write_phantom_cohort
from tests.services.study_store import study_store

HEAVY = (
    "torch",
    "ray",
    "pandas",
    "sklearn",
    "SimpleITK",
    "pyarrow",
    "deltalake",
    "sqlalchemy",
    "fastapi",
    "matplotlib",
)


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    group = typer.main.get_command(build()) if group is None else group
    for name, found in group.commands.items():
        yield (*path, name), found
        if hasattr(found, "commands"):
            yield from commands(found, (*path, name))


ALL = dict(commands())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASDEG_STORE", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = infra.cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> PhantomCohort:
    return write_phantom_cohort(tmp_path_factory.mktemp("phantoms") / "cohort", patients=2, sites=1, broken=True)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example(run: Any, path: tuple[str, ...]) -> None:
    code, out, _ = run(*path, "--help")
    assert code == 0
    assert f"Example: asdeg {path[0]}" in " ".join(out.split())
    if not hasattr(ALL[path], "commands"):
        assert "--store" in out
        assert "--json" in out


def test_the_promised_commands_are_there() -> None:
    promised = "demo phantom validate ingest outcomes extract radiomics select train study cases runs releases report release rollback recall serve score doctor"  # noqa: E501
    assert {(name,) for name in promised.split()} <= set(ALL)
    assert {("keys", "add"), ("keys", "list"), ("store", "sql")} <= set(ALL)


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = f"import sys, infra.cli; infra.cli.main(['--help']); print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ingest",), 2),
        (("nonsense",), 2),
        (("score", "p", "--site", "a", "--kind", "best"), 2),
        (("ingest", "nowhere", "--site", "a"), 2),
        (("keys", "add", "pacs", "--role", "site"), 2),
        (("cases",), 1),
        (("report", "no-run"), 1),
    ],
)
def test_a_failure_is_one_line_on_stderr(run: Any, arguments: tuple[str, ...], code: int) -> None:
    found, out, err = run(*arguments)
    assert found == code
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


def test_an_unexpected_failure_says_where_and_never_what_a_patient_has(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of a foreign exception quotes what it choked on, which may be a patient's: shown only when asked for."""

    def broken(*_: object, **__: object) -> None:
        float("Jane Doe")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space", "/cases/Jane Doe/ct.nii.gz")

    monkeypatch.setattr("infra.cli.session.Session.house", broken)
    code, out, err = run("cases")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith(f"Unexpected: ValueError at {__file__}:{broken.__code__.co_firstlineno + 1}.")
    assert "ASDEG_DEBUG=1" in err
    assert "Jane" not in err
    monkeypatch.setattr("infra.cli.session.Session.house", full)
    err = run("cases")[2]
    assert err.startswith("Unexpected: OSError (No space left on device) at ")
    assert "Jane" not in err
    monkeypatch.setenv("ASDEG_DEBUG", "1")
    with pytest.raises(OSError, match="Jane"):
        run("cases")


def test_a_case_goes_in_by_command(run: Any, phantoms: PhantomCohort, tmp_path: Path) -> None:
    case = phantoms.cases[0]
    assert run("validate", case.folder)[0] == 0
    store = tmp_path / "elsewhere"
    code, out, _ = run("--store", store, "ingest", case.folder, "--site", case.site, "--json")
    assert code == 0
    assert [row["state"] for row in json.loads(out)] == ["validated"]
    code, out, err = run("ingest", case.folder, "--site", case.site, "--store", store)
    assert code == 0
    assert "1 unchanged" in err
    assert [row["case_id"] for row in json.loads(run("cases", "--store", store, "--json")[1])]
    answer = run("store", "sql", "select count(*) as n from series", "--store", store, "--json")
    assert json.loads(answer[1]) == [{"n": 4}]
    outcomes = run("outcomes", phantoms.outcome_files[case.site], "--site", case.site, "--store", store)
    assert outcomes[0] == 1  # the file names a patient whose case is not here
    assert "There is no case of this patient" in outcomes[1]


def test_a_site_that_is_not_the_cases_own(run: Any, phantoms: PhantomCohort) -> None:
    code, out, err = run("ingest", phantoms.cases[0].folder, "--site", "other")
    assert code == 1
    assert "AccessDenied" in out
    assert "0 cases stored, 0 unchanged, 1 rejected." in err


def test_a_broken_case_is_described_and_counts_as_failure(run: Any, phantoms: PhantomCohort) -> None:
    code, out, err = run("validate", phantoms.broken[0].folder)
    assert code == 1
    assert "InputError" in err
    assert out.count("\n  ") >= 1


def test_keys_are_shown_once(run: Any) -> None:
    code, key, _ = run("keys", "add", "pacs", "--role", "site", "--site", "a")
    assert code == 0
    _, listed, _ = run("keys", "list", "--json")
    assert json.loads(listed) == [{"name": "pacs", "role": "site", "site": "a"}]
    assert key.strip() not in listed
    assert run("keys", "add", "pacs", "--role", "application")[0] == 1  # the name is taken
    control = ControlDatabase.open(default_url("asdeg-store"))
    assert control.who(key.strip()) is not None
    assert run("keys", "remove", "pacs")[0] == 0
    assert control.who(key.strip()) is None
    assert run("keys", "remove", "pacs")[0] == 1


def test_the_store_is_looked_at_as_it_was(run: Any, tmp_path: Path) -> None:
    study_store(tmp_path / "asdeg-store", patients=2)
    query, now = ("store", "sql", "select count(*) n from cases", "--json"), datetime.now(UTC)
    assert json.loads(run(*query, "--as-of", now.isoformat())[1]) == json.loads(run(*query)[1]) != [{"n": 0}]
    for early in ("0", (now - timedelta(days=1)).isoformat()):
        assert json.loads(run(*query, "--as-of", early)[1]) == [{"n": 0}]
    for wrong in ("yesterday", "99", now.replace(tzinfo=None).isoformat()):
        code, _, err = run(*query, "--as-of", wrong)
        assert (code, err.split(":")[0]) == (2, "UsageError")


def test_a_withdrawal_by_command_is_on_record(run: Any, phantoms: PhantomCohort) -> None:
    case = phantoms.cases[0]
    run("ingest", case.folder, "--site", case.site)
    assert run("withdraw", case.patient_id, "--site", case.site, "--reason", "wrong side")[0] == 0
    done = [entry["details"]["route"] for entry in json.loads(run("audit", "list", "--json")[1])]
    assert done == ["asdeg ingest", "asdeg withdraw"]
    code, _, err = run("store", "export", "study", "--out", "no/such/place.parquet")
    assert (code, err.split(":")[0]) == (2, "UsageError")


def test_a_broken_query_is_a_named_failure(run: Any, tmp_path: Path) -> None:
    study_store(tmp_path / "asdeg-store", patients=2)
    code, _, err = run("store", "sql", "selec nothing")
    assert code in (1, 2)
    assert "Unexpected" not in err


@pytest.mark.cores
def test_select_train_release_score_report(run: Any, tmp_path: Path) -> None:
    study_store(tmp_path / "asdeg-store", patients=24)
    (tmp_path / "cohort.yaml").write_text("name: cli\nexternal_sites: [b]\n")
    code, out, err = run("select", "--cohort", "cohort.yaml", "--grid", "quick", "--json")
    assert code == 0, err
    selection = json.loads(out)["run_id"]
    alone = ("--permutations", "0", "--bootstraps", "2")
    code, out, err = run("train", "--selection-run", selection, "--grid", "quick", *alone, "--json")
    assert code == 0, err
    run_id = json.loads(out)["run_id"]
    assert [row["run_id"] for row in json.loads(run("runs", "--json")[1])] == [selection, run_id]
    assert run("score", "b001", "--site", "b")[0] == 1  # nothing is released by training
    assert run("release", run_id, "--reason", "tests")[0] == 0
    code, out, _ = run("score", "b001", "--site", "b", "--kind", "rad", "--json")
    assert code == 0
    assert 0 < json.loads(out)["probability"] < 1
    low, high = json.loads(out)["risk_interval"]
    assert (
        f"uncertainty of the risk: {low:.1%} to {high:.1%}" in run("score", "b001", "--site", "b", "--kind", "rad")[1]
    )
    assert json.loads(run("store", "sql", "select kind from scores", "--json")[1]) == [{"kind": "rad"}] * 2
    assert len(json.loads(run("releases", "--json")[1])) == 3
    assert json.loads(run("report", run_id, "--out", "out", "--json")[1])["looks"] == 1
    assert (tmp_path / "out/report.html").stat().st_size > 10_000
    signature = json.loads(out)["signature"]
    assert run("withdraw", "b001", "--site", "b", "--reason", "wrong side")[0] == 0
    assert [row["changes_since"] for row in json.loads(run("runs", "--json")[1])] == [1, 1]
    assert run("recall", signature[:12])[0] == 0
    assert run("score", "b001", "--site", "b", "--kind", "rad")[0] == 1
