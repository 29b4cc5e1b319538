"""A broken rule of a strict model in our words: which key, which rule, never the value."""

from __future__ import annotations


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
    """Where a key stands: ``series[0].labels.27.level``; what a site wrote as a key is cut short."""
    key = ""
    for part in loc:
        if part != "[key]":
            text = str(part)[:40]
            key += f"[{text}]" if isinstance(part, int) and key.endswith("series") else f".{text}" if key else text
    return key
