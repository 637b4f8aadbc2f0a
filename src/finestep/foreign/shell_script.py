"""A shell script as the options of the trainer that it starts; it is read, never run.

Variables, arrays, continued lines, loops (their first value) and `$((...))` are followed. What comes from outside of the script, like
`$1`, stays open and is named.
"""

from __future__ import annotations

import re
import shlex

from finestep.errors import BadInput
from finestep.foreign.arithmetic import arithmetic
from finestep.foreign.config import Source
from finestep.foreign.launcher import devices_of, is_program, option_words

_ASSIGN = re.compile(r"^(?:export\s+|local\s+|declare\s+(?:-\w+\s+)?|readonly\s+|set\s+)?([A-Za-z_]\w*)=(.*)$", re.S)
_ARRAY = re.compile(r"^[ \t]*(?:declare\s+-a\s+)?([A-Za-z_]\w*)(\+?)=\((.*?)\)[ \t]*$", re.S | re.M)
_LOOP = re.compile(r"^for\s+(\w+)\s+in\s+(.+?)(?:;|$)")
_VARIABLE = re.compile(
    r"\$\{([A-Za-z_]\w*)(\[[@*]\])?(?::?[-=]([^{}]*))?\}|\$([A-Za-z_]\w*)|\$(\d|[@*#])|\$\{(\d+)(?::?-([^{}]*))?\}"
)
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?[^\n]*\n.*?\n\s*\1\s*(?=\n|$)", re.S)
MOST_ROUNDS = 8


def shell_source(text: str, place: str) -> Source:
    """The command of a script that has the most training options.

    Raises:
        BadInput: no command has any.
    """
    variables: dict[str, str] = {}
    notes: list[str] = []
    commands: list[list[str]] = []
    directives = dict(re.findall(r"^#(?:SBATCH|PBS|\$)\s+--?([\w-]+)[= ]+(\S+)", text, re.M))
    for line in _logical_lines(_arrays(_joined(text), variables)):
        _follow(line, variables, commands, notes)
    found = [(option_words(words), words) for words in commands]
    options, _ = max(
        found, key=lambda one: (bool(one[0].files), len(one[0].options), is_program(one[1])), default=(None, [])
    )
    if options is None or not (options.options or options.files):
        raise BadInput(
            "the script starts no command with training options",
            place=place,
            next_step="give the trainer's own config file",
        )
    tree = {name: value for name, value in options.options.items() if not _is_open(value)}
    unresolved = tuple(f"--{name} {value}" for name, value in options.options.items() if _is_open(value))
    return Source(
        kind="shell",
        tree=tree,
        text=text,
        program=options.program,
        files=tuple(options.files),
        num_devices=devices_of(options, {**variables, **options.environment}, directives),
        notes=tuple(dict.fromkeys(notes)),
        unresolved=unresolved,
    )


def _is_open(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, str) and "$" in one for one in values)


def _joined(text: str) -> str:
    """Without here-documents, comment lines and the ends of continued lines; a batch file's `^` and `%X%` as a shell's."""
    text = _HEREDOC.sub("", text.replace("\r\n", "\n"))
    if re.search(r"^\s*(?:@echo|set \w+=|rem )", text, re.M | re.I):
        text = re.sub(r"%(\w+)%", r"${\1}", re.sub(r"\^[ \t]*\n", " ", text))
    # A comment between two continued lines ends nothing in practice: people comment options out.
    text = re.sub(r"^[ \t]*#[^\n]*\n", "", text, flags=re.M)
    return re.sub(r"[\\`][ \t]*\n", " ", text)


def _arrays(text: str, variables: dict[str, str]) -> str:
    """Note `NAME=( ... )` as variables, and take them out."""

    def keep(found: re.Match[str]) -> str:
        body = re.sub(r"(?<!\S)#[^\n]*", "", found[3]).replace("\n", " ")
        variables[found[1]] = (variables.get(found[1], "") + " " if found[2] else "") + body.strip()
        return ""

    return _ARRAY.sub(keep, text)


def _logical_lines(text: str) -> list[str]:
    """Lines, with a quoted text that spans several as one, split at `&&` and `;`."""
    lines, pending = [], ""
    for raw in text.split("\n"):
        pending = f"{pending} {raw}" if pending else raw
        if pending.count('"') % 2 or (pending.count("'") % 2 and '"' not in pending):
            continue
        lines.append(pending.strip())
        pending = ""
    return [
        part.strip()
        for line in [*lines, pending.strip()]
        for part in re.split(r"&&|\|\||;(?=\s|$)", line)
        if part.strip()
    ]


def _follow(line: str, variables: dict[str, str], commands: list[list[str]], notes: list[str]) -> None:
    """One line: a loop, an assignment, or a command."""
    line = re.sub(r"^(?:do|then|else|fi|done|time|nohup|exec|eval)\s+", "", line)
    loop = _LOOP.match(line)
    if loop:
        values = _words(_expanded(loop[2], variables))
        if values:
            variables[loop[1]] = values[0]
        if len(values) > 1:
            notes.append(f"the script loops over {loop[1]} ({', '.join(values[:6])}): the first is judged")
        return
    assigned = _ASSIGN.match(line)
    if assigned and _is_one_word(assigned[2]):
        value = _expanded(assigned[2], variables)
        variables[assigned[1]] = " ".join(_words(value)) if value[:1] in "\"'" else value.strip()
        return
    words = _words(_expanded(line, variables))
    if len(words) > 1 and words[0] not in ("if", "echo", "cd", "export", "mkdir", "for", "while", "pip"):
        commands.append(words)


def _is_one_word(text: str) -> bool:
    """Whether an assignment is the whole line, and not set before a command on it."""
    return len(_words(text)) <= 1


def _expanded(text: str, variables: dict[str, str]) -> str:
    """The text with known variables and arithmetic put in; others stay."""

    def value(found: re.Match[str]) -> str:
        name, default = found[1] or found[4], found[3] if found[3] is not None else found[7]
        return variables.get(name or "", default if default is not None else found[0])

    for _ in range(MOST_ROUNDS):
        after = _VARIABLE.sub(value, text)
        after = re.sub(r"\$\(\((.+?)\)\)", lambda m: _number(m, variables), after)
        after = re.sub(r'"(\$\{?\w+\[@\]\}?)"', r"\1", after)
        if after == text:
            break
        text = after
    return text


def _number(found: re.Match[str], variables: dict[str, str]) -> str:
    inner = re.sub(r"\b([A-Za-z_]\w*)\b", lambda m: variables.get(m[1], m[1]), found[1])
    value = arithmetic(inner)
    return found[0] if value is None else f"{int(value)}"


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()
