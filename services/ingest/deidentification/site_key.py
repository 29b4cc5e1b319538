"""A site's own secret: everything that must be the same each time, and that nobody else can compute, comes from it.

256 random bits in a file of one line. The file never lies in the store: who has both can try every patient id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from feature_store.errors import Conflict, SettingsError, UsageError
from feature_store.location import Location

_MARK = "asdeg-pseudonym-key-1:"
_BYTES = 32
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class SiteKey:
    """Shown nowhere: not in its ``repr``, not in an error."""

    _secret: bytes = field(repr=False)

    def digest(self, purpose: str, text: str) -> bytes:
        """HMAC-SHA256 of ``text``: 32 bytes. Each purpose has bytes of its own for the same text."""
        return hmac.digest(self._secret, f"asdeg {purpose}\0{text}".encode(), hashlib.sha256)


def new_key_file(path: Path, store: str) -> None:
    """Make a key that nobody has in a file that only its owner may read.

    Raises Conflict where the file exists, SettingsError where it would lie in the store, UsageError where it cannot
    be written.
    """
    _refuse_inside(path, store)
    line = _MARK + base64.urlsafe_b64encode(secrets.token_bytes(_BYTES)).decode() + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise Conflict(
            "There is such a file already.", action="A key is never replaced: choose another name."
        ) from None
    except OSError as error:
        raise UsageError("The key file cannot be written.", action="Choose a folder you may write to.") from error


def read_key_file(path: Path, store: str) -> SiteKey:
    """The key in a file; ``store`` is the URI of the store, in which it must not lie.

    Raises SettingsError where it lies there, everybody on the machine may read it, or it is no key.
    """
    _refuse_inside(path, store)
    try:
        if path.stat().st_mode & 0o007:
            raise SettingsError("A pseudonym key may be read by everybody on this machine.", action="chmod 600 it.")
        text = path.read_text("ascii").strip()
        secret = base64.b64decode(text.removeprefix(_MARK), altchars=b"-_", validate=True)
    except OSError as error:
        raise SettingsError("A pseudonym key cannot be read.", action="Check the file's place and owner.") from error
    except (UnicodeDecodeError, binascii.Error):
        text, secret = "", b""
    if not text.startswith(_MARK) or len(secret) != _BYTES:
        raise SettingsError("That file is no pseudonym key.", action="Make one with `asdeg keys pseudonym FILE`.")
    return SiteKey(secret)


@dataclass(frozen=True)
class SiteKeys:
    """Where the keys are: one file for whoever is at this machine, or a folder with ``SITE.key`` for each site."""

    store: str
    file: Path | None = None
    folder: Path | None = None

    def of(self, site: str) -> SiteKey | None:
        """The site's key; None where none is configured for it. Raises as :func:`read_key_file`."""
        if self.file is not None:
            return read_key_file(self.file, self.store)
        if self.folder is None or not _SITE.fullmatch(site):
            return None
        path = self.folder / f"{site}.key"
        return read_key_file(path, self.store) if path.is_file() else None

    def needed(self, site: str) -> SiteKey:
        """As :meth:`of`. Raises SettingsError where there is none."""
        key = self.of(site)
        if key is None:
            raise SettingsError(
                "This site has no pseudonym key, and DICOM comes with real patient ids.",
                action="Make one with `asdeg keys pseudonym DIR/SITE.key` and set ASDEG_PSEUDONYM_KEYS=DIR.",
            )
        return key


def _refuse_inside(path: Path, store: str) -> None:
    folder = Location.parse(store).folder
    if folder is not None and path.resolve().is_relative_to(folder.resolve()):
        raise SettingsError(
            "A pseudonym key lies in the store, beside what it hides.", action="Keep it elsewhere, and back it up."
        )
