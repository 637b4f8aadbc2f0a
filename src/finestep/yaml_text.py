"""Values as YAML with comments, for recipes and for other frameworks' configs; it reads nothing and knows no field.

Other programs read these files, most of them by YAML 1.1 (PyYAML): a float always has a point (`1.0e-05`, as `1e-05` is
text there), and a text that could be taken for something else (`no`, `12:30`, `1e5`) is quoted.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import ScalarNode
    from ruamel.yaml.representer import RoundTripRepresenter

PLAIN = re.compile(r"[A-Za-z_./][\w./-]*( [\w./-]+)*", re.ASCII)
WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n", ".inf", ".nan"})
WIDEST_LINE = 10_000
"""Lines are never wrapped: a long path stays on one."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A value with a comment behind it."""

    value: object
    note: str


def yaml_text(tree: Mapping[str, object], *, header: Sequence[str] = ()) -> str:
    """The mapping as YAML, `header` as comment lines on top.

    >>> print(yaml_text({"lr": 1e-5, "answer": "no", "group": {"k": Noted(1, "why")}}, header=["a"]), end="")
    # a
    lr: 1.0e-05
    answer: "no"
    group:
      k: 1 # why
    """
    text = io.StringIO()
    _writer().dump(_node(tree), text)
    return "".join(f"# {line}".rstrip() + "\n" for line in header) + text.getvalue()


def float_text(value: float) -> str:
    """A float with a point, and with an exponent of two digits where it needs one.

    >>> float_text(1e-05), float_text(0.00025), float_text(1.0), float_text(3e20)
    ('1.0e-05', '2.5e-04', '1.0', '3.0e+20')
    """
    value = float(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6 or value - value != 0:
        return repr(value)
    mantissa, _, exponent = next(
        text for digits in range(1, 18) if float(text := f"{value:.{digits}e}") == value
    ).partition("e")
    return f"{mantissa}e{exponent}"


def _node(value: object) -> object:
    """The value with the styles that the writer is to use."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, Mapping):
        node = CommentedMap()
        for key, entry in value.items():
            node[key] = _node(entry.value if isinstance(entry, Noted) else entry)
            if isinstance(entry, Noted):
                node.yaml_add_eol_comment(" ".join(entry.note.split()), key, column=0)
        return node
    if isinstance(value, list | tuple):
        items = CommentedSeq([_node(item) for item in value])
        if not any(isinstance(item, Mapping) for item in value):
            items.fa.set_flow_style()
        return items
    if isinstance(value, str):
        return value if PLAIN.fullmatch(value) and value.lower() not in WORDS else DoubleQuotedScalarString(value)
    return value


@cache
def _writer() -> YAML:
    """ruamel's writer with our floats and `null` written out."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        """Ours, so that no other user of ruamel is changed."""

    Representer.add_representer(float, _represent_float)
    Representer.add_representer(type(None), _represent_none)
    writer = YAML()
    writer.Representer = Representer
    writer.width = WIDEST_LINE
    return writer


def _represent_float(representer: RoundTripRepresenter, value: float) -> ScalarNode:
    text = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value)) or float_text(value)
    return representer.represent_scalar("tag:yaml.org,2002:float", text)


def _represent_none(representer: RoundTripRepresenter, value: None) -> ScalarNode:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
