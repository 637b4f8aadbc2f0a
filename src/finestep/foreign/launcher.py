"""The words of a command as a program, its options and the devices that its launcher starts it on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_LAUNCHERS = ("torchrun", "accelerate", "deepspeed", "python", "python3", "srun", "mpirun", "xtuner", "NPROC_PER_NODE")
_PROGRAMS = (
    "llamafactory-cli",
    "swift",
    "trl",
    "axolotl",
    "litgpt",
    "tune",
    "mlx_lm.lora",
    "mlx_lm",
    "autotrain",
    "ludwig",
    "xtuner",
    "unsloth",
    "composer",
)
_PER_NODE = ("nproc_per_node", "nproc-per-node", "num_gpus", "num-gpus", "gpus_per_node", "n_gpus_per_node")
_NODES = ("nnodes", "num_machines", "num_nodes")
_ALL_VISIBLE = ("deepspeed", "llamafactory-cli", "axolotl", "accelerate")
"""Programs that start a process on every visible card when no count is given."""


@dataclass
class Options:
    """A command taken apart: the launcher's options, the program and the program's own options."""

    program: str = ""
    launcher: dict[str, object] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    """Config files that are given to the program."""


def is_program(words: Sequence[str]) -> bool:
    """Whether the words start a known trainer or a Python script."""
    return any(word in _PROGRAMS or word.endswith(".py") or word in _LAUNCHERS for word in words)


def option_words(words: Sequence[str]) -> Options:
    """The words of one command, taken apart."""
    found, rest = Options(), list(words)
    while rest and (one := re.fullmatch(r"([A-Z_a-z]\w*)=(.*)", rest[0])):
        found.environment[one[1]] = one[2]
        rest.pop(0)
    end = _program_end(rest)
    found.program = " ".join(word for word in rest[:end] if not word.startswith("-"))
    found.launcher = _options(rest[:end])
    found.options = _options(rest[end:])
    named = [found.options.get(name) for name in ("config", "config_file", "cfg") if name in found.options]
    given = [word for word in rest[end : end + 1] if not word.startswith("-")]
    found.files = [str(word) for word in [*given, *named] if re.search(r"\.(ya?ml|json|toml)$", str(word))]
    return found


def _program_end(words: Sequence[str]) -> int:
    """The index after the program: a script, a module, or a known program with its sub-command."""
    for index, word in enumerate(words):
        module = words[index + 1] if word in ("-m", "--module") and index + 1 < len(words) else ""
        if module and not module.startswith(("torch.distributed", "accelerate.commands")):
            return _past_commands(words, index + 2) if module in _PROGRAMS else index + 2
        if word.endswith(".py"):
            return index + 1
    for index, word in enumerate(words):
        if word.rsplit("/", 1)[-1] == "tune":
            recipe = next((at for at, one in enumerate(words) if re.fullmatch(r"[a-z]+_[a-z_0-9]+", one)), index + 1)
            return recipe + 1
        if word.rsplit("/", 1)[-1] in _PROGRAMS:
            return _past_commands(words, index + 1)
    return min(1, len(words))


def _past_commands(words: Sequence[str], index: int) -> int:
    """Past the words of a sub-command, like `sft` or `train`."""
    while index < len(words) and re.fullmatch(r"[a-z][a-z_0-9]*", words[index]):
        index += 1
    return index


def _options(words: Sequence[str]) -> dict[str, object]:
    """`--name value`, `--name=value`, `--flag`, `name=value`; dashes in names become underscores."""
    out: dict[str, object] = {}
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        plain = re.fullmatch(r"\+{0,2}~?([A-Za-z_][\w.]*)=(.*)", word, re.S)
        if not word.startswith("-") or _NUMBER.fullmatch(word):
            if plain:
                out[plain[1]] = value_of(plain[2])
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if equals:
            out[_name(name)] = value_of(value)
            continue
        values = []
        while index < len(words) and (not words[index].startswith("-") or _NUMBER.fullmatch(words[index])):
            if re.fullmatch(r"\+{0,2}[A-Za-z_][\w.]*=.*", words[index], re.S):
                break
            values.append(words[index])
            index += 1
        out[_name(name)] = (
            True if not values else value_of(values[0]) if len(values) == 1 else [value_of(v) for v in values]
        )
    return out


def _name(name: str) -> str:
    return name.replace("-", "_")


def value_of(text: str) -> object:
    """A word as a number, a truth or a list where it is one."""
    low = text.strip().lower()
    if low in ("true", "false"):
        return low == "true"
    if low in ("none", "null", ""):
        return None
    if _NUMBER.fullmatch(low):
        return float(low) if any(sign in low for sign in ".e") else int(low)
    if low.startswith("[") and low.endswith("]"):
        return [value_of(part.strip(" '\"")) for part in text.strip()[1:-1].split(",") if part.strip()]
    return text


def devices_of(found: Options, environment: Mapping[str, str], directives: Mapping[str, str]) -> int | None:
    """Processes that the launcher starts; None when the command does not say."""
    nodes = _count(found.launcher, _NODES) or _whole(environment.get("NNODES")) or _whole(directives.get("nodes")) or 1
    whole = _count(found.launcher, ("num_processes",))
    if whole:
        return whole
    each = _count(found.launcher, _PER_NODE) or _whole(environment.get("NPROC_PER_NODE"))
    if each:
        return each * nodes
    include = str(found.launcher.get("include", ""))
    if ":" in include:
        return sum(len(host.partition(":")[2].split(",")) for host in include.split("@"))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible and "$" not in visible and any(name in found.program.split() for name in _ALL_VISIBLE):
        return len([card for card in visible.split(",") if card.strip()])
    gres = re.search(r"gpu(?::\w+)?:(\d+)", directives.get("gres", ""))
    each = int(gres[1]) if gres else _whole(directives.get("gpus-per-node"))
    return each * nodes if each else None


def _count(options: Mapping[str, object], names: Sequence[str]) -> int | None:
    found = next((options[_name(name)] for name in names if _name(name) in options), None)
    found = found[0] if isinstance(found, list) else found  # the program's own name follows
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() and int(text) > 0 else None
