"""YAML as data and nothing else: small, shallow, no tags, no key twice, aliases only as far as they stay small."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from feature_store.errors import AsdegError

MAX_BYTES = 2**20
MAX_DEPTH = 20
MAX_VALUES = 50_000


def read_strict_yaml(path: Path, error: type[AsdegError], file: str | None = None) -> dict[Any, Any]:
    """The mapping in a YAML file. Raises ``error``, which names line and rule and never a value."""
    file = file or path.name
    try:
        if path.stat().st_size > MAX_BYTES:
            raise error(
                f"the file is larger than {MAX_BYTES} bytes.", action="Keep only the described keys.", file=file
            )
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as thrown:
        raise error("the file is missing or cannot be read.", action="Write it.", file=file) from thrown
    except UnicodeDecodeError as thrown:
        raise error("the file is not UTF-8 text.", action="Save it as UTF-8.", file=file) from thrown
    try:
        data = yaml.load(text, Loader=_Loader)  # a SafeLoader that accepts less
    except _Refused as refused:
        raise error(f"{refused.rule} {_line(refused.node)}.", action=refused.action, file=file) from None
    except yaml.MarkedYAMLError as thrown:
        where = f" (line {thrown.problem_mark.line + 1})" if thrown.problem_mark else ""
        raise error(
            f"it is not valid YAML{where}.", action="Check indentation, quotes and colons there.", file=file
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise error(
            "it is not valid YAML: a control character, or an impossible date or number.",
            action="Write dates as 2024-05-31, and text with odd characters in quotes.",
            file=file,
        ) from None
    if not isinstance(data, dict):
        raise error("it is not a mapping of keys to values.", action="Start each line with `key:`.", file=file)
    return data


def _line(node: yaml.Node) -> str:
    return f"(line {node.start_mark.line + 1})"


class _Refused(Exception):
    def __init__(self, rule: str, node: yaml.Node, action: str) -> None:
        super().__init__(rule)
        self.rule, self.node, self.action = rule, node, action


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Refused(f"nesting is deeper than {MAX_DEPTH}", self._here(), "Keep only the described keys.")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def get_single_node(self) -> yaml.Node | None:
        """Aliases (which programs write for a value that stands twice) count as often as they are used."""
        root = super().get_single_node()
        if root is not None and _expanded(root, {}) > MAX_VALUES:
            raise _Refused(f"aliases unfold to more than {MAX_VALUES} values", root, "Write the values out.")
        return root

    def _here(self) -> yaml.Node:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        return yaml.ScalarNode("", "", event.start_mark, event.end_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int):
                raise _Refused("a key is neither text nor a whole number", key_node, "Write `key: value`.")
            if key in seen:
                raise _Refused(f"the key {str(key)[:40]!r} stands twice", key_node, "Keep one of them.")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _expanded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node holds once aliases are written out; each node is looked at once."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise _Refused("an alias stands inside what it names", node, "Write the values out.")
        return sizes[id(node)]
    sizes[id(node)] = 0  # being counted
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inside = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inside = node.value
    sizes[id(node)] = 1 + sum(_expanded(part, sizes) for part in inside)
    return sizes[id(node)]


def _no_tag(loader: _Loader, node: yaml.Node) -> Any:
    raise _Refused(
        "tags (!name) and merge keys (<<) are not allowed", node, "Write plain text, numbers, lists and mappings."
    )


_Loader.add_constructor(None, _no_tag)
_Loader.add_constructor("tag:yaml.org,2002:binary", _no_tag)
_Loader.add_constructor("tag:yaml.org,2002:set", _no_tag)
_Loader.add_constructor("tag:yaml.org,2002:omap", _no_tag)
_Loader.add_constructor("tag:yaml.org,2002:pairs", _no_tag)
_Loader.add_constructor("tag:yaml.org,2002:merge", _no_tag)
