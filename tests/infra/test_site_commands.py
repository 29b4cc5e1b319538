"""What a site sends by command: cases over HTTP, clinical variables and readings as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import infra.cli
from feature_store.audit import AuditLog
from feature_store.store import FeatureStore
from infra.case_archive import CaseArchive
from pipelines.phantom import PhantomCohort, write_phantom_cohort
from tests.services.door import Door, open_door


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> PhantomCohort:
    return write_phantom_cohort(tmp_path_factory.mktemp("phantoms") / "cohort", patients=2, sites=1)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door")) as door:
        yield door


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, door: Door) -> Any:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, store: str | None = None) -> tuple[int, str, str]:
        code = infra.cli.main(["--store", store or door.house.store.uri, *(str(argument) for argument in arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_cases_over_http_then_their_tables(run: Any, door: Door, phantoms: PhantomCohort, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(door.keys["site_a"] + "\n")
    folder = phantoms.cases[0].folder.parent
    over_http = ("ingest", folder, "--site", "site_a", "--server", door.url, "--key-file", tmp_path / "key")
    code, out, _ = run(*over_http, "--json", store=str(tmp_path / "elsewhere"))
    assert code == 0
    assert [row["state"] for row in json.loads(out)] == ["validated"] * 2
    assert not (tmp_path / "elsewhere").exists()
    code, _, err = run(*over_http)
    assert (code, "2 unchanged" in err) == (0, True)

    first, second = (case.patient_id for case in phantoms.cases)
    (tmp_path / "clinical.csv").write_text(
        f"patient_id,age,osteoporosis,fused_levels,surgical_segments\n{first},61.5,true,L3-L4 L4-L5,2\n"
        f"{second},about sixty,,,\nnobody,50,,,\n"
    )
    code, out, err = run("clinical", tmp_path / "clinical.csv", "--site", "site_a")
    assert code == 1
    assert "1 rows of 1 patients (stored)." in out
    assert "row 2: age:" in out
    assert "about sixty" not in out + err
    (tmp_path / "reads.csv").write_text(f"patient_id,surgeon,prediction\n{first},A,1\n{first},B,0\n{second},A,0\n")
    code, out, _ = run("reads", tmp_path / "reads.csv", "--site", "site_a", "--json")
    assert (code, json.loads(out)["rows"], json.loads(out)["unchanged"]) == (0, 3, False)
    assert json.loads(run("reads", tmp_path / "reads.csv", "--site", "site_a", "--json")[1])["unchanged"]

    on_record = AuditLog(door.house.control).entries()
    assert [entry.details["route"] for entry in on_record if entry.role == "operator"] == [
        "asdeg clinical",
        "asdeg reads",
        "asdeg reads",
    ]
    snapshot = FeatureStore.open(door.house.store.uri).snapshot()
    row = snapshot.table("clinical", where={"patient_id": first}).to_pylist()[0]
    assert (row["age"], row["osteoporosis"], row["fused_levels"]) == (61.5, True, ["L3-L4", "L4-L5"])
    case_yaml = yaml.safe_load((phantoms.cases[0].folder / "case.yaml").read_text())
    assert row["bmi"] == case_yaml["clinical"]["bmi"] is not None  # no column, so it stays
    assert len(snapshot.table("surgeon_reads")) == 3


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        ("clinical", "patient_id,shoe_size\np1,43\n", "unknown columns"),
        ("clinical", "patient_id;bmi\np1;22,5\n", "not separated by commas"),
        ("clinical", "age\n3\n", "missing columns: patient_id"),
        ("clinical", "patient_id,age\np1,61,extra\n", "cannot be read"),
        ("reads", "patient_id,surgeon\np1,A\n", "missing columns: prediction"),
        ("clinical", "patient_id,age\n" + "p1,61\n" * 200_001, "more than 200000 rows"),
    ],
)
def test_a_table_that_is_none(run: Any, tmp_path: Path, command: str, text: str, said: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    code, out, err = run(command, tmp_path / "table.csv", "--site", "site_a")
    assert (code, out, said in err) == (1, "", True)


def test_a_server_that_refuses_is_named(run: Any, door: Door, phantoms: PhantomCohort, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(door.keys["site_b"])
    where = ("ingest", phantoms.cases[0].folder, "--site", "site_a", "--server", door.url)
    code, out, _ = run(*where, "--key-file", tmp_path / "key")
    assert (code, "AccessDenied: case.yaml names another site" in out) == (1, True)
    assert run(*where)[0] == 2
    (tmp_path / "key").write_text("two words\n")
    assert run(*where, "--key-file", tmp_path / "key")[0] == 2


def test_an_archive_that_is_never_made_reads_as_tar_makes_it(phantoms: PhantomCohort, tmp_path: Path) -> None:
    import tarfile

    folder = phantoms.cases[0].folder
    archive = CaseArchive(folder, {"case.yaml": b"other: 1\n"})
    (tmp_path / "a.tar").write_bytes(b"".join(archive.read(at, 977) for at in range(0, archive.size, 977)))
    with tarfile.open(tmp_path / "a.tar") as made:
        names = made.getnames()
        assert names == sorted(f"case/{p.relative_to(folder).as_posix()}" for p in folder.rglob("*") if p.is_file())
        for name in names:
            member = made.extractfile(name)
            assert member is not None
            wanted = folder / name.removeprefix("case/")
            assert member.read() == (b"other: 1\n" if wanted.name == "case.yaml" else wanted.read_bytes())
    assert archive.read(archive.size, 10) == b""
    assert CaseArchive(folder).sha256() == CaseArchive(folder).sha256() != archive.sha256()
