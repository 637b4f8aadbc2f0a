"""A YAML or JSON config in which single values are replaced in place: every other character of the file stays as it is.

A round trip through a YAML library re-indents lists, re-quotes texts and loses some comments. Here the parser only says
where a value stands, and the text is cut there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finestep.errors import BadInput
from finestep.yaml_text import PLAIN, WORDS, float_text

if TYPE_CHECKING:
    from ruamel.yaml.events import Event

Path = tuple[str | int, ...]
"""Keys from the root to a value, e.g. `("train", "max_steps")`."""
INDENT = 2
_ANCHOR = re.compile(r"(?:[&!]\S*\s+)+")
_COMMENT = re.compile(r"[ \t]#[^\n]*$")


@dataclass(frozen=True, slots=True)
class Change:
    """A value for one place; `note` goes into a comment behind it, where the format has comments."""

    value: object
    note: str = ""


@dataclass(slots=True)
class _Node:
    """Where a value stands in the text, and what it is."""

    start: int
    end: int
    kind: str
    """scalar, alias, list, map, flow list or flow map."""
    column: int = 0
    """Column of the keys of a map."""
    num_children: int = 0
    quoted_keys: bool = False


class ConfigText:
    """A config as text, and the places of its values.

    Args:
        text: the whole file.
        place: what an error calls it.

    Raises:
        BadInput: it is no YAML mapping.
    """

    def __init__(self, text: str, *, place: str = "the config"):
        self.text = text
        self._place = place
        self._is_json = text.lstrip().startswith("{")
        self._nodes = _nodes(text, place)
        root = self._nodes.get(())
        if root is None or not root.kind.endswith("map"):
            raise BadInput("a config must be a mapping of names to values", place=place)

    def has(self, path: Path) -> bool:
        """Whether the file itself says something at a place; what it merges in from an anchor does not count."""
        return path in self._nodes

    def written(self, path: Path) -> str | None:
        """What stands at a place, as it is written; None when nothing does."""
        node = self._nodes.get(path)
        return None if node is None else self.text[node.start : node.end].strip()

    def changed(self, changes: Mapping[Path, object]) -> str:
        """The text with these values; a value may be a `Change`, which carries a note.

        A key that is not there is added at the end of its mapping.
        """
        text = self
        for path, wanted in changes.items():
            change = wanted if isinstance(wanted, Change) else Change(wanted)
            text = ConfigText(text._with(path, change), place=self._place)
        return text.text

    def _with(self, path: Path, change: Change) -> str:
        node = self._nodes.get(path)
        if node is not None:
            return self._replaced(node, change)
        depth = next(size for size in range(len(path) - 1, -1, -1) if path[:size] in self._nodes)
        parent = self._nodes[path[:depth]]
        if not parent.kind.endswith("map"):
            tree = change.value
            for key in reversed(path[depth:]):
                tree = {key: tree}
            return self._replaced(parent, Change(tree, change.note))
        return self._added(parent, path[depth:], change)

    def _replaced(self, node: _Node, change: Change) -> str:
        """Another value in a node's place; an anchor before it stays, since other places may refer to it."""
        if node.kind in ("list", "map") and node.start:
            node = replace(node, start=len(self.text[: node.start].rstrip()))  # back to its key, when it began a line
        old = self.text[node.start : node.end]
        kept = "" if node.kind == "alias" else (found[0] if (found := _ANCHOR.match(old)) else "")
        space = "" if node.start == 0 or self.text[node.start - 1] in " \t\n[{" or kept else " "
        tail = "\n" if old.endswith("\n") else ""
        new = f"{space}{kept}{self._flow(change.value)}"
        text = self.text[: node.start] + new + tail + self.text[node.end :]
        return self._noted(text, node.start + len(new), change.note)

    def _added(self, parent: _Node, keys: Path, change: Change) -> str:
        if parent.kind == "flow map":
            return self._added_in_flow(parent, keys, change)
        at, lead = _line_end(self.text, parent.end), ""
        if not self.text[:at].endswith("\n"):
            lead = "\n"
        lines = []
        for depth, key in enumerate(keys):
            indent = " " * (parent.column + INDENT * depth)
            lines.append(f"{indent}{key}:" + (f" {self._flow(change.value)}" if depth == len(keys) - 1 else ""))
        new = lead + "\n".join(lines)
        text = self.text[:at] + new + "\n" + self.text[at:]
        return self._noted(text, at + len(new), change.note)

    def _added_in_flow(self, parent: _Node, keys: Path, change: Change) -> str:
        """Before the closing bracket; on a line of its own where the last entry has one."""
        value = change.value
        for key in reversed(keys[1:]):
            value = {str(key): value}
        name = json.dumps(str(keys[0])) if self._is_json or parent.quoted_keys else str(keys[0])
        inside = self.text[parent.start : parent.end - 1]
        body = inside.rstrip()
        indent = re.search(r"\n([ \t]*)\S[^\n]*$", body) if "\n" in inside else None
        comma = "," if parent.num_children and not body.endswith(",") else ""
        gap = f"\n{indent[1]}" if indent else " " if parent.num_children else ""
        at = parent.start + len(body)
        return f"{self.text[:at]}{comma}{gap}{name}: {self._flow(value)}{self.text[at:]}"

    def _flow(self, value: object) -> str:
        return json.dumps(value) if self._is_json else flow(value)

    def _noted(self, text: str, at: int, note: str) -> str:
        """The text with a comment behind the value that ends at `at`; a comment that stands there stays before it."""
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        rest = text[at:end]
        if not note or self._is_json or (rest.strip() and not _COMMENT.search(rest)):
            return text
        joint = "; " if rest.strip() else "  # "
        return f"{text[:end].rstrip()}{joint}{' '.join(note.split())}{text[end:]}"


