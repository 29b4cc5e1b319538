"""Identifiers planted in every place, pushed through every door, and looked for in every byte that is left.

    python -m tests.services.deidentification.planted [--json]

prints for each kind of place how many were planted and how many were found: in the store (Parquet, images and
archives unpacked), the control database, the staging folder, logs, answers and error messages.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import httpx
import pyarrow.parquet
import pydicom
import structlog
from pynetdicom import AE

from feature_store.store import FeatureStore
from infra.cli import main as asdeg
from infra.logging import start as start_logging
from services.ingest.deidentification.site_key import new_key_file
from tests.services.deidentification.identifiers import Planted
from tests.services.deidentification.material import planted_bids, planted_case, planted_study
from tests.services.dicom.doors import BOUNDARY, SITE, Doors, related
from tests.services.dicom.studies import as_file
from tests.services.door import open_door


@dataclass
class Evidence:
    """What one door left behind: files under ``root`` and what it said."""

    door: str
    root: Path
    planted: Planted = field(default_factory=Planted)
    said: list[bytes] = field(default_factory=list)

    def found(self) -> dict[str, str]:
        """Place of each identifier that is somewhere, and where that is."""
        places: dict[str, str] = {}
        for where, data in self._pieces():
            places |= dict.fromkeys(self.planted.found(data), where)
        return places

    def _pieces(self) -> Iterator[tuple[str, bytes]]:
        for number, text in enumerate(self.said):
            yield f"said {number}", text
        for path in sorted(self.root.rglob("*")):
            yield "a file's name", str(path.relative_to(self.root)).encode()
            if path.is_file():
                for data in unpacked(path):
                    yield str(path.relative_to(self.root)), data


def unpacked(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what is compressed in it."""
    data = path.read_bytes()
    yield data
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:4] == b"NRRD" and b"encoding: gz" in data[:2000]:
        yield zlib.decompress(data.split(b"\n\n", 1)[1], wbits=47)
    elif data[:4] == b"PAR1":
        yield repr(pyarrow.parquet.read_table(path).to_pylist()).encode()


@contextlib.contextmanager
def listening(evidence: Evidence) -> Iterator[None]:
    """All that the process says on stdout, on stderr and in its logs, at the level that says most."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        start_logging("json", "debug")
        yield
    evidence.said += [out.getvalue().encode(), err.getvalue().encode()]
    structlog.reset_defaults()


def command_line(folder: Path) -> Evidence:
    """``asdeg ingest`` of a case folder and of a BIDS data set, ``outcomes``, ``clinical``, ``reads``, ``withdraw``."""
    evidence = Evidence("command line", folder / "house")
    store = str(evidence.root / "store")
    planted, key = evidence.planted, folder / "site.key"
    patient, subject = planted.token("case.yaml: patient_id"), planted.token("BIDS: label of a subject")
    new_key_file(key, store)
    case = planted_case(folder / "cases" / "one", planted, patient, SITE)
    bids = planted_bids(folder / "bids", planted, [subject])
    common = ["--site", SITE, "--store", store, "--pseudonym-key-file", str(key)]
    bids_maps = ["--label-map", "totalsegmentator-mr"]
    reason = f"wrong side of {planted.token('withdrawal: reason')}"
    with listening(evidence):
        asdeg(["ingest", str(case), *common])
        evidence.said.append(_without_names(asdeg, ["ingest", str(bids), *common, *bids_maps]))
        for name, rows in _tables(planted, patient).items():
            table = folder / f"{name}.csv"
            table.write_text("\n".join(",".join(row) for row in rows) + "\n")
            asdeg([name, str(table), *common])
        asdeg(["score", patient, *common])
        asdeg(["store", "explain", patient, "ct.vertebra.all.original_shape_MeshVolume", *common])
        asdeg(["cases", "--store", store])
        asdeg(["quality", "--store", store])
        asdeg(["withdraw", patient, *common, "--reason", reason])
        asdeg(["withdrawals", "--store", store])
    sequences = FeatureStore.open(store).snapshot().table("series")["sequence"].to_pylist()
    assert sequences == ["t2_ax"], sequences  # the BIDS subject's: the other case was taken back
    return evidence


def _without_names(command: object, arguments: list[str]) -> bytes:
    """What ``ingest`` prints but for the column that names the sender's own folders."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        command([*arguments, "--json"])  # type: ignore[operator]
    rows = json.loads(out.getvalue())
    return json.dumps([{name: value for name, value in row.items() if name != "case"} for row in rows]).encode()


