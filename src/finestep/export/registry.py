"""The frameworks by name."""

from __future__ import annotations

from finestep.errors import BadInput, did_you_mean
from finestep.export.axolotl import Axolotl
from finestep.export.deepspeed import DeepSpeed
from finestep.export.exported import Exporter
from finestep.export.hugging_face import HuggingFace, Trl
from finestep.export.litgpt import Litgpt
from finestep.export.llama_factory import LlamaFactory
from finestep.export.ms_swift import MsSwift
from finestep.export.torchtune import Torchtune
from finestep.export.unsloth import Unsloth

EXPORTERS: dict[str, Exporter] = {
    "hf": HuggingFace(),
    "trl": Trl(),
    "llamafactory": LlamaFactory(),
    "axolotl": Axolotl(),
    "ms-swift": MsSwift(),
    "unsloth": Unsloth(),
    "litgpt": Litgpt(),
    "torchtune": Torchtune(),
    "deepspeed": DeepSpeed(),
}


def framework_name(name: str) -> str:
    """The name as it is known here: capitals, hyphens, blanks and underscores are all one.

    Raises:
        BadInput: no such framework.

    >>> framework_name("LLaMA-Factory"), framework_name("MS_Swift")
    ('llamafactory', 'ms-swift')
    """
    known = {_bare(one): one for one in EXPORTERS} | {"huggingface": "hf", "transformers": "hf"}
    if _bare(name) not in known:
        raise BadInput(
            f"unknown framework{did_you_mean(name.lower(), EXPORTERS)}",
            value=name,
            next_step="known: " + ", ".join(EXPORTERS),
        )
    return known[_bare(name)]


def _bare(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def exporter(name: str) -> Exporter:
    """The exporter of a framework.

    Raises:
        BadInput: no such framework.
    """
    return EXPORTERS[framework_name(name)]
