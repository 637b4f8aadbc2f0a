"""The model that a file names: a Hub name, a folder, or the builder of a torchtune config."""

from __future__ import annotations

import re

from finestep.foreign.config import Source
from finestep.foreign.layouts import Layout
from finestep.foreign.names import Options

_BUILDER = re.compile(r"torchtune\.models\.\w+\.(?:q?lora_|qat_lora_)?(\w+)")
_WORDS_ONLY = re.compile(r"[A-Za-z]")


def model_of(source: Source, options: Options, layout: Layout) -> str | None:
    """The name as the file gives it, without `checkpoints/` before it; None when no name is stated."""
    if layout.name == "torchtune":
        built = options.get("model._component_")
        found = _BUILDER.search(str(built))
        if found:
            return builder_name(found[1])
    for found_name in options.all("model"):
        name = found_name.value
        if isinstance(name, str) and _WORDS_ONLY.search(name) and not name.endswith((".yaml", ".json")):
            flavor = options.get("model.flavor") if layout.name == "torchtitan" else None
            return re.sub(r"^(?:\./)?checkpoints/", "", name) + (f"-{flavor}" if flavor else "")
    return None


def builder_name(builder: str) -> str:
    """torchtune's builder as a model's name.

    >>> builder_name("llama3_2_1b")
    'llama-3.2-1b'
    """
    dotted = re.sub(r"(?<=\d)_(?=\d+(?:_\d+)?b?(?:_|$))", ".", builder.replace("_instruct", "-instruct"), count=1)
    family, size = re.match(r"([a-z_]+?)([\d.]*)$", dotted.split("_")[0]), dotted.split("_")[1:]
    words = [family[1], family[2]] if family else [dotted.split("_")[0]]
    return "-".join(word for word in [*words, *size] if word)
