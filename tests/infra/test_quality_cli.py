"""``asdeg quality``: verdicts of a folder or the store, and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import infra.cli
from pipelines.phantom import PhantomCohort, write_phantom_cohort


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
    return write_phantom_cohort(tmp_path_factory.mktemp("phantoms") / "cohort", patients=2, sites=2)


def test_of_a_folder_and_of_the_store_the_same(run: Any, phantoms: PhantomCohort, tmp_path: Path) -> None:
    case = phantoms.cases[0]
    code, out, _ = run("quality", case.folder, "--overlays", tmp_path / "folder", "--json")
    assert code == 0
    told = json.loads(out)
    assert {row["verdict"] for row in told["verdicts"]} == {"warn", "pass"}
    pictures = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert pictures == ["ct.png", "t1_sag.png", "t2_ax.png", "t2_sag.png"]
    assert [Path(path).name for path in told["overlays"]] == pictures

    for one in phantoms.cases:
        assert run("ingest", one.folder, "--site", one.site)[0] == 0
    everything = json.loads(run("quality", "--json")[1])
    assert {row["site"] for row in everything} == {"site_a", "site_b"}
    of_site = json.loads(run("quality", "--site", case.site, "--json")[1])
    assert sorted(map(str, of_site)) == sorted(map(str, told["verdicts"]))
    assert json.loads(run("quality", "--verdict", "fail", "--json")[1]) == []

    case_id = of_site[0]["case_id"]
    code, out, _ = run("quality", case_id, "--overlays", tmp_path / "store")
    assert code == 0
    assert "SlicesThick" in out
    for name in pictures:
        assert (tmp_path / "store" / name).read_bytes() == (tmp_path / "folder" / name).read_bytes()
        assert str(tmp_path / "store" / name) in out.replace("\n", "")


def test_validate_says_the_reasons(run: Any, phantoms: PhantomCohort) -> None:
    code, out, _ = run("validate", phantoms.cases[0].folder)
    assert code == 0
    assert "warn: ct: SlicesThick: slices lie" in out
    assert any(
        row["verdict"] == "warn"
        for row in json.loads(run("validate", phantoms.cases[0].folder, "--json")[1])["quality"]
    )


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("quality",), 1, "StoreNotFound"),
        (("quality", "--overlays", "x"), 2, "UsageError"),
        (("quality", "."), 2, "UsageError"),
        (("quality", "--verdict", "best"), 2, ""),
    ],
)
def test_what_cannot_be_asked(run: Any, arguments: tuple[str, ...], code: int, error: str) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert error in err
    assert "Traceback" not in err


def test_an_unknown_case(run: Any, phantoms: PhantomCohort) -> None:
    run("ingest", phantoms.cases[0].folder, "--site", phantoms.cases[0].site)
    found, _, err = run("quality", "0" * 16)
    assert (found, err.split(":")[0]) == (1, "NotFound")
