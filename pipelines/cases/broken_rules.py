"""A broken rule of a strict model in our words: which key, which rule, never the value."""

from __future__ import annotations

import difflib

from feature_store.plain_words import masked, words


def broken_rule(kind: str, message: str) -> str:
    """What pydantic's error of that kind and message says, as the end of a sentence that starts with the key."""
    if kind == "extra_forbidden":
        return "is no key that is known here"
    if kind == "missing":
        return "is missing"
    if kind == "string_type":
        return "must be text (put it in quotes)"
    if kind in ("model_type", "dict_type"):
        return "must be a mapping of keys to values"
    if kind == "string_pattern_mismatch":
        return "must be up to 64 letters, digits, . _ or -, starting with a letter or digit"
    rule = message.removeprefix("Value error, ").removeprefix("Input should be ").rstrip(".")
    return rule if rule.startswith(("must", "has", "needs")) else f"must be {rule}"


def key_path(loc: tuple[int | str, ...]) -> str:
    """Where a key stands: ``series[0].labels.27.level``; of a key that a site made up, unknown words are ``*``."""
    key = ""
    for part in loc:
        if part != "[key]":
            text = _shown(str(part))
            key += f"[{text}]" if isinstance(part, int) and key.endswith("series") else f".{text}" if key else text
    return key


def _shown(part: str) -> str:
    """Numbers of labels, known words, and what is nearly one of ours: a slip of the pen is told as it was made."""
    if part.isdigit() and len(part) <= 5:
        return part
    if len(part) < 32 and difflib.get_close_matches(part.lower(), words("manifest"), cutoff=0.8):
        return part
    return masked(part[:40], "manifest", "files", "clinical", "anatomy")