def _tables(planted: Planted, patient: str) -> dict[str, list[list[str]]]:
    stranger = planted.token("table: patient without a case")
    return {
        "outcomes": [
            ["patient_id", "days_from_index", "rater", "level", "pfirrmann"],
            [patient, "200", planted.token("outcomes: rater"), "L3-L4", "3"],
            [patient, "200", "A", planted.token("outcomes: level"), "3"],
            [stranger, "200", "A", "L3-L4", planted.token("outcomes: pfirrmann")],
        ],
        "clinical": [
            ["patient_id", "age", "diagnosis", "procedure"],
            [patient, "61", planted.token("clinical: diagnosis"), planted.token("clinical: procedure")],
            [stranger, planted.token("clinical: age"), "", ""],
        ],
        "reads": [
            ["patient_id", "surgeon", "prediction"],
            [patient, planted.token("reads: surgeon"), "1"],
            [patient, "B", planted.token("reads: prediction")],
        ],
    }


def http(folder: Path) -> Evidence:
    """``/v1/cases`` with archives of every kind, and every route below it, with what is right and what is wrong."""
    house = folder / "house"
    evidence = Evidence("HTTP", house)
    planted, keys = evidence.planted, folder / "keys"
    patient = planted.token("case.yaml: patient_id")
    new_key_file(keys / f"{SITE}.key", str(house / "store"))
    case = planted_case(folder / "one", planted, patient, SITE)
    with listening(evidence), open_door(house, pseudonym_keys=str(keys)) as door:

        def ask(method: str, path: str, **request: object) -> dict[str, object]:
            answer = door.call(SITE, method, path, **request)
            evidence.said += [answer.content, repr(answer.headers.multi_items()).encode()]
            try:
                body = answer.json()
            except ValueError:
                return {}
            return body if isinstance(body, dict) else {}

        headers = {"Content-Type": "application/zip", "User-Agent": planted.token("HTTP: user agent"),
                   "X-Request-Id": planted.token("HTTP: a header"),
                   "Content-Disposition": f'attachment; filename="{planted.token("HTTP: file name")}.zip"'}  # fmt: skip
        query = planted.token("HTTP: query")
        receipt = ask("POST", f"/v1/cases?wait=60&who={query}", content=_zip(case, planted), headers=headers)
        case_id, taken = str(receipt["case_id"]), receipt["receipt"]
        assert isinstance(taken, dict), receipt
        assert (taken["sequences"][0], taken["rois"]) == ("ct", 11), taken
        tar = {"content": _tar(case, planted), "headers": {"Content-Type": "application/x-tar"}}
        ask("POST", "/v1/cases?wait=60", **tar)
        for broken in _broken_archives(case, planted):
            ask("POST", "/v1/cases?wait=60", content=broken, headers={"Content-Type": "application/zip"})
        one = f"/v1/cases/{case_id}"
        level, rater = "L3-L4", planted.token("outcome: rater")
        ask("PUT", f"{one}/outcome", json=[{"days_from_index": 200, "rater": rater, "level": level, "pfirrmann": 3}])
        odd = planted.token("outcome: a key")
        for wrong in ({odd: 1}, {"days_from_index": 1, "rater": "A", "level": planted.token("outcome: level")}, [odd]):
            ask("PUT", f"{one}/outcome", json=[wrong])
        texts = {name: planted.token(f"clinical: {name}") for name in ("diagnosis", "procedure")}
        ask("PUT", f"{one}/clinical", json={"age": 61, **texts})
        for name in ("age", "sex", "fused_levels", planted.token("clinical: a key")):
            ask("PUT", f"{one}/clinical", json={name: planted.token(f"clinical: wrong {name}")})
        ask("PUT", f"{one}/reads", json=[{"surgeon": planted.token("reads: surgeon"), "prediction": 1}])
        ask("PUT", f"{one}/reads", json=[{"surgeon": "A", "prediction": planted.token("reads: prediction")}])
        ask("PUT", f"{one}/index-date", json={"index_date": planted.token("index date: not a date")})
        days = {"index_date": "1990-05-23", "newest_image_date": "1990-03-13"}
        planted.needles["index date"] = b"1990-05-23"
        ask("PUT", f"{one}/index-date", json=days)
        for part in ("", "/quality", "/clinical", "/reads", "/outcome", "/index-date", "/overlays/ct.png"):
            ask("GET", one + part)
        ask("GET", "/v1/cases")
        for path in ("/v1/cases/{}", f"{one}/overlays/{{}}.png", "/v1/{}", f"{one}/{{}}", "/v1/uploads/{}"):
            ask("GET", path.format(planted.token(f"HTTP: a word in {path.replace(case_id, 'ID')}")))
        wrong_key = {"Authorization": f"Bearer {planted.token('HTTP: a wrong key')}"}
        answer = door.client.get(door.url + "/v1/cases", headers=wrong_key)
        evidence.said += [answer.content]
        ask("POST", f"{one}/withdrawal", json={"reason": f"wrong {planted.token('withdrawal: reason')}"})
        ask("POST", f"{one}/withdrawal", json={planted.token("withdrawal: a key"): "x"})
        ask("POST", "/v1/cases", content=planted.token("HTTP: a body that is nothing").encode())
    return evidence


def _zip(case: Path, planted: Planted) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(case.rglob("*")):
            archive.write(path, path.relative_to(case))
        archive.comment = planted.token("zip: comment").encode()
    return buffer.getvalue()


