"""De-identified instances on disk until their case is assembled, and a while longer for what comes late.

    ROOT/SITE/PSEUDONYM/images/NAME.dcm    CT and MR; NAME is a hash of the (already replaced) SOP Instance UID
    ROOT/SITE/PSEUDONYM/masks/NAME.dcm     segmentations and structure sets
    ROOT/SITE/PSEUDONYM/studies/NAME       an empty file for each study of which instances came
    ROOT/SITE/PSEUDONYM/said.json          what the site said of the case: which series to take
    ROOT/SITE/PSEUDONYM/done.json          what the last assembly was made of
    ROOT/SITE/PSEUDONYM/tried.json         how often it was begun and not ended

An instance appears whole or not at all and is on the disk when :meth:`Staging.put` returns, so an acknowledged one
survives a kill at any instant. The order and the time of arrival leave no trace: what is here is a set. Several
processes on one machine, or on several with a shared folder that has POSIX locks, may put and take at once.

Nothing here identifies anybody: :mod:`services.ingest.dicom.intake` writes only what de-identification gave back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from services.ingest.dicom.statuses import OUT_OF_RESOURCES, InstanceRefused

IMAGES, MASKS, STUDIES = "images", "masks", "studies"
SAID, DONE, TRIED, LOCK = "said.json", "done.json", "tried.json", "lock"
_WORK = ".work"
_RECOUNT_S = 60.0
"""How long a process believes its own sum of bytes; other processes write as well."""
_LEFT_OVER_S = 24 * 3600.0
"""Half-written files older than this were left by a writer that was killed."""


@dataclass(frozen=True)
class StagedCase:
    """The instances of one patient. ``folder`` is theirs."""

    site: str
    patient_id: str
    folder: Path

    def names(self) -> frozenset[str]:
        """``images/NAME`` and ``masks/NAME`` of what is here now."""
        return frozenset(
            f"{kind}/{path.stem}" for kind in (IMAGES, MASKS) for path in (self.folder / kind).glob("*.dcm")
        )

    def files(self, kind: str) -> list[Path]:
        """The files of a kind in order of their names."""
        return sorted((self.folder / kind).glob("*.dcm"))

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """The right to assemble it: False where another has it. A process that is killed loses it at once."""
        with (self.folder / LOCK).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    @property
    def last_arrival(self) -> float:
        """When the last instance appeared, in seconds since 1970: a folder's time changes with what is in it."""
        return max((_changed(self.folder / kind) for kind in (IMAGES, MASKS)), default=0.0)

    @property
    def bytes(self) -> int:
        return sum(_size(path) for kind in (IMAGES, MASKS) for path in (self.folder / kind).glob("*.dcm"))

    def read(self, name: str) -> dict[str, Any]:
        """``said.json`` or ``done.json``; empty where there is none."""
        try:
            found: dict[str, Any] = json.loads((self.folder / name).read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def write(self, name: str, value: dict[str, Any]) -> None:
        """The same, whole or not at all, on the disk when it returns."""
        with _new_file(self.folder) as (part, file):
            file.write(json.dumps(value, sort_keys=True).encode())
        os.replace(part, self.folder / name)
        _sync_folder(self.folder)


class Staging:
    """The staging folder. ``limit_bytes`` bounds it; safe to share between threads and processes."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root, self.limit_bytes = root, limit_bytes
        self._work = root / _WORK
        self._work.mkdir(parents=True, exist_ok=True)
        self._bytes, self._counted = 0, -_RECOUNT_S
        self.sweep_unfinished()

    def put(self, site: str, patient_id: str, kind: str, uid: str, study: str, data: bytes) -> Path | None:
        """Keep an instance of a study under its UID; None where one of that UID is here (which stays as it is).

        Raises InstanceRefused (out of resources) where the disk or the limit is reached.
        """
        place = self.find(site, patient_id, kind, uid)
        if place.exists():
            return None
        self._check_room(len(data))
        try:
            with _new_file(self._work) as (part, file):
                file.write(data)
            try:
                with self._lock(fcntl.LOCK_SH):
                    _make(place.parent)
                    self._note_study(place.parent.parent / STUDIES / _name(study))
                    os.link(part, place)
                    _sync_folder(place.parent)
            except FileExistsError:
                return None
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise _no_room(f"the staging folder cannot be written ({type(error).__name__})") from error
        self._bytes += len(data)
        return place

    def find(self, site: str, patient_id: str, kind: str, uid: str) -> Path:
        """Where an instance lies or would lie."""
        return self.root / site / patient_id / kind / f"{_name(uid)}.dcm"

    def patient_of(self, site: str, study: str) -> str | None:
        """Whose study it is; None where nothing of it came."""
        return next((path.parent.parent.name for path in (self.root / site).glob(f"*/{STUDIES}/{_name(study)}")), None)

    def case(self, site: str, patient_id: str) -> StagedCase:
        """A patient's instances, of which there may be none."""
        return StagedCase(site, patient_id, self.root / site / patient_id)

    def cases(self) -> Iterator[StagedCase]:
        """Every patient of whom anything is known here."""
        for site in sorted(self.root.iterdir()):
            if site.is_dir() and not site.name.startswith("."):
                for folder in sorted(site.iterdir()):
                    yield StagedCase(site.name, folder.name, folder)

    @contextlib.contextmanager
    def view(self) -> Iterator[Path]:
        """An empty folder on the same file system, so that a case folder can be laid out by hard links."""
        folder = self._work / f"view-{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def drop_instances(self, case: StagedCase, still: Callable[[StagedCase], bool]) -> int:
        """Remove a patient's files but not what is known of them; returns how many. ``still`` is asked under the lock.

        Whoever is about to acknowledge an instance holds the lock too, so none is removed that ``still`` did not see.
        """
        trash = self._work / f"trash-{uuid.uuid4().hex}"
        trash.mkdir()
        with self._lock(fcntl.LOCK_EX):
            count = len(case.names()) if still(case) else 0
            for kind in (IMAGES, MASKS) if count else ():
                if (case.folder / kind).exists():
                    os.rename(case.folder / kind, trash / kind)
        shutil.rmtree(trash, ignore_errors=True)
        self._counted = -_RECOUNT_S
        return count

    def erase(self, site: str, patient_id: str) -> int:
        """Remove everything of a patient; returns how many files. An assembly under way is begun again."""
        self.sweep_unfinished(0.0)
        case = self.case(site, patient_id)
        trash = self._work / f"trash-{uuid.uuid4().hex}"
        with self._lock(fcntl.LOCK_EX):
            if not case.folder.exists():
                return 0
            os.rename(case.folder, trash)
        count = sum(1 for path in trash.rglob("*") if path.is_file())
        shutil.rmtree(trash)
        self._counted = -_RECOUNT_S
        return count

    def used_bytes(self) -> int:
        """What all instances take, by this process's own count between two looks at the disk."""
        if time.monotonic() - self._counted > _RECOUNT_S:
            self._bytes = sum(case.bytes for case in self.cases())
            self._counted = time.monotonic()
        return self._bytes

    def sweep_unfinished(self, after_s: float = _LEFT_OVER_S) -> None:
        """Remove what a killed process left half done, so long ago or earlier. None of it was acknowledged.

        Whose half-done work goes while it is at it gets an error for it, and does it again.
        """
        for left in self._work.iterdir():
            if left.name != "lock" and _changed(left) <= time.time() - after_s:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)

    @staticmethod
    def _note_study(marker: Path) -> None:
        if not marker.exists():
            _make(marker.parent)
            marker.touch()
            _sync_folder(marker.parent)

    def _check_room(self, size: int) -> None:
        if self.used_bytes() + size > self.limit_bytes:
            raise _no_room("the staging folder is full")

    @contextlib.contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        with (self._work / "lock").open("ab") as file:
            fcntl.flock(file, kind)
            yield


def _name(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


def _no_room(message: str) -> InstanceRefused:
    return InstanceRefused(
        f"{message}.", action="Send it again later; the operator has to make room.", status=OUT_OF_RESOURCES
    )


@contextlib.contextmanager
def _new_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file that is on the disk when the block ends; gone where it fails."""
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        with part.open("xb") as file:
            yield part, file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _make(folder: Path) -> None:
    """A folder whose own name is on the disk as well."""
    if folder.is_dir():
        return
    _make(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