def flow(value: object) -> str:
    """A value on one line, as YAML and JSON both read it.

    >>> flow(5e-05), flow("out/run"), flow("no"), flow([1, "a b"]), flow({"lr": 1e-3})
    ('5.0e-05', 'out/run', '"no"', '[1, a b]', '{"lr": 0.001}')
    """
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    text = str(value)
    return text if PLAIN.fullmatch(text) and text.lower() not in WORDS else json.dumps(text, ensure_ascii=False)


def _line_end(text: str, at: int) -> int:
    """Behind the line on which `at` lies: where the next line begins."""
    if at and text[at - 1] == "\n":
        return at
    found = text.find("\n", at)
    return len(text) if found < 0 else found + 1


def _nodes(text: str, place: str) -> dict[Path, _Node]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    walk = _Walk(text)
    try:
        walk.events = iter(YAML(typ="safe", pure=True).parse(text))
        for event in walk.events:
            if type(event).__name__ not in ("StreamStartEvent", "DocumentStartEvent"):
                walk.value(event, ())
                break
    except (YAMLError, RecursionError, StopIteration) as error:
        raise BadInput("the file is not valid YAML", value=str(error).split("\n")[0][:100], place=place) from None
    return walk.nodes


class _Walk:
    """Follows the parser's events, and notes where each value stands."""

    def __init__(self, text: str):
        self._text = text
        self.events: Iterator[Event] = iter(())
        self.nodes: dict[Path, _Node] = {}

    def value(self, event: Event, path: Path) -> int:
        """Note a value and all below it; answers with the place behind it."""
        start, end, kind = event.start_mark.index, event.end_mark.index, type(event).__name__
        if kind in ("AliasEvent", "ScalarEvent"):
            self.nodes[path] = _Node(start, end, "alias" if kind == "AliasEvent" else "scalar")
            return int(end)
        is_map = kind == "MappingStartEvent"
        node = self.nodes[path] = _Node(
            start, end, ("flow " if getattr(event, "flow_style", False) else "") + ("map" if is_map else "list")
        )
        return self._map(path, node) if is_map else self._list(path, node)

    def _map(self, path: Path, node: _Node) -> int:
        last = node.end
        while type(key := next(self.events)).__name__ != "MappingEndEvent":
            if not node.num_children:
                node.column = key.start_mark.column
            node.num_children += 1
            node.quoted_keys = node.quoted_keys or getattr(key, "style", None) in ('"', "'")
            self._forget((*path, str(getattr(key, "value", ""))))
            if type(key).__name__ not in ("ScalarEvent", "AliasEvent"):
                raise BadInput("a key of a config must be a name", place=f"line {key.start_mark.line + 1}")
            last = self._entry(key, (*path, str(getattr(key, "value", ""))))
        node.end = key.end_mark.index if node.kind.startswith("flow") else last
        return int(node.end)

    def _entry(self, key: Event, path: Path) -> int:
        last = self.value(next(self.events), path)
        node = self.nodes[path]
        if node.start == node.end:  # `key:` with nothing behind it: the parser puts the value on the next line
            node.start = node.end = last = self._text.index(":", key.end_mark.index) + 1
        return last

    def _forget(self, path: Path) -> None:
        """Of a key that stands twice, the last one counts, as in the common readers."""
        if path in self.nodes:
            for old in [one for one in self.nodes if one[: len(path)] == path]:
                del self.nodes[old]

    def _list(self, path: Path, node: _Node) -> int:
        last = node.end
        while type(event := next(self.events)).__name__ != "SequenceEndEvent":
            last = self.value(event, (*path, node.num_children))
            node.num_children += 1
        node.end = event.end_mark.index if node.kind.startswith("flow") else last
        return int(node.end)
