"""Pseudonyms: the same token for the same patient id and site key, and no way back without the key.

``psn-8k2m-x04q-7fzt-9w3h-c``: 80 bits of HMAC-SHA256 and a check character, in lower case letters and digits without
i, l, o and u (Crockford's base 32). Two of a million patients share one with a probability of 4e-13.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from datetime import date, timedelta

from feature_store.errors import UsageError
from feature_store.vocabulary import PHANTOM_PREFIX
from services.ingest.deidentification.site_key import SiteKey, SiteKeys

PREFIX = "psn"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_FROM_RFC4648 = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _ALPHABET)
_PHANTOM = re.compile(rf"{PHANTOM_PREFIX}(\d{{1,6}}|broken)")
_FORM = re.compile(
    rf"{PREFIX}-[{_ALPHABET}]{{4}}-[{_ALPHABET}]{{4}}-[{_ALPHABET}]{{4}}-[{_ALPHABET}]{{4}}-[{_ALPHABET}]"
)
_BITS_AS_CHARACTERS = 16
_LONGEST_ID = 200
_MOST_DAYS = 3650


def pseudonym(key: SiteKey, patient_id: str) -> str:
    """The token for a patient id as the hospital writes it; a token stays what it is, and so does a phantom.

    Blanks around the id (DICOM pads with them) and the Unicode form do not count; capitals do: hospitals exist
    whose ids differ in them, and two patients taken for one would be worse than one that is not found.
    Raises UsageError for an id that is empty, longer than 200 characters or of several lines.
    """
    name = unicodedata.normalize("NFC", patient_id).strip(" \0")
    if not name or len(name) > _LONGEST_ID or not name.isprintable():
        raise UsageError("That is no patient id.", action="Give the id as the hospital writes it, on one line.")
    if is_pseudonym(name) or _PHANTOM.fullmatch(name):
        return name
    text = base64.b32encode(key.digest("patient", name)[:10]).decode().translate(_FROM_RFC4648)
    return "-".join((PREFIX, *(text[i : i + 4] for i in range(0, _BITS_AS_CHARACTERS, 4)), _check(text)))


def is_pseudonym(text: str) -> bool:
    """Whether it has the form and the right check character; whose key made it nobody can tell."""
    return bool(_FORM.fullmatch(text)) and _check(text[4:-2].replace("-", "")) == text[-1]


def pseudonymous(keys: SiteKeys, site: str, patient_id: str) -> str:
    """What stands for a patient at a site: the token where the site has a key; else the id is its own pseudonym.

    Raises UsageError for what is no patient id, SettingsError for a key that cannot be used.
    """
    key = keys.of(site)
    return patient_id if key is None else pseudonym(key, patient_id)


def shifted(key: SiteKey, patient: str, day: date) -> date:
    """A date of the patient (by pseudonym) moved back by 1 to 3,650 days: all of one patient's by the same number.

    The days between two of a patient's dates stay what they are, so nothing else has to be known until the
    surgery date comes; and no calendar date is written down meanwhile.
    """
    days = 1 + int.from_bytes(key.digest("days", patient)[:8], "big") % _MOST_DAYS
    return day - timedelta(days=days)


def _check(text: str) -> str:
    """Luhn's check modulo 32: any one mistyped character, and nearly any swapped pair, is noticed."""
    total = 0
    for place, letter in enumerate(reversed(text)):
        value = _ALPHABET.index(letter) * (1 if place % 2 else 2)
        total += value // 32 + value % 32
    return _ALPHABET[-total % 32]
