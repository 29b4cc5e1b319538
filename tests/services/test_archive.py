"""Uploads that are no case folder, or that try something."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from feature_store.errors import ArchiveError, ArchiveTooLarge, StoreError
from services.ingest.archive import Limits, unpack_case

LIMITS = Limits(packed=10 << 20, unpacked=1 << 20, entries=50)


def zipped(path: Path, entries: dict[str, bytes], **kwargs: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = kwargs.get("mode", 0o100644) << 16
            archive.writestr(info, data)
    return path


def tarred(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def plain(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def unpack(tmp_path: Path, archive: Path, limits: Limits = LIMITS) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    try:
        return unpack_case(archive, target, limits)
    finally:
        # whatever the archive tried, nothing lies outside
        assert {p.name for p in tmp_path.iterdir()} <= {"target", "a.zip", "a.tar", "a.bin"}


@pytest.mark.parametrize("folder", ["", "case/"])
@pytest.mark.parametrize("mode", ["zip", "w", "w:gz"])
def test_a_case_comes_out_whole(tmp_path: Path, folder: str, mode: str) -> None:
    entries = {f"{folder}case.yaml": b"site: a", f"{folder}ct/1.dcm": b"\x00" * 70_000}
    if mode == "zip":
        archive = zipped(tmp_path / "a.zip", entries)
    else:
        archive = tarred(tmp_path / "a.tar", [plain(n, d) for n, d in entries.items()], mode)
    case = unpack(tmp_path, archive)
    assert (case / "case.yaml").read_bytes() == b"site: a"
    assert (case / "ct/1.dcm").stat().st_size == 70_000


@pytest.mark.parametrize("name", ["../case.yaml", "/case.yaml", "a/../../case.yaml", "..\\case.yaml", "C:/x", "a\x01b"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "zip":
        archive = zipped(tmp_path / "a.zip", {"case.yaml": b"", name: b"x"})
    else:
        archive = tarred(tmp_path / "a.tar", [plain("case.yaml"), plain(name)])
    with pytest.raises(ArchiveError):
        unpack(tmp_path, archive)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("ct.nii.gz")
    link.type, link.linkname = kind, "/etc/passwd"
    with pytest.raises(ArchiveError, match="link or a device"):
        unpack(tmp_path, tarred(tmp_path / "a.tar", [plain("case.yaml"), (link, b"")]))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"case.yaml": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777)
    with pytest.raises(ArchiveError, match="link or a device"):
        unpack(tmp_path, archive)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused_while_it_unpacks(tmp_path: Path, kind: str) -> None:
    zeros = b"\0" * (5 << 20)
    if kind == "zip":
        archive = zipped(tmp_path / "a.zip", {"case.yaml": b"", "ct.nii": zeros})
    else:
        archive = tarred(tmp_path / "a.tar", [plain("case.yaml"), plain("ct.nii", zeros)], "w:gz")
    assert archive.stat().st_size < 100_000
    with pytest.raises(ArchiveTooLarge):
        unpack(tmp_path, archive)
    written = sum(p.stat().st_size for p in (tmp_path / "target").rglob("*") if p.is_file())
    assert written <= LIMITS.unpacked


def test_a_header_of_absurd_size_never_enters_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 33
    path = tmp_path / "a.tar"
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf() + b"\0" * (1 << 20))
    with pytest.raises(ArchiveError):
        unpack(tmp_path, path)


def test_too_many_entries(tmp_path: Path) -> None:
    with pytest.raises(ArchiveTooLarge, match="more than 50 entries"):
        unpack(tmp_path, zipped(tmp_path / "a.zip", {f"{i}": b"" for i in range(60)}))
    (tmp_path / "target").rmdir()
    with pytest.raises(ArchiveTooLarge, match="more than 50 entries"):
        unpack(tmp_path, tarred(tmp_path / "a.tar", [plain(f"{i}") for i in range(60)]))


@pytest.mark.parametrize("data", [b"", b"hello, this is a text", b"PK\x03\x04 but no zip", b"\x1f\x8b but no gzip"])
def test_no_archive_at_all(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(ArchiveError):
        unpack(tmp_path, tmp_path / "a.bin")


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz"])
def test_a_cut_off_archive(tmp_path: Path, mode: str) -> None:
    data = bytes(range(256)) * 1000
    if mode == "zip":
        path = zipped(tmp_path / "a.zip", {"case.yaml": b"", "ct.nii": data})
    else:
        path = tarred(tmp_path / "a.tar", [plain("case.yaml"), plain("ct.nii", data)], mode)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError):
        unpack(tmp_path, path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("ending", [b"", b"\0" * 100, b"no header" * 60])
def test_a_tar_that_ends_between_its_files(tmp_path: Path, mode: str, ending: bytes) -> None:
    """Half a case must not pass for a whole one that has lost its other series."""
    path = tarred(tmp_path / "a.tar", [plain("case.yaml"), plain("ct.nii")])
    data = path.read_bytes()[: 2 * tarfile.BLOCKSIZE] + ending
    path.write_bytes(gzip.compress(data) if mode == "w:gz" else data)
    with pytest.raises(ArchiveError):
        unpack(tmp_path, path)


def test_a_lying_size_in_a_zip_is_not_believed(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"case.yaml": b"site: a" * 1000})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    raw[at : at + 4] = struct.pack("<I", 3)
    path.write_bytes(raw)
    with pytest.raises(ArchiveError):
        unpack(tmp_path, path)


@pytest.mark.parametrize("names", [["ct.nii"], ["a/case.yaml", "b/case.yaml"], ["a/b/case.yaml"]])
def test_not_exactly_one_case(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ArchiveError, match=r"case\.yaml at its top"):
        unpack(tmp_path, zipped(tmp_path / "a.zip", dict.fromkeys(names, b"")))


def test_the_same_name_twice(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="same name"):
        unpack(tmp_path, tarred(tmp_path / "a.tar", [plain("case.yaml"), plain("case.yaml")]))


def test_a_full_disk_is_not_the_archives_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a.zip", {"case.yaml": b"site: a"})
    opened = Path.open

    def full(path: Path, mode: str = "r", *rest: object, **more: object) -> object:
        return opened(Path("/dev/full") if mode == "xb" else path, "wb" if mode == "xb" else mode, buffering=0)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError):
        unpack(tmp_path, archive)
