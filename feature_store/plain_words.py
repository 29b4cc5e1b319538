"""Words that say nothing about a person: by them free text may be kept.

What people type (names of files, regions, scanners, diagnoses) can name the patient. It is kept as it is where
every word of it stands in ``plain_words.yaml`` and it has no more than four digits, three in a row. Anything else is
coded: equal texts stay equal, and 20 bits of a hash lead back to nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

import yaml

MOST_DIGITS = 4
_SHORT = 2
_LONGEST = 64
_WORDS = re.compile(r"[^\W_]+")
_PARTS = re.compile(r"[0-9]+|[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def is_plain(text: str, *themes: str) -> bool:
    """Whether the text is made of known words of those themes, beside single letters and few digits."""
    if len(text) > _LONGEST or not text.isascii() or not text.isprintable():
        return False
    known = frozenset().union(*map(words, themes))
    parts = re.split(r"[^A-Za-z0-9]+", text)
    if sum(letter.isdigit() for letter in text) > MOST_DIGITS:
        return False
    said = [sub.lower() for part in parts for sub in (part, *_PARTS.findall(part))]
    says_something = 0 < len(text) <= _SHORT or any(
        len(sub) > 1 and sub in known for sub in said
    )  # initials alone are somebody's
    return says_something and all(_is_known(part, known) for part in parts if part)


def plain_or_coded(text: str, *themes: str, kind: str = "other") -> str:
    """The text, or ``other-3k7q`` for one that is not plain."""
    return text if is_plain(text, *themes) else coded(text, kind)


def masked(text: str, *themes: str) -> str:
    """The text with ``*`` in place of each word that is not known: of a path, a pattern that finds the file."""
    known = frozenset().union(*map(words, themes))
    shown = [word for word in _WORDS.findall(text) if _is_known(word, known)]
    too_many = sum(letter.isdigit() for word in shown if word.lower() not in known for letter in word) > MOST_DIGITS

    def word(found: re.Match[str]) -> str:
        numbered = any(letter.isdigit() for letter in found[0]) and found[0].lower() not in known
        return found[0] if _is_known(found[0], known) and not (numbered and too_many) else "*"

    return _WORDS.sub(word, text)


def plain_file(path: str) -> str:
    """A path inside a case folder: ``sub-*/anat/sub-*_T2w.nii.gz``."""
    return masked(path, "files", "anatomy", "rater")


def plain_reason(text: str) -> str:
    """Why somebody did something, as it may be kept: ``wrong * of *``."""
    return masked(text, "reason", "clinical", "anatomy", "files")


def coded(text: str, kind: str = "other") -> str:
    """``kind-`` and four characters: the same for the same text at every site."""
    digest = hashlib.sha256(f"asdeg word\0{text}".encode()).digest()
    return f"{kind}-{base64.b32encode(digest[:3]).decode()[:4].lower()}"


def _is_known(word: str, known: frozenset[str]) -> bool:
    if word.lower() in known:
        return True
    if not word.isascii() or re.search(rf"\d{{{MOST_DIGITS}}}", word):
        return False
    return all(len(part) == 1 or part.isdigit() or part.lower() in known for part in _PARTS.findall(word))


@cache
def words(theme: str) -> frozenset[str]:
    """The words of a theme, in lower case."""
    listed = yaml.safe_load(Path(__file__).with_name("plain_words.yaml").read_text("utf-8"))
    return frozenset(listed[theme].split())
