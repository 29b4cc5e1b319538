"""Strange requests at the door, counted: `python -m tests.services.fuzz --json [--examples N]`.

Every operation of the OpenAPI document with fitting and unfitting data (schemathesis), manifests changed at random
(hypothesis), archives that are cut, flipped, bombs or traps, other content types, sizes and paths. Nothing may be
answered with 500, nothing refused may leave a trace in the store or the inbox, and the service must live on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import tarfile
import tempfile
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from tests.services.door import Door, open_door, packed

LIMITS = {"upload_limit_mb": 8, "unpacked_limit_mb": 32, "upload_entries": 200, "site_quota_mb": 256}
BODY_LIMIT = 1 << 20


@dataclass
class Counts:
    """What was tried and how it was answered; ``faults`` are the answers that should not have been."""

    tried: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[str] = field(default_factory=list)

    def note(self, kind: str, status: int, text: str = "", *, wanted: range = range(200, 500)) -> None:
        self.tried[kind][str(status)] += 1
        if status not in wanted:
            self.faults.append(f"{kind}: {status} {text[:200]}")

    def told(self) -> dict[str, Any]:
        kinds = {
            kind: {"tried": sum(statuses.values()), "statuses": dict(sorted(statuses.items()))}
            for kind, statuses in self.tried.items()
        }
        return {"kinds": kinds, "tried": sum(one["tried"] for one in kinds.values()), "faults": self.faults}


def run(folder: Path, examples: int) -> dict[str, Any]:
    """``examples``: of each operation and mode, and five times as many manifests."""
    counts = Counts()
    with open_door(folder, limits={"body": BODY_LIMIT}, **LIMITS) as door:
        case = tiny_case(folder / "case")
        case_id = str(door.push("site_a", case).json()["case_id"])
        quick = settings(
            max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        manifests(door, counts, case, settings(quick, max_examples=5 * examples))
        settle(door)
        before = left_behind(door)
        archives(door, counts, case, random.Random(0))
        content_types(door, counts, case)
        sizes(door, counts, case_id)
        paths(door, counts)
        unfinished(door)
        if left_behind(door) != before:
            counts.faults.append(f"something was left behind: {before} became {left_behind(door)}")
        operations(door, counts, case_id, quick)
        alive = door.call("site_a", "GET", f"/v1/cases/{case_id}")
        counts.note("the case is still there", alive.status_code, wanted=range(200, 201))
    return counts.told()


def tiny_case(folder: Path) -> Path:
    """One image of 16³ voxels with a mask; read in no time."""
    folder.mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 200, (16, 16, 16)).astype(np.int16)
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    for name, voxels in (("t2.nii.gz", values), ("mask.nii.gz", mask)):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / name))
    entry = {
        "sequence": "t2_sag",
        "image": "t2.nii.gz",
        "mask": "mask.nii.gz",
        "labels": {1: {"structure": "vertebral_body", "level": "L4"}},
    }
    manifest = {
        "patient_id": "phantom-0001",
        "site": "site_a",
        "index_date": "2024-03-01",
        "clinical": {"age": 61, "sex": "female", "fused_levels": ["L4-L5"], "surgical_segments": 1},
        "series": [entry],
    }
    (folder / "case.yaml").write_text(yaml.safe_dump(manifest))
    return folder


def left_behind(door: Door) -> tuple[int, list[str]]:
    return door.house.store.snapshot().sequence, sorted(one.name for one in door.house.intake.inbox.folder.glob("*"))


def settle(door: Door) -> None:
    """Until everything that was accepted is carried out."""
    while door.house.intake.waiting():
        time.sleep(0.02)


def unfinished(door: Door) -> None:
    """Uploads that were begun and not ended are no fault: they are swept when their time is over."""
    kept, door.house.intake.inbox.hours = door.house.intake.inbox.hours, -1.0
    door.house.intake.inbox.sweep()
    door.house.intake.inbox.hours = kept


# --- the OpenAPI document ----------------------------------------------------------------------
def operations(door: Door, counts: Counts, case_id: str, how: settings) -> None:
    import schemathesis
    from schemathesis import GenerationMode

    for kind in ("offset+octet-stream", "zip", "x-tar", "gzip"):
        schemathesis.serializer.alias(f"application/{kind}", "application/octet-stream")
    schema = schemathesis.openapi.from_url(f"{door.url}/openapi.json")
    headers = {"Authorization": f"Bearer {door.keys['site_a']}"}
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _ask(operation, mode, f"openapi, {mode.name.lower()} data", counts, case_id, headers, how)


def _ask(
    operation: Any, mode: Any, kind: str, counts: Counts, case_id: str, headers: dict[str, str], how: settings
) -> None:
    @how
    @given(case=operation.as_strategy(generation_mode=mode), there=st.booleans())
    def ask(case: Any, there: bool) -> None:
        if there and case.path_parameters and "case_id" in case.path_parameters:
            case.path_parameters["case_id"] = case_id
        if "wait" in (case.query or {}):
            case.query["wait"] = 0
        answer = case.call(headers=headers)
        counts.note(kind, answer.status_code, f"{case.method} {case.path} {answer.text}")

    with contextlib.suppress(Unsatisfiable):  # nothing about a call without parameters can be unfitting
        ask()


# --- manifests ---------------------------------------------------------------------------------
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=40), st.dates(), st.datetimes(),
    st.sampled_from(["../../etc/passwd", "/etc/passwd", "t2.nii.gz", "case.yaml", "", " ", "\u202e", "L4-L5", "1e999"]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def places(part: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(part, (dict, list)):
        for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
            yield (*at, key)
            yield from places(inner, (*at, key))


def manifests(door: Door, counts: Counts, case: Path, how: settings) -> None:
    sound = yaml.safe_load((case / "case.yaml").read_text())
    images = {name: (case / name).read_bytes() for name in ("t2.nii.gz", "mask.nii.gz")}
    where = list(places(sound))

    def push(kind: str, text: bytes) -> None:
        answer = door.call("site_a", "POST", "/v1/cases", content=tarred({"case.yaml": text, **images}))
        counts.note(kind, answer.status_code, answer.text)

    @how
    @given(changes=st.lists(st.tuples(st.sampled_from(where), values), min_size=1, max_size=3))
    def changed(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
        manifest = deepcopy(sound)
        for place, value in changes:
            part: Any = manifest
            try:
                for key in place[:-1]:
                    part = part[key]
                part[place[-1]] = value
            except (TypeError, KeyError, IndexError):  # an earlier change took that place away
                continue
        push("manifests, changed", yaml.safe_dump(manifest, allow_unicode=True).encode("utf-8", "surrogatepass"))

    @how
    @given(text=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))))
    def noise(text: bytes) -> None:
        push("manifests, noise", text)

    changed()
    noise()
    laughs = "a: &a [x, x, x, x, x, x, x, x]\n"
    for one, next_one in zip("abcdefg", "bcdefgh", strict=True):
        laughs += f"{next_one}: &{next_one} [{', '.join([f'*{one}'] * 8)}]\n"
    tricks = (
        laughs,
        "a: " + "[" * 5000 + "]" * 5000,
        "patient_id: !!python/object/apply:os.system ['true']",
        "patient_id: a\npatient_id: b\n",
        "patient_id: " + "x" * (2 << 20),
    )
    for text in tricks:
        push("manifests, tricks", text.encode())


# --- archives ----------------------------------------------------------------------------------
def tarred(entries: dict[str, bytes], mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def zipped(entries: dict[str, bytes], attributes: int = 0o100644) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = attributes << 16
            archive.writestr(info, content)
    return data.getvalue()


def linked(kind: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo("case.yaml")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    return data.getvalue()


def archives(door: Door, counts: Counts, case: Path, chance: random.Random) -> None:
    refused = range(400, 500)

    def push(kind: str, data: bytes, wanted: range = refused) -> None:
        answer = door.call("site_a", "POST", "/v1/cases", content=data)
        counts.note(kind, answer.status_code, answer.text, wanted=wanted)

    files = {path.name: path.read_bytes() for path in case.iterdir()}
    for data in (packed(case, "w"), packed(case), zipped(files)):
        end = len(data.rstrip(b"\0"))  # a tar without its end is whole
        for at in sorted(chance.sample(range(1, end - 600), 12)):
            push("archives, truncated", data[:at])
    zeros = bytes(20 << 20)
    bombs = (
        zipped({"case.yaml": b"", "a": zeros, "b": zeros}),
        tarred({"case.yaml": b"", "a": zeros, "b": zeros}, "w:gz"),
        zipped({f"{number}": b"" for number in range(300)}),
        tarred({f"{number}": b"" for number in range(300)}),
        zipped({"case.yaml": b"", "inner.zip": zipped({"case.yaml": b""})}),
    )
    for data in bombs:
        push("archives, bombs", data)
    outside = ("../case.yaml", "/case.yaml", "a/../../case.yaml", "..\\case.yaml", "C:/case.yaml", "a\x01/case.yaml")
    for name in outside:
        push("archives, paths that lead out", tarred({"case.yaml": files["case.yaml"], name: b"x"}))
        push("archives, paths that lead out", zipped({"case.yaml": files["case.yaml"], name: b"x"}))
    push("archives, paths that lead out", tarred({"case.yaml": files["case.yaml"], "x" * 300: b"x"}))
    for link in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE):
        push("archives, links and devices", linked(link))
    push("archives, links and devices", zipped({"case.yaml": b"/etc/passwd"}, 0o120777))
    for entries in ({"a": b""}, {"a/case.yaml": b"", "b/case.yaml": b""}, {"a/b/case.yaml": b""}):
        push("archives, not one case", tarred(entries))


def content_types(door: Door, counts: Counts, case: Path) -> None:
    data = packed(case)
    kinds = (
        "application/json", "text/plain", "text/html", "image/png", "application/x-www-form-urlencoded",
        "application/dicom", "multipart/related; boundary=x", "multipart/form-data", "multipart/form-data; boundary=",
        "x" * 500, "a/b; charset=utf-99",
    )  # fmt: skip
    for kind in kinds:
        answer = door.call("site_a", "POST", "/v1/cases", content=data, headers={"Content-Type": kind})
        counts.note("content types", answer.status_code, answer.text, wanted=range(400, 500))
    for path in ("outcome", "clinical", "reads", "index-date"):
        for kind in ("text/plain", "application/xml", "application/zip", "application/json; charset=utf-16"):
            headers = {"Content-Type": kind}
            answer = door.call("site_a", "PUT", f"/v1/cases/{'0' * 16}/{path}", content=data, headers=headers)
            counts.note("content types", answer.status_code, answer.text, wanted=range(400, 500))


def sizes(door: Door, counts: Counts, case_id: str) -> None:
    row = b'{"age": 61, "sex": "female", "bmi": 27.1, "surgical_segments": 1, "fused_levels": ["L4-L5"]},'
    deep = b"[" * 100_000
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/cases", {"content": iter([bytes(1 << 20)] * 10)}),
        ("POST", "/v1/cases", {"content": bytes(9 << 20)}),
        ("POST", "/v1/cases/uploads", {"headers": {"Upload-Length": str(2**62)}}),
        ("POST", "/v1/cases/uploads", {"headers": {"Upload-Length": "9" * 400}}),
        ("POST", "/v1/cases/uploads", {"headers": {"Upload-Length": "1", "Upload-Metadata": "x" * 5000}}),
        ("PUT", f"/v1/cases/{case_id}/clinical", {"content": iter([b"[", *[row * 1000] * 1000, b"{}]"])}),
        ("PUT", f"/v1/cases/{case_id}/clinical", {"content": b"[" + row * 9000 + b"{}]"}),
        ("PUT", f"/v1/cases/{case_id}/clinical", {"content": deep}),
        ("PUT", f"/v1/cases/{case_id}/clinical", {"json": {"age": 10**400}}),
        ("PUT", f"/v1/cases/{case_id}/clinical", {"content": b'{"age": 1e999}'}),
        ("PUT", f"/v1/cases/{case_id}/clinical", {"content": b'{"age": NaN}'}),
        ("PUT", f"/v1/cases/{case_id}/outcome", {"content": b"[" + b'{"ucla": 1},' * 80_000 + b"{}]"}),
        ("PUT", f"/v1/cases/{case_id}/reads", {"json": [{"surgeon": "A" * 1000, "prediction": 1}]}),
        ("GET", "/v1/cases?wait=" + "9" * 1000, {}),
        ("GET", f"/v1/cases/{case_id}?wait=9999999", {}),
    ]
    for method, path, request in calls:
        answer = door.call("site_a", method, path, **request)
        wanted = range(200, 500) if path.startswith("/v1/cases?") else range(400, 500)
        counts.note("sizes", answer.status_code, answer.text, wanted=wanted)


def paths(door: Door, counts: Counts) -> None:
    odd = (
        "..%2f..%2fetc%2fpasswd", "%00", "%ff", "a" * 5000, "'; drop table uploads; --", "{case_id}", "\u202e",
        "0" * 65, "%2e%2e", "*",
    )  # fmt: skip
    for one in odd:
        for method, path in (
            ("GET", f"/v1/cases/{one}"),
            ("GET", f"/v1/cases/{one}/quality"),
            ("GET", f"/v1/cases/{one}/overlays/{one}.png"),
            ("PUT", f"/v1/cases/{one}/clinical"),
            ("HEAD", f"/v1/cases/uploads/{one}"),
            ("DELETE", f"/v1/cases/uploads/{one}"),
        ):
            answer = door.call("site_a", method, path, **({"json": {}} if method == "PUT" else {}))
            counts.note("paths", answer.status_code, answer.text, wanted=range(400, 500))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=200, help="of each operation and mode")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = run(Path(folder), chosen.examples)
    if chosen.json:
        print(json.dumps(told, indent=2))
    else:
        for kind, one in told["kinds"].items():
            print(f"{kind}: {one['tried']} tried, {one['statuses']}")
        print(f"{told['tried']} tried, {len(told['faults'])} faults", *told["faults"], sep="\n  ")


if __name__ == "__main__":
    main()
