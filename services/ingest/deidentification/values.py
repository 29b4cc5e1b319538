"""From the value of a kept attribute to one that says nothing about a person. None: nothing of it is left.

Texts come from closed lists or are coded (:mod:`feature_store.plain_words`); numbers are numbers; UIDs are new.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable
from functools import cache
from typing import Any

from pydicom._uid_dict import UID_dictionary
from pydicom.sr._snomed_dict import mapping
from pydicom.sr.codedict import codes

from feature_store.plain_words import coded, is_plain
from pipelines.imaging.acquisition import DIFFUSION, DIXON, kernel_kind
from services.ingest.deidentification.site_key import SiteKey

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([Ee][+-]?\d+)?")
_KERNEL = re.compile(r"[A-Za-z]{1,2}\d{2}[a-z]?|FC\d\d|[A-Z]{1,10}")
_WORDS_OF_TYPES = """
    ORIGINAL DERIVED PRIMARY SECONDARY MIXED AXIAL LOCALIZER SCOUT VOLUME MOSAIC MPR REFORMAT REFORMATTED MIP
    MINIP PROJECTION RENDERED M P R I M_SE M_FFE M_IR MFSPLIT NORM DIS2D DIS3D ND FM FIL OTHER NONE SE FFE IR T1
    T2 STIR SUB ADD MEAN STDDEV MULTIPLICATION DIVISION RESAMPLED FILTERED BASE CT_SOM5 SPI SEQ TOP STANDARD
    SUPER IMAGE
"""
_IMAGE_TYPES = DIXON | DIFFUSION | frozenset(_WORDS_OF_TYPES.split())


def numbers(value: Any, key: SiteKey) -> Any:
    """Numbers as they are, to the last digit; None where a text is none."""
    parts = list(value) if _is_list(value) else [value]
    for part in parts:
        text = getattr(part, "original_string", None)
        if isinstance(part, str) or text is not None:
            if not _NUMBER.fullmatch(str(part if text is None else text).strip()):
                return None
        elif not isinstance(part, (int, float)):
            return None
    return value


def uids(value: Any, key: SiteKey) -> Any:
    """Each UID as a new one by the site's key; those that the standard itself registers stay."""
    return [new_uid(key, str(part)) for part in value] if _is_list(value) else new_uid(key, str(value))


def new_uid(key: SiteKey, uid: str) -> str:
    """The same for the same UID, at any time and in any process: ``2.25.`` and a UUID of 122 keyed bits."""
    text = uid.strip(" \0")
    if not text or text in UID_dictionary:
        return text
    return f"2.25.{uuid.UUID(bytes=key.digest('uid', text)[:16], version=4).int}"


def one_of(terms: str) -> Callable[[Any, SiteKey], Any]:
    """A rule that keeps the values that are among the terms."""
    listed = frozenset(terms.split())

    def rule(value: Any, key: SiteKey) -> Any:
        found = [part for part in _texts(value) if part in listed]
        return (found if len(found) > 1 else found[0]) if found else None

    return rule


def image_type(value: Any, key: SiteKey) -> Any:
    """Known values stay; others are coded, so that volumes they tell apart stay apart."""
    return [_image_type(part, key) for part in _texts(value)] or None


def _image_type(text: str, key: SiteKey) -> str:
    if not text or all(part in _IMAGE_TYPES for part in text.split()) or text in _IMAGE_TYPES:
        return text
    known = [word for word in ("MIP", "PROJECTION", "MPR", "REFORMAT", "LOCALIZER", "SCOUT") if word in text]
    return known[0] if known else "X" + base64.b32encode(key.digest("image type", text)[:5]).decode()


def scanner(value: Any, key: SiteKey) -> str | None:
    """Vendor and model are the batch of harmonisation."""
    text = str(value).strip()
    return scanner_name(text) if text else None


def scanner_name(text: str) -> str:
    """The vendor's or model's name where all its words are known of scanners, else a code for it."""
    return text if is_plain(text, "scanner") else coded(text)


def kernel(value: Any, key: SiteKey) -> str | None:
    """A CT kernel whose sharpness its name says."""
    name = (_texts(value) or [""])[0]
    return name if _KERNEL.fullmatch(name) and kernel_kind(name) else None


def contrast_agent(value: Any, key: SiteKey) -> str:
    """That there was one, or none."""
    text = "".join(_texts(value)).upper()
    return text if text in ("", "NO", "NONE") else "APPLIED"


def stack(value: Any, key: SiteKey) -> str:
    """A small number stays; another name is coded."""
    text = str(value).strip()
    return text if re.fullmatch(r"\d{1,3}", text) else base64.b32encode(key.digest("stack", text)[:5]).decode()


def region_name(value: Any, key: SiteKey) -> str | None:
    """The name of a segment or ROI where all its words are anatomy."""
    text = str(value).strip()
    return text if is_plain(text, "anatomy") else None


def code_part(value: Any, key: SiteKey) -> str | None:
    """Value, scheme and meaning as the standard's own code dictionaries have them."""
    text = str(value).strip()
    return text if text in _codes() or is_plain(text, "anatomy") else None


def pixels(value: Any, key: SiteKey) -> Any:
    """Bit for bit."""
    return value


@cache
def _codes() -> frozenset[str]:
    found = {"SRT", *mapping["SRT"], *codes.schemes()}
    for scheme in codes.schemes():
        for code in getattr(codes, scheme).concepts.values():
            found |= {code.value, code.meaning}
    return frozenset(found)


def _texts(value: Any) -> list[str]:
    parts = list(value) if _is_list(value) else [value]
    return [] if value is None else [str(part).strip() for part in parts]


def _is_list(value: Any) -> bool:
    return not isinstance(value, (str, bytes)) and hasattr(value, "__iter__")
