"""What an error says to do next, in the words of an agent's tools: it has their names and arguments, and no command line."""

from __future__ import annotations

import re
from collections.abc import Mapping

TOOLS = {
    "recommend": "recommend",
    "data": "inspect_data",
    "probe": "predict_memory",
    "tune": "start_study",
    "status": "study_status_of",
    "report": "study_result",
    "stop": "stop_study",
    "add": "add_trial",
    "extend": "extend_study",
    "diagnose": "diagnose_log",
    "export": "export_recipe",
}
"""Which tool a command of finestep is."""
ARGUMENTS = {
    "set": "settings",
    "lr": "learning_rate",
    "to": "framework",
    **{
        name: name
        for name in ("out", "budget", "method", "epochs", "columns", "prompt", "completion", "objective", "max-length")
    },
    **{name: name for name in ("gpu", "model", "data", "output", "force", "batch", "length")},
}
"""Which argument of a tool an option is; others have none."""
LISTS = re.compile(r"`finestep (\S*) ?--help(?:-all)?` lists what it takes")
QUOTED = re.compile(r"`finestep (\w+)[^`]*`")
OPTION = re.compile(r"`?--([a-z][a-z-]*)`?")


def in_tools(told: Mapping[str, object]) -> dict[str, object]:
    """An error object with its sentences in the words of the tools."""
    return {
        name: _words(value) if isinstance(value, str) and _is_said(name, value) else value
        for name, value in told.items()
    }


def _is_said(name: str, value: str) -> bool:
    """A sentence, or an option as the place of an error; files stay as they are."""
    return name in ("message", "next_step") or (name == "place" and value.startswith("--"))


def _words(text: str) -> str:
    """A sentence with tools and arguments for commands and options; what is no tool stays a command.

    >>> _words("`finestep report --help` lists what it takes")
    'give the tool `study_result` other arguments: its description says what each takes'
    >>> _words("give the old value, or another folder with --out")
    'give the old value, or another folder with `out`'
    """
    text = LISTS.sub(_lists, text)
    text = QUOTED.sub(lambda found: f"`{TOOLS[found[1]]}`" if found[1] in TOOLS else found[0], text)
    return OPTION.sub(_argument, text)


def _lists(found: re.Match[str]) -> str:
    tool = TOOLS.get(found[1])
    what = f"the tool `{tool}`" if tool else "the tool"
    return f"give {what} other arguments: its description says what each takes"


def _argument(found: re.Match[str]) -> str:
    name = ARGUMENTS.get(found[1])
    return found[0] if name is None else f"`{name.replace('-', '_')}`"