def _tar(case: Path, planted: Planted) -> bytes:
    buffer = io.BytesIO()

    def owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uname, info.gname = owner
        info.pax_headers = {"comment": comment}
        return info

    owner = planted.token("tar: user"), planted.token("tar: group")
    comment = planted.token("tar: pax header")
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(case, arcname=planted.token("tar: top folder"), filter=owned)
    return buffer.getvalue()


def _broken_archives(case: Path, planted: Planted) -> Iterator[bytes]:
    """Another site's case, no case at all, a path that leads out, an unknown key at the top, a wrong patient id."""
    text = (case / "case.yaml").read_text()
    key, person = (
        planted.token("case.yaml: a key at the top"),
        f"Jane {planted.token('case.yaml: a name as patient_id')}",
    )
    texts = {
        "case.yaml": re.sub(r"(?m)^site: .*$", f"site: {planted.token('case.yaml: another site')}", text),
        f"{planted.token('archive: name without a case.yaml')}.txt": "x",
        f"../{planted.token('archive: a path that leads out')}": "x",
    }
    for name, content in [
        *texts.items(),
        ("case.yaml", f"{text}{key}: 1\n"),
        ("case.yaml", re.sub(r"(?m)^patient_id: .*$", f"patient_id: {person}", text)),
        ("case.yaml", f"{{{planted.token('case.yaml: no YAML')}: [\n"),
    ]:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, content)
        yield buffer.getvalue()


def dicom(folder: Path) -> Evidence:
    """STOW-RS and C-STORE of the same study, the surgery's date, and instances that are refused."""
    evidence = Evidence("STOW-RS and C-STORE", folder)
    planted = evidence.planted
    patient = planted.token("DICOM: PatientID")
    study = planted_study(planted, patient)
    others = Planted(first=20_000)
    refused = planted_study(others, others.token("DICOM: PatientID"))[:2]
    planted.needles |= {f"refused {place}": needle for place, needle in others.needles.items() if b"ZQ" in needle}
    refused[0].BurnedInAnnotation = "YES"
    refused[1].PatientID = ""
    with listening(evidence):
        doors = Doors(folder)
        client_key = doors.key()
        with doors.over_http() as url:
            kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
            headers = {"Authorization": f"Bearer {client_key}", "Content-Type": kind}
            for batch in (study, refused, study[:1]):
                answer = httpx.post(f"{url}/studies", content=related(batch), headers=headers, timeout=60)
                evidence.said.append(_but_for_uids(answer.content, [*study, *refused]))
        assert len(doors.assembled()) == 1
        listener = doors.listener()
        listener.start()
        entity = AE("SENDER")
        for one in (study[0], study[-1]):
            entity.add_requested_context(one.SOPClassUID, one.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", listener.port)
        assert association.is_established
        for one in (*study, *refused):
            sent = pydicom.dcmread(io.BytesIO(as_file(one)))
            for tag in [tag for tag in sent.keys() if tag.group in (0x0000, 0x0002)]:  # noqa: SIM118
                del sent[tag]
            status = association.send_c_store(sent)
            evidence.said.append(_but_for_uids(repr(status).encode(), [*study, *refused]))
        association.release()
        listener.stop()
        (case,) = list(doors.staging.cases())
        doors.assembler.set_index_date(SITE, case.patient_id, date(1990, 4, 17))
        planted.needles["index date"] = b"1990-04-17"
        planted.needles["index date, as DICOM writes it"] = b"19900417"
    (days,) = {row["days_from_index"] for row in doors.case_rows()["series"]}
    assert days == -35, days
    return evidence


def _but_for_uids(answer: bytes, sent: list[object]) -> bytes:
    """An answer to the sender names the sender's own instances; of those UIDs it may speak."""
    for one in sent:
        for keyword in ("SOPInstanceUID", "StudyInstanceUID"):
            answer = answer.replace(str(getattr(one, keyword)).encode(), b"")
    return answer


DOORS = (command_line, http, dicom)


def table(folder: Path) -> list[dict[str, object]]:
    """For each door and kind of place: how many were planted, and in which places they were found."""
    rows: list[dict[str, object]] = []
    for door in DOORS:
        evidence = door(folder / door.__name__)
        found = evidence.found()
        planted = Counter(place.split(":")[0] for place in evidence.planted.needles)
        for kind, count in planted.items():
            mine = {place: where for place, where in found.items() if place.split(":")[0] == kind}
            rows.append({"door": evidence.door, "kind": kind, "planted": count, "found": len(mine), "where": mine})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory() as folder:
        rows = table(Path(folder))
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(
            f"{row['door']:20} {row['kind']:24} planted {row['planted']:5}, found {row['found']} {row['where'] or ''}"
        )
    planted, found = (sum(int(str(row[column])) for row in rows) for column in ("planted", "found"))
    print(f"planted {planted}, found {found}")


if __name__ == "__main__":
    main()
